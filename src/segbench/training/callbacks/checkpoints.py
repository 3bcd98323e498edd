"""Checkpoints by steps: whole files only, the last two kept, and the best by a validation score."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from pydantic import BaseModel
from torch import Tensor

from segbench.config.handed_over import read_json
from segbench.errors import SegbenchError
from segbench.runtime.files import write_whole
from segbench.runtime.signals import Stopped
from segbench.training.callbacks.checkpoint_files import CheckpointFiles
from segbench.training.callbacks.csv_log import RunCsv
from segbench.training.callbacks.guard import FiniteLoss
from segbench.training.callbacks.in_step import InStep
from segbench.training.checkpoint import read_checkpoint
from segbench.training.lightning_internals import (
    count_logged_steps,
    place_after,
    set_last_step,
    set_loops,
    validation_due,
    write_checkpoints_with,
)
from segbench.training.task import SegmentationTask

log = logging.getLogger(__name__)

VALIDATION = "validation.json"


class _Validation(BaseModel):
    """The last validation, as it is recorded."""

    step: int
    into_step: int = 0
    rows: int | None
    scores: dict[str, float | None]
    visits: list[int] = []


"""The last finished validation: its step, how many batches of the next one were done, its scores, and the number of
rows in metrics.csv after it."""


class Checkpoints(Checkpoint):
    """Write `last.ckpt` (the one before it becomes `previous.ckpt`) and `best.ckpt`.

    Checkpoints are taken between two steps, when everything that a step logs is on disk, and written by a thread while
    the training goes on. There is one before every validation, so that a run interrupted in a validation repeats it.
    Where a step accumulates several batches, those written in the midst of one hold what the step before it left: a
    resume begins with the first of the batches.

    Args:
        directory: the run's `checkpoints/`.
        every_n_train_steps: cadence of `last.ckpt`; it is also written before a validation, when a signal stops the
            run, and when training ends.
        monitor: the score that selects `best.ckpt`, e.g. `val/rand_error`; None, or no validation: no best.
        higher_is_better: its direction.
        every_n_minutes: also write `last.ckpt` when the one before it is so old; None: by steps alone.
    """

    def __init__(
        self,
        directory: str | Path,
        every_n_train_steps: int = 500,
        monitor: str | None = None,
        higher_is_better: bool = True,
        every_n_minutes: float | None = None,
    ) -> None:
        if every_n_train_steps < 1:
            raise SegbenchError(
                f"callbacks.checkpoint.every_n_train_steps={every_n_train_steps}", "at least 1", "raise it"
            )
        if every_n_minutes is not None and not every_n_minutes > 0:
            raise SegbenchError(
                f"callbacks.checkpoint.every_n_minutes={every_n_minutes}", "a number above 0, or null", "raise it"
            )
        self._every_s = math.inf if every_n_minutes is None else 60 * every_n_minutes
        self._directory, self._every = Path(directory), every_n_train_steps
        self._monitor, self._sign, self._told_nan = monitor, 1.0 if higher_is_better else -1.0, False
        self.best_score: float | None = None
        self._written_at = -1
        self._seen = 0
        self._step_done = False
        self._resumed = False
        self._last_step: int | None = None
        # Batches of a step that is not done, and what the step before them left: running statistics, rows.
        self._into_step = 0
        self._buffers: dict[str, Tensor] = {}
        self._rows_of_step: int | None = None
        self._writing_last = False
        self._seconds_before, self._began = 0.0, time.monotonic()
        self._last_at = self._began
        self._files = CheckpointFiles()
        self._in_step: InStep | None = None

    # Resuming

    def state_dict(self) -> dict[str, Any]:
        """The best score so far, the number of rows in metrics.csv, and the seconds of training."""
        rows = self._rows_of_step if self._writing_last and self._into_step else self._rows
        return {"best_score": self.best_score, "rows": rows, "seconds": self.seconds}

    @property
    def seconds(self) -> float:
        """Seconds of training so far, including those before the checkpoint it was resumed from."""
        return self._seconds_before + time.monotonic() - self._began

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Write checkpoints as whole files; remove partial ones that a killed process left."""
        if stage == "fit":
            self._began = self._last_at = time.monotonic()
        write_checkpoints_with(trainer, self._files)
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        self._in_step = next((each for each in callbacks if isinstance(each, InStep)), None)
        if trainer.is_global_zero:
            # A run that was copied may lack the folder: an empty one is in no archive.
            self._directory.mkdir(parents=True, exist_ok=True)
            for unfinished in self._directory.glob(".*.partial"):
                unfinished.unlink()
        self._loggers = [logger for logger in trainer.loggers if isinstance(logger, RunCsv)]

    @property
    def _rows(self) -> int | None:
        return next((logger.written() for logger in self._loggers), None)

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Set the loops to where the checkpoint's step leaves them, including a validation that is still due."""
        if trainer.state.fn != "fit" or (step := int(checkpoint["global_step"])) == 0:
            return
        self._written_at = self._seen = step
        self._resumed = True
        place = place_after(trainer, step)
        due = validation_due(trainer, place)
        record = self._last_validation(step)
        # One in the midst of the next step will be repeated.
        validated = record.get("step") == step and not record.get("into_step", 0)
        ended = trainer.max_steps not in (None, -1) and step >= trainer.max_steps
        set_loops(checkpoint, place, due, validated, ended)
        self._last_step = trainer.max_steps if ended and due and not validated else None
        if record and isinstance(pl_module, SegmentationTask):
            pl_module.scores["val"] = record["scores"]
            pl_module.resumed_after_validation = validated
            if "visits" in record:
                pl_module.visits["val"] = record["visits"]
        state = checkpoint["callbacks"][self.state_key]
        self._seconds_before = state.get("seconds", 0.0)
        for logger in self._loggers:
            logger.keep(record["rows"] if validated else state["rows"])
        self.best_score = self._best_so_far()

    def _last_validation(self, step: int) -> dict[str, Any]:
        path = self._directory / VALIDATION
        record: dict[str, Any] = read_json(path, _Validation).model_dump(exclude_unset=True) if path.is_file() else {}
        # One of a later step will be repeated.
        return record if record.get("step", step) <= step else {}

    def _best_so_far(self) -> float | None:
        # Read from the file: a validation may have followed the loaded checkpoint.
        path = self._directory / "best.ckpt"
        if not path.is_file():
            return None
        try:
            score: float = read_checkpoint(path)["callbacks"][self.state_key]["best_score"]
        except SegbenchError as error:
            log.warning("%s; the best of the next validations replaces it", error.found)
            return None
        return score

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Announce one more step where only a validation is left."""
        if self._last_step is not None:
            set_last_step(trainer, self._last_step + 1)

    # Writing

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Note what training begins with."""
        if trainer.accumulate_grad_batches > 1:
            kept = pl_module.state_dict()
            self._buffers = {name: buffer.clone() for name, buffer in pl_module.named_buffers() if name in kept}
            self._rows_of_step = self._rows

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the end of a step; its row of metrics.csv is not written yet."""
        self._into_step += 1
        if self._in_step is not None:
            self._in_step.asks = time.monotonic() - self._last_at >= self._every_s
        if trainer.global_step > self._seen:
            self._seen, self._step_done, self._into_step = trainer.global_step, True, 0
            for name, buffer in pl_module.named_buffers():
                if name in self._buffers:
                    self._buffers[name].copy_(buffer)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Between two steps: write `last.ckpt` at its cadence."""
        self._files.raise_error()
        if self._resumed:
            count_logged_steps(trainer)
            self._resumed = False
        self._between_steps(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Between two steps: write `last.ckpt` at its cadence."""
        self._between_steps(trainer)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write `last.ckpt`."""
        if _in_fit(trainer):
            self._between_steps(trainer, cadence=1)

    def _between_steps(self, trainer: lightning.Trainer, cadence: int | None = None) -> None:
        if self._step_done and (trainer.global_step % (cadence or self._every) == 0 or self._is_time(trainer)):
            self._write_last(trainer)
        if self._step_done and trainer.accumulate_grad_batches > 1:
            self._rows_of_step = next((logger.rows for logger in self._loggers), None)
        self._step_done = False

    def _is_time(self, trainer: lightning.Trainer) -> bool:
        if trainer.world_size == 1 or self._in_step is None:
            return time.monotonic() - self._last_at >= self._every_s
        # Clocks differ: all processes do what one of them asked for a step ago.
        return self._in_step.agreed

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write `best.ckpt` where the monitored score has improved."""
        if not _in_fit(trainer):
            return
        record = self._record_validation(trainer.global_step, pl_module) if trainer.is_global_zero else None
        # The record comes after best.ckpt: a resume takes a validation that has one for done.
        if self._monitor is None or not self._write_best(trainer, self._monitor, record):
            if record is not None:
                self._files.begin(record)
        if self._last_step is not None:
            set_last_step(trainer, self._last_step)
            self._last_step = None

    def _write_best(self, trainer: lightning.Trainer, monitor: str, record: Callable[[], None] | None) -> bool:
        if monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(key for key in trainer.callback_metrics if key.startswith("val/")))
            raise SegbenchError(
                f"callbacks.checkpoint.monitor={monitor}", f"a score of the validation: {known}", "choose one"
            )
        score = float(trainer.callback_metrics[monitor])
        if math.isnan(score) and not self._told_nan:
            self._told_nan = True
            log.warning(
                "step %d: %s is not a number, as where no pixel of the validation is labelled: it selects no best.ckpt",
                *(trainer.global_step, monitor),
            )
        if math.isnan(score) or (self.best_score is not None and self._sign * (score - self.best_score) <= 0):
            return False
        self.best_score = score
        self._save(trainer, "best.ckpt", then=record)
        log.info("step %d: best %s so far, %.4f", trainer.global_step, monitor, score)
        return True

    def _record_validation(self, step: int, module: lightning.LightningModule) -> Callable[[], None]:
        record: dict[str, Any] = {"step": step, "into_step": self._into_step, "rows": self._rows, "scores": {}}
        if isinstance(module, SegmentationTask):
            record |= {"scores": module.scores.get("val", {}), "visits": module.visits.get("val", [])}
        return partial(write_whole, self._directory / VALIDATION, json.dumps(record))

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the end of training."""
        if trainer.global_step != self._written_at:
            self._write_last(trainer)
        self._finish(trainer)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Write where a signal stopped the run; what was begun is finished after any error but a second Ctrl-C."""
        if isinstance(exception, Stopped) and trainer.state.fn == "fit" and 0 < trainer.global_step != self._written_at:
            self._write_last(trainer)
        if isinstance(exception, Stopped):
            self._files.wait()
        elif not isinstance(exception, KeyboardInterrupt):
            try:
                self._files.wait()
            except SegbenchError as error:
                log.warning("%s", error.found)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the initial weights where no step is taken (trainer.max_steps=0), as to score published weights."""
        if trainer.global_step == 0 and self._written_at < 0:
            self._write_last(trainer)
            self._finish(trainer)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Leave out of `last.ckpt` what the batches of a step that is not done have changed; a resume repeats them."""
        if self._writing_last and self._into_step:
            checkpoint["state_dict"].update(self._buffers)

    def _write_last(self, trainer: lightning.Trainer) -> None:
        self._writing_last = True
        try:
            self._save(trainer, "last.ckpt", keep="previous.ckpt")
        finally:
            self._writing_last = False
        self._written_at, self._last_at = trainer.global_step, time.monotonic()
        if self._in_step is not None:
            # What it would send next was asked for before this checkpoint.
            self._in_step.asks = False

    def _save(
        self, trainer: lightning.Trainer, name: str, keep: str | None = None, then: Callable[[], None] | None = None
    ) -> None:
        for guard in (each for each in trainer.callbacks if isinstance(each, FiniteLoss)):  # type: ignore[attr-defined]
            guard.check(trainer.global_step)
        _refuse_spoiled(trainer)
        trainer.save_checkpoint(self._directory / name, storage_options={"keep": keep, "then": then})

    def _finish(self, trainer: lightning.Trainer) -> None:
        self._files.wait()
        # No rank reads a checkpoint before it has its name.
        trainer.strategy.barrier()


def _in_fit(trainer: lightning.Trainer) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def _refuse_spoiled(trainer: lightning.Trainer) -> None:
    parameters = [p.detach() for p in trainer.lightning_module.parameters()]
    if parameters and not bool(torch.stack([p.sum() for p in parameters]).isfinite().all()):
        raise SegbenchError(
            f"weights that are not finite at step {trainer.global_step}",
            "finite weights",
            "lower optimizer.lr, or set trainer.gradient_clip_val; the previous checkpoint is kept",
        )
