"""Continuing a run: what may change beside `resume=RUN`, which checkpoint is whole, and what is no longer the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.config.packaged import flat
from segbench.errors import SegbenchError
from segbench.runs.directory import Refused

if TYPE_CHECKING:
    from torch import Tensor

    from segbench.data.raw import DataSet
    from segbench.runs.directory import Run

RESUMABLE = ("trainer.max_steps", "trainer.max_epochs", "trainer.devices")
"""Settings that may change when a run is continued."""
ALLOWABLE = ("data", "model")
"""What may differ from the run's beginning if `resume_allow=` names it."""
_ABOUT = ("citation", "licence")
"""What a description says about a data set, and what is no part of it."""
SPLITS = ("train", "val", "test", "predict")


def changed(config: Mapping[str, Any], arguments: Sequence[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A run's configuration with what a command line changes of it, and what `resume_allow` names.

    Args:
        config: the run's.
        arguments: of the command, `resume=RUN` among them or not.

    Raises:
        SegbenchError: something that may not change, or no whole number.
    """
    pairs = {key: value for key, _, value in (argument.partition("=") for argument in arguments)}
    run = pairs.pop("resume", "RUN")
    allowed = tuple(name for name in pairs.pop("resume_allow", "").strip("[]").split(",") if name)
    if unknown := [name for name in allowed if name not in ALLOWABLE]:
        raise SegbenchError(
            f"resume_allow={','.join(unknown)}", f"of {', '.join(ALLOWABLE)}, joined by commas", "correct resume_allow="
        )
    if refused := [argument for argument in arguments if argument.split("=", 1)[0] in pairs.keys() - {*RESUMABLE}]:
        raise SegbenchError(
            f"resume={run} with {', '.join(refused)}",
            f"beside resume= only {', '.join(RESUMABLE)} and resume_allow: a run keeps its configuration",
            "leave it out, or start a new run",
        )
    trainer = dict(config["trainer"])
    for key, value in pairs.items():
        if not value.removeprefix("-").isdecimal():
            raise SegbenchError(f"{key}={value}", "a whole number", f"correct {key}=")
        trainer[key.removeprefix("trainer.")] = int(value)
    return {**config, "trainer": trainer}, allowed


def arguments_of(config: Mapping[str, Any], allow: Sequence[str]) -> list[str]:
    """What `changed` needs to make this configuration of the one that a run recorded."""
    values = {key: config["trainer"][key.removeprefix("trainer.")] for key in RESUMABLE}
    changes = [f"{key}={value}" for key, value in values.items() if isinstance(value, int)]
    return [*changes, *([f"resume_allow={','.join(allow)}"] if allow else [])]


def split_ids(dataset: DataSet) -> dict[str, list[str]]:
    """The images' names by split, in their order, of the splits that there are."""
    splits = {name: dataset.split(name) for name in SPLITS}
    return {name: list(source.ids) for name, source in splits.items() if source is not None}


def refuse_other_data(run: Run, dataset: DataSet, allow: Sequence[str]) -> list[str]:
    """What is not the same in a run's data as when it began.

    Compared are the data set's description and the names of the images in each split.

    Returns:
        sentences, empty where all is the same or nothing was recorded.

    Raises:
        Refused: there are some, and `allow` does not name `data`.
    """
    described = {key: value for key, value in run.dataset().items() if key not in _ABOUT}
    differences = _other_values(described, json.loads(json.dumps(dataset.spec.to_dict())))
    ids = split_ids(dataset)
    for split, before in run.splits().items():
        differences += _other_ids(split, before, ids.get(split, []))
    if differences and "data" not in allow:
        raise Refused(
            f"{run.path} and other data than it began with: {_some(differences)}",
            "the same images and classes, in the same order",
            "restore them, or train on with what is there: resume_allow=data",
        )
    return differences


def refuse_other_classes(run: Run, dataset: DataSet) -> list[str]:
    """What is not the same in a run's data, now that it is scored, as when it was trained.

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
            "restore the data; of data=image_folder that has grown: "
            f"+data.lists={run.path}/splits.json takes the images of the time",
        )
    return differences


def refuse_other_model(
    run: Run, saved: Mapping[str, Tensor], network: Mapping[str, Tensor], allow: Sequence[str]
) -> list[str]:
    """What is not the same in a run's network as in its checkpoint.

    Args:
        run: the run.
        saved: the checkpoint's state dict of the network.
        network: the network's own.
        allow: what may differ.

    Returns:
        sentences, empty where every name and shape is the same.

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
            f"{run.path} and another network than it trained: {_some(differences)}",
            "the weights of the checkpoint",
            "restore the model's code, or train on with the weights that fit: resume_allow=model (the others are drawn "
            "anew, and the optimiser begins anew)",
        )
    return differences


_MACHINE = ("versions", "device", "processor", "processes", "threads", "precision", "cuda", "cudnn")


def other_machine(began: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of two provenances decides about the last bits of a result, and differs."""
    return _other_values({key: began[key] for key in _MACHINE if key in began}, now)


def _other_values(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    # What is recorded today and was not then is no difference.
    current = dict(flat(now))
    return [f"{key} is {current.get(key)!r}, was {value!r}" for key, value in flat(before) if current.get(key) != value]


def _other_ids(split: str, before: Sequence[str], now: Sequence[str]) -> list[str]:
    gone, new = [name for name in before if name not in set(now)], [name for name in now if name not in set(before)]
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


def choose_checkpoint(run: Run, first: bool) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint of a run; damaged ones are set aside by the process that writes.

    Returns:
        its path, None where none was written yet, and what is to be said about damaged ones.

    Raises:
        SegbenchError: there are checkpoints, and all are damaged.
    """
    from segbench.training.checkpoint import newest_whole

    path, faults = newest_whole(run.latest())
    said = []
    for fault in faults:
        said.append(f"{fault.found}; going on from {path.name if path else 'the start'}")
        if first:
            run.set_aside()
    return path, said
