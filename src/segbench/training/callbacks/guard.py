"""Stop at a loss that is not finite, before it reaches a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import lightning
import torch
from torch import Tensor

from segbench.errors import SegbenchError
from segbench.spec import Batch
from segbench.training.lightning_internals import step_to_read


class FiniteLoss(lightning.Callback):
    """Raise where a loss is NaN or infinite, naming its step and the batch's samples.

    On a CPU the loss is checked before the backward pass. On a GPU reading it would wait for the step in each step, so
    losses stay there and are read together: every `trainer.log_every_n_steps` steps, at the end and, by `Checkpoints`,
    before a checkpoint is written. The steps up to then are lost; no checkpoint has them.
    """

    def __init__(self) -> None:
        self._unread: list[tuple[int, tuple[str, ...], Tensor]] = []

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Forget an earlier training."""
        self._unread = []

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Note whose loss comes next, and the step it belongs to."""
        self._ids, self._step = batch.ids, trainer.global_step

    def on_before_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor
    ) -> None:
        """Check the loss on a CPU; keep it on a GPU."""
        self._keep(loss)
        if loss.device.type == "cpu":
            # The weights are untouched so far: nothing is lost.
            self.check(self._step)

    def _keep(self, loss: Tensor) -> None:
        self._unread.append((self._step, self._ids, loss.detach()))

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Check the losses on a GPU where the step's values are read anyway."""
        if step_to_read(trainer, self._step):
            self.check(trainer.global_step)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Check the last ones."""
        self.check(trainer.global_step)

    def check(self, now: int) -> None:
        """Read the losses that are not read yet.

        Args:
            now: steps done so far.

        Raises:
            SegbenchError: one is not finite; the first is named.
        """
        unread, self._unread = self._unread, []
        if not unread:
            return
        losses = torch.stack([loss for _, _, loss in unread]).tolist()
        for (step, ids, _), loss in zip(unread, losses, strict=True):
            if not math.isfinite(loss):
                raise _not_finite(loss, step, ids, now)


def _not_finite(value: float, step: int, ids: tuple[str, ...], now: int) -> SegbenchError:
    later = f" (read after step {now})" if now > step else ""
    return SegbenchError(
        f"a loss of {value} at step {step}, samples {', '.join(ids)}{later}",
        "a finite loss",
        "lower optimizer.lr, set trainer.gradient_clip_val, or check those samples; the last checkpoint is kept",
    )
