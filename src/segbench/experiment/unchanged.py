"""Whether a run's data, network and machine are those that it began with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.config.flat import flatten
from segbench.data.raw import SPLITS, DataSet
from segbench.errors import SegbenchError
from segbench.runs.calibration import file_digest
from segbench.runs.directory import Refused, Run
from segbench.runs.provenance import COMPUTING

if TYPE_CHECKING:
    from torch import Tensor

    from segbench.config.record import Config

_ABOUT = ("citation", "licence")
"""What a description notes about a data set, without effect on the data."""
_OF_FILES = (("modalities", "reading"), ("heads", "coding"))
"""How files are read and masks are written: where it matters, means, classes or pixels differ too."""
_MACHINE = ("versions", "device", "processor", "processes", "threads", "precision", *COMPUTING)


def data_digests(dataset: DataSet, splits: Sequence[str] = SPLITS) -> dict[str, str]:
    """SHA-256 of the first, the middle and the last image of each split, with their labels, as they are decoded."""
    digests = {}
    for name in splits:
        source = dataset.split(name)
        if source is None or len(source) == 0:
            continue
        digest = hashlib.sha256()
        for index in sorted({0, len(source) // 2, len(source) - 1}):
            raw = source.read(index)
            for key, array in sorted([*raw.images.items(), *raw.labels.items()]):
                digest.update(f"{raw.id} {key} {array.dtype} {array.shape}".encode())
                digest.update(array.tobytes())
        digests[name] = digest.hexdigest()
    return digests


def weights_digest(config: Config) -> dict[str, str]:
    """SHA-256 of the file of initial weights, for the provenance; empty where there is none."""
    path = None if config.weights is None or config.weights.path is None else Path(config.weights.path)
    if path is None or not path.is_file():
        return {}
    return {"weights_sha256": file_digest(path)}


def split_ids(dataset: DataSet) -> dict[str, list[str]]:
    """The images' names by split, in their order, for each existing split."""
    splits = {name: dataset.split(name) for name in SPLITS}
    return {name: list(source.ids) for name, source in splits.items() if source is not None}


def refuse_other_data(run: Run, dataset: DataSet, allow: Sequence[str]) -> list[str]:
    """What changed in a run's data since it began.

    Compared are the data set's description, the names of the images in each split, and some images.

    Returns:
        sentences, empty if nothing changed or nothing was recorded.

    Raises:
        Refused: there are some, and `allow` does not name `data`.
    """
    described = {key: value for key, value in run.dataset().items() if key not in _ABOUT}
    for key, inner in _OF_FILES:
        described[key] = {
            name: {each: value for each, value in entry.items() if each != inner}
            for name, entry in described.get(key, {}).items()
        }
    differences = _other_values(described, json.loads(json.dumps(dataset.spec.to_dict())))
    ids, digests = split_ids(dataset), data_digests(dataset) if run.digests() else {}
    for split, before in run.splits().items():
        differences += _other_ids(split, before, ids.get(split, []))
    if not differences:
        other = [split for split, digest in run.digests().items() if digests.get(split) != digest]
        differences = [f"{split}: the pixels changed in images of the same names" for split in other]
    if differences and "data" not in allow:
        raise Refused(
            f"the data of {run.path} changed since it began: {_some(differences)}",
            "the same images and classes, in the same order",
            "restore them, or continue with the current ones: resume_allow=data",
        )
    return differences


def other_training_images(run: Run, dataset: DataSet) -> list[str]:
    """How a data set's training images differ from those that a run began with: their names, and some of their pixels.

    Returns:
        sentences, empty if they are the same.
    """
    source = dataset.split("train")
    differences = _other_ids("train", run.splits().get("train", []), [] if source is None else list(source.ids))
    recorded = run.digests().get("train")
    if not differences and recorded is not None and data_digests(dataset, ("train",))["train"] != recorded:
        differences = ["train: the pixels changed in images of the same names"]
    return differences


def refuse_other_classes(run: Run, dataset: DataSet) -> list[str]:
    """What changed in a run's data between training and scoring.

    Returns:
        sentences on the images and the protocol, which an evaluation may choose.

    Raises:
        SegbenchError: the classes or the scale of the values are not those that the network learned.
    """
    differences = refuse_other_data(run, dataset, ("data",))
    learned = [difference for difference in differences if difference.startswith(("modalities.", "heads."))]
    if learned:
        raise SegbenchError(
            f"{run.path} was trained on other data: {_some(learned)}",
            "the classes and the means that the network learned",
            "restore the data; if a data=image_folder has grown, "
            f"+data.lists={run.path}/splits.json selects the images of that time",
        )
    return differences


def refuse_other_model(
    run: Run, saved: Mapping[str, Tensor], network: Mapping[str, Tensor], allow: Sequence[str]
) -> list[str]:
    """How a run's network differs from its checkpoint.

    Args:
        run: the run.
        saved: the checkpoint's state dict of the network.
        network: the network's own.
        allow: what may differ.

    Returns:
        sentences, empty if every name and shape is the same.

    Raises:
        Refused: there are some, and `allow` does not name `model`.
    """
    differences = []
    for name in dict.fromkeys([*saved, *network]):
        if name not in network:
            differences.append(f"{name} is gone")
        elif name not in saved:
            differences.append(f"{name} is new")
        elif saved[name].shape != network[name].shape:
            differences.append(f"{name} is {tuple(network[name].shape)}, was {tuple(saved[name].shape)}")
    if differences and "model" not in allow:
        raise Refused(
            f"the network of {run.path} differs from its checkpoint: {_some(differences)}",
            "the weights of the checkpoint",
            "restore the model's code, or continue with the weights that fit: resume_allow=model (the others are drawn "
            "again, and the optimiser starts from its initial state)",
        )
    return differences


def other_machine(began: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Differences of two provenances that may change the last bits of a result."""
    return _other_values({key: began[key] for key in _MACHINE if key in began}, now)


def _other_values(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    # A value that was not recorded then is not a difference.
    current = flatten(now)
    return [
        f"{key} is {current.get(key)!r}, was {value!r}"
        for key, value in flatten(before).items()
        if current.get(key) != value
    ]


def _other_ids(split: str, before: Sequence[str], now: Sequence[str]) -> list[str]:
    then, there = set(before), set(now)
    gone, new = [name for name in before if name not in there], [name for name in now if name not in then]
    differences = [
        f"{split}: {len(names)} images {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for names, what in ((gone, "gone"), (new, "new"))
        if names
    ]
    if not differences and list(before) != list(now):
        differences = [f"{split}: the same images in another order"]
    return differences


def _some(differences: Sequence[str], shown: int = 5) -> str:
    more = f"; and {len(differences) - shown} more" if len(differences) > shown else ""
    return "; ".join(differences[:shown]) + more
