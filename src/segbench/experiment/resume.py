"""Continuing a run: what may change beside `resume=RUN`, which checkpoint is whole, and what is no longer the same."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from segbench.config.flat import flatten
from segbench.config.record import Config
from segbench.errors import SegbenchError
from segbench.runs.directory import Refused, Run

if TYPE_CHECKING:
    import lightning
    from torch import Tensor

    from segbench.data.raw import DataSet

LIMITS = ("trainer.max_steps", "trainer.max_epochs", "trainer.max_time")
RESUMABLE = (*LIMITS, "trainer.devices")
"""Settings that may change when a run is continued."""
MOVED_DATA = ("data.root", "data.images", "data.masks")
"""Where the same data lie now."""
_TIME = "trainer.max_time"
ALLOWABLE = ("data", "model")
"""What may differ from the run's beginning if `resume_allow=` names it."""
_ABOUT = ("citation", "licence")
"""What a description says about a data set, and what is no part of it."""
SPLITS = ("train", "val", "test", "predict")


def changed(given: Mapping[str, str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What a command line changes of a run's configuration, by dotted key, and what `resume_allow` names.

    Args:
        given: the command's values by key, `resume` among them or not.

    Raises:
        SegbenchError: something that may not change, or no value.
    """
    pairs = dict(given)
    run = pairs.pop("resume", "RUN")
    allowed = tuple(name for name in pairs.pop("resume_allow", "").strip("[]").split(",") if name)
    if unknown := [name for name in allowed if name not in ALLOWABLE]:
        raise SegbenchError(
            f"resume_allow={','.join(unknown)}", f"of {', '.join(ALLOWABLE)}, joined by commas", "correct resume_allow="
        )
    known = (*RESUMABLE, *MOVED_DATA)
    if refused := [f"{key}={value}".removesuffix("=") for key, value in pairs.items() if key not in known]:
        raise SegbenchError(
            f"resume={run} with {', '.join(refused)}",
            f"beside resume= only {', '.join(known)} and resume_allow: a run keeps its configuration",
            "leave it out, or start a new run",
        )
    changes: dict[str, Any] = {}
    for key, value in pairs.items():
        changes[key] = os.path.abspath(value) if key in MOVED_DATA else yaml.safe_load(value)
        if key in ("trainer.max_steps", "trainer.max_epochs") and not isinstance(changes[key], int):
            raise SegbenchError(f"{key}={value}", "a whole number", f"correct {key}=")
    return changes, allowed


@dataclass(frozen=True)
class Continuation:
    """A run that goes on.

    Attributes:
        run: its directory.
        config: the effective configuration, with what the command changes.
        changes: of the command, by dotted key.
        allow: what may differ from the run's beginning, of `ALLOWABLE`.
    """

    run: Run
    config: Config
    changes: Mapping[str, Any]
    allow: tuple[str, ...] = ()


def continuation(given: Mapping[str, str]) -> Continuation | str:
    """What `resume=RUN` and what stands beside it ask for.

    Args:
        given: the command's values by key, `resume` among them.

    Returns:
        the run that goes on, or a sentence: it is finished.

    Raises:
        SegbenchError: no such run, or changes that it does not take.
    """
    run = Run.open(given["resume"])
    changes, allow = changed(given)
    recorded = run.config()
    config = recorded.replace(changes)
    if run.state() != "finished":
        return Continuation(run, config, changes, allow)
    done, ended = run.results()["timing"].get("steps"), run.ended_by()
    limits = [key for key in changes if key in LIMITS]
    asked = config.trainer.max_steps
    through = config == recorded and (ended is None or done is None or 0 <= asked <= done)
    if not limits or through:
        short = "" if ended is None or done is None or through else f" at step {done:.0f} of {asked}, by {ended}"
        return f"{run.path} is finished{short}; trainer.max_steps=N (or trainer.max_epochs=N) continues it"
    if ended == _TIME and config.trainer.max_time == recorded.trainer.max_time:
        raise SegbenchError(
            f"{run.path} used up its trainer.max_time={recorded.trainer.max_time}",
            "time that is left",
            "add trainer.max_time=null, or a longer one (of the run as a whole)",
        )
    if not run.latest():
        run.checkpoint("last")
    return Continuation(run, config, changes, allow)


def how_it_ended(trainer: lightning.Trainer) -> str | None:
    """What ended a training before its steps or epochs were through; None where they are."""
    from lightning.pytorch.callbacks import EarlyStopping, Timer

    steps, epochs = trainer.max_steps, trainer.max_epochs
    if 0 <= steps <= trainer.global_step or (epochs is not None and 0 <= epochs <= trainer.current_epoch):
        return None
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None and left <= 0:
            return _TIME
        if isinstance(callback, EarlyStopping) and callback.stopped_epoch:
            return f"early stopping on {callback.monitor}"
    return "a callback"


def refuse_fewer_steps(run: Run, config: Config, checkpoint: Mapping[str, Any]) -> None:
    """Refuse to continue to a step or an epoch that lies behind.

    Args:
        run: the run.
        config: with what the command changes.
        checkpoint: its content.

    Raises:
        Refused: more was done than is asked for.
    """
    done = {"max_steps": checkpoint["global_step"], "max_epochs": checkpoint.get("epoch", 0)}
    for name, reached in done.items():
        asked = getattr(config.trainer, name)
        if asked is not None and 0 <= asked < reached:
            raise Refused(
                f"trainer.{name}={asked} for {run.path}, which has done {reached}",
                f"more than {reached}",
                f"raise trainer.{name}, or score it as it is: segbench evaluate run={run.path}",
            )


def stretched(config: Config, changes: Mapping[str, Any], step: int) -> list[str]:
    """What a change of the length means to the schedule.

    Args:
        config: with what the command changes.
        changes: of the command.
        step: at which the run goes on.
    """
    longer = [f"{key}={changes[key]}" for key in ("trainer.max_steps", "trainer.max_epochs") if key in changes]
    if not longer or step == 0 or config.scheduler.name == "constant":
        return []
    return [
        f"{', '.join(longer)}: the schedule ({config.scheduler.name}) is stretched from step {step} on; its rates are "
        "neither those that the run had planned nor those of a run of this length"
    ]


def data_digests(dataset: DataSet) -> dict[str, str]:
    """SHA-256 of the first, the middle and the last image of each split, with their labels, as they are decoded."""
    digests = {}
    for name in SPLITS:
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


def split_ids(dataset: DataSet) -> dict[str, list[str]]:
    """The images' names by split, in their order, of the splits that there are."""
    splits = {name: dataset.split(name) for name in SPLITS}
    return {name: list(source.ids) for name, source in splits.items() if source is not None}


def refuse_other_data(run: Run, dataset: DataSet, allow: Sequence[str]) -> list[str]:
    """What is not the same in a run's data as when it began.

    Compared are the data set's description, the names of the images in each split, and some images.

    Returns:
        sentences, empty where all is the same or nothing was recorded.

    Raises:
        Refused: there are some, and `allow` does not name `data`.
    """
    described = {key: value for key, value in run.dataset().items() if key not in _ABOUT}
    differences = _other_values(described, json.loads(json.dumps(dataset.spec.to_dict())))
    ids, digests = split_ids(dataset), data_digests(dataset) if run.digests() else {}
    for split, before in run.splits().items():
        differences += _other_ids(split, before, ids.get(split, []))
    if not differences:
        other = [split for split, digest in run.digests().items() if digests.get(split) != digest]
        differences = [f"{split}: other pixels in images of the same names" for split in other]
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
    current = flatten(now)
    return [
        f"{key} is {current.get(key)!r}, was {value!r}"
        for key, value in flatten(before).items()
        if current.get(key) != value
    ]


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
