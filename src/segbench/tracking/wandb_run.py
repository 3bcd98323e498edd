"""W&B: offline without a key or network, finished with the run's true state."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger

from segbench.config.record import Config
from segbench.runtime.files import write_whole
from segbench.runtime.processes import is_main_process
from segbench.runtime.signals import Stopped
from segbench.tracking.access import is_offline

log = logging.getLogger(__name__)


def _run_id(directory: Path) -> str | None:
    # Kept in the directory: a resumed run stays the same run, and the jobs 0 of two sweeps are two runs.
    path = directory / "wandb_id.txt"
    if not path.is_file():
        if not is_main_process():
            # Only the first process has a run.
            return None
        name = "".join(letter if letter.isalnum() else "-" for letter in directory.name)
        # The agent of a W&B sweep has named its run already.
        write_whole(path, os.environ.get("WANDB_RUN_ID") or f"{name}-{secrets.token_hex(4)}")
    return path.read_text()


def wandb_settings(directory: Path, config: Config, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `WandbLogger` that follow from the run and the machine.

    Args:
        directory: of the run.
        config: of the run.
        given: the logger's own arguments.
    """
    from wandb import Settings

    offline = is_offline()
    if offline:
        log.info(
            "wandb: offline (no key, or WANDB_MODE=offline); sync later with: wandb sync %s/wandb/offline-*", directory
        )
    return {
        "save_dir": str(directory),
        "name": f"{config.name}/{directory.name}",
        "id": _run_id(directory),
        "offline": offline,
        "config": config.tree,
        "group": _group(directory, config.name, given.get("group")),
        "tags": _tags(directory, config, given.get("tags") or []),
        "settings": Settings(init_timeout=15, silent=True),
    }


def _sweep(directory: Path) -> str | None:
    return directory.parent.name if (directory.parent / "sweep.yaml").is_file() else None


def _group(directory: Path, name: str, own: str | None) -> str:
    """The experiment, and in a sweep the sweep; another `logger.wandb.group` is kept."""
    if own not in (None, name):
        return str(own)
    sweep = _sweep(directory)
    return f"{name}/{sweep}" if sweep else name


def _tags(directory: Path, config: Config, given: Sequence[str]) -> list[str]:
    """Experiment, data set, network and sweep, after those of `logger.wandb.tags`."""
    data = config.data.target.split(".")
    found = [*given, config.name, data[-2] if len(data) > 1 else "", config.model.name, _sweep(directory) or ""]
    # The server takes 64 characters.
    return list(dict.fromkeys(str(tag)[:64] for tag in found if tag))


def open_wandb(make: Callable[..., WandbLogger]) -> WandbLogger:
    """Start the run; go offline if the server cannot be reached.

    Args:
        make: makes the run's logger; keyword arguments replace its settings.
    """
    import wandb

    logger = make()
    try:
        _ = logger.experiment
    except (wandb.errors.CommError, wandb.errors.UsageError) as error:
        log.warning("wandb: %s; continuing offline", str(error).splitlines()[0])
        # The logger refuses log_model when offline, where nothing is uploaded.
        logger = make(offline=True, mode="offline", log_model=False)
        wandb.setup().settings.mode = "offline"
        _ = logger.experiment
    return logger


def finish_wandb(loggers: list[Logger], exit_code: int, preempted: bool = False) -> None:
    """End the W&B run, as finished (0) or failed, so that this process can start another.

    Args:
        loggers: of the Trainer.
        exit_code: of the run.
        preempted: the machine was reclaimed; with an exit code other than 0 W&B shows the run as preempted, and its
            sweeps run it again.
    """
    if any(isinstance(logger, WandbLogger) for logger in loggers):
        import wandb

        if preempted and wandb.run is not None:
            wandb.run.mark_preempting()
        wandb.finish(exit_code=exit_code)


@contextlib.contextmanager
def wandb_ending(loggers: list[Logger]) -> Iterator[list[Logger]]:
    """End the W&B run when the block ends: finished, preempted by a signal, or failed."""
    exit_code, preempted = 1, False
    try:
        yield loggers
        exit_code = 0
    except Stopped as stopped:
        exit_code, preempted = 128 + stopped.signum, stopped.preempted
        raise
    finally:
        finish_wandb(loggers, exit_code, preempted)
