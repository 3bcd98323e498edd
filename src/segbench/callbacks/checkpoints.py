"""Checkpoints by steps: whole files only, the last two kept, and the best by a validation score."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint

from segbench.errors import SegbenchError

log = logging.getLogger(__name__)


class Checkpoints(Checkpoint):
    """Write `last.ckpt` (the one before it becomes `previous.ckpt`) and `best.ckpt`.

    A file is written under a temporary name, synced and renamed, so a reader never sees half of one.

    Args:
        directory: the run's `checkpoints/`.
        every_n_train_steps: cadence of `last.ckpt`; it is also written when training ends.
        monitor: the score that decides `best.ckpt`, e.g. `val/rand_error`; None, or no validation: no best.
        higher_is_better: its direction.
    """

    def __init__(
        self,
        directory: str | Path,
        every_n_train_steps: int = 500,
        monitor: str | None = None,
        higher_is_better: bool = True,
    ) -> None:
        if every_n_train_steps < 1:
            raise SegbenchError(
                f"callbacks.checkpoint.every_n_train_steps={every_n_train_steps}", "at least 1", "raise it"
            )
        self._directory, self._every = Path(directory), every_n_train_steps
        self._monitor, self._sign = monitor, 1.0 if higher_is_better else -1.0
        self.best_score: float | None = None
        self._written_at = -1

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best_score": self.best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best score so far: that of `best.ckpt`, where a validation came after the loaded checkpoint."""
        self.best_score = state_dict["best_score"]
        best = self._directory / "best.ckpt"
        if best.is_file():
            self.best_score = torch.load(best, weights_only=True)["callbacks"][self.state_key]["best_score"]

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write `last.ckpt` at its cadence."""
        step = trainer.global_step
        if step > 0 and step % self._every == 0 and step != self._written_at:
            self._write_last(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write `best.ckpt` where the monitored score has improved."""
        if self._monitor is None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if self._monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(key for key in trainer.callback_metrics if key.startswith("val/")))
            raise SegbenchError(
                f"callbacks.checkpoint.monitor={self._monitor}", f"a score of the validation: {known}", "choose one"
            )
        score = float(trainer.callback_metrics[self._monitor])
        if math.isnan(score) or (self.best_score is not None and self._sign * (score - self.best_score) <= 0):
            return
        self.best_score = score
        self._save(trainer, "best.ckpt")
        log.info("step %d: best %s so far, %.4f", trainer.global_step, self._monitor, score)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the end of training."""
        if trainer.global_step != self._written_at:
            self._write_last(trainer)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the start, where no step was to be taken (trainer.max_steps=0): published weights are scored so."""
        if trainer.global_step == 0 and self._written_at < 0:
            self._write_last(trainer)

    def _write_last(self, trainer: lightning.Trainer) -> None:
        self._save(trainer, "last.ckpt", keep="previous.ckpt")
        self._written_at = trainer.global_step

    def _save(self, trainer: lightning.Trainer, name: str, keep: str | None = None) -> None:
        _refuse_spoiled(trainer)
        partial = self._directory / f".{name}.partial"
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            self._rename(partial, name, keep)
        # No rank reads a checkpoint before it has its name.
        trainer.strategy.barrier()

    def _rename(self, partial: Path, name: str, keep: str | None) -> None:
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        final = self._directory / name
        if keep is not None and final.exists():
            # Linked, not moved: a process that ends between the two leaves its `last.ckpt`.
            linked = self._directory / f".{keep}.partial"
            linked.unlink(missing_ok=True)
            os.link(final, linked)
            os.replace(linked, self._directory / keep)
        os.replace(partial, final)
        folder = os.open(self._directory, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def _refuse_spoiled(trainer: lightning.Trainer) -> None:
    parameters = [p.detach() for p in trainer.lightning_module.parameters()]
    if parameters and not bool(torch.stack([p.sum() for p in parameters]).isfinite().all()):
        raise SegbenchError(
            f"weights that are not finite at step {trainer.global_step}",
            "finite weights",
            "lower optimizer.lr, or set trainer.gradient_clip_val; the checkpoint before is kept",
        )
