"""Continuing a run: what may change beside `resume=RUN`, and the newest intact checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from segbench.config.places import DATA
from segbench.config.record import Config
from segbench.errors import SegbenchError, as_typed
from segbench.runs.directory import Refused, Run

if TYPE_CHECKING:
    import lightning

LIMITS = ("trainer.max_steps", "trainer.max_epochs", "trainer.max_time")
RESUMABLE = (*LIMITS, "trainer.devices", "runtime.timeout_s", "data.num_workers")
"""Settings that may change when a run is continued."""
_TIME = "trainer.max_time"
ALLOWABLE = ("data", "model")
"""What may differ from the run's beginning if `resume_allow=` names it."""


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
    known = (*RESUMABLE, *DATA)
    if refused := [f"{key}={value}".removesuffix("=") for key, value in pairs.items() if key not in known]:
        raise SegbenchError(
            f"resume={run} with {', '.join(refused)}",
            f"beside resume= only {', '.join(known)} and resume_allow: a run keeps its configuration",
            "leave it out, or start a new run",
        )
    changes: dict[str, Any] = {}
    for key, value in pairs.items():
        changes[key] = os.path.abspath(value) if key in DATA else yaml.safe_load(value)
        if key in ("trainer.max_steps", "trainer.max_epochs") and not isinstance(changes[key], int):
            raise SegbenchError(f"{key}={value}", "a whole number", f"correct {key}=")
    return changes, allowed


@dataclass(frozen=True)
class Continuation:
    """A run that continues.

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
    """What `resume=RUN` and the keys beside it ask for.

    Args:
        given: the command's values by key, `resume` among them.

    Returns:
        the run to continue, or a sentence: it is finished.

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
            "remaining time",
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
        # The number of the epoch is 0 where the first one stopped.
        if isinstance(callback, EarlyStopping) and (why := callback.stopping_reason_message or ""):
            return f"early stopping on {callback.monitor}: {' '.join(why.split())}"
    return "a callback"


def refuse_fewer_steps(run: Run, config: Config, checkpoint: Mapping[str, Any]) -> None:
    """Refuse to continue to a step or an epoch that has passed.

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
                f"raise trainer.{name}, or score it as it is: segbench evaluate {as_typed('run', run.path)}",
            )


def stretched(config: Config, changes: Mapping[str, Any], step: int) -> list[str]:
    """What a change of the length means to the schedule.

    Args:
        config: with what the command changes.
        changes: of the command.
        step: at which the run continues.
    """
    longer = [f"{key}={changes[key]}" for key in ("trainer.max_steps", "trainer.max_epochs") if key in changes]
    if not longer or step == 0 or config.scheduler.name == "constant":
        return []
    return [
        f"{', '.join(longer)}: the schedule ({config.scheduler.name}) is stretched from step {step} on; its rates "
        "differ from the planned ones and from those of a run of this length"
    ]


def choose_checkpoint(run: Run, first: bool) -> tuple[Path | None, list[str]]:
    """The newest intact checkpoint of a run; damaged ones are set aside by the process that writes.

    Returns:
        its path, None where none was written yet, and a sentence on each damaged one.

    Raises:
        SegbenchError: there are checkpoints, and all are damaged.
    """
    from segbench.training.checkpoint import newest_whole

    path, faults = newest_whole(run.latest())
    sentences = []
    for fault in faults:
        sentences.append(f"{fault.found}; continuing from {path.name if path else 'the start'}")
        if first:
            run.set_aside()
    return path, sentences
