"""Stop at a loss that is not finite, before it reaches the weights or a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning
import torch
from torch import Tensor

from segbench.errors import SegbenchError
from segbench.spec import Batch


class FiniteLoss(lightning.Callback):
    """Raise where a loss is NaN or infinite, naming the batch's samples.

    On a CPU the loss is checked before the backward pass. On a GPU it is copied beside the computation and checked when
    the step has been queued, which waits for the forward pass only and is before any checkpoint.
    """

    def __init__(self) -> None:
        self._pending: tuple[Tensor, Any] | None = None

    def on_before_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor
    ) -> None:
        """Check the loss on a CPU; start its copy on a GPU."""
        value, ready = loss.detach(), None
        if value.is_cuda:
            value = value.to("cpu", non_blocking=True)
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record()
        elif not bool(value.isfinite()):
            # The weights are untouched so far: nothing is lost.
            raise _not_finite(float(value), trainer.global_step, self._batch)
        self._pending = (value, ready)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Check the loss on a GPU."""
        if self._pending is None or self._pending[1] is None:
            return
        value, ready = self._pending
        ready.synchronize()
        if not bool(value.isfinite()):
            raise _not_finite(float(value), trainer.global_step, batch)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Note whose loss comes next."""
        self._batch = batch


def _not_finite(value: float, step: int, batch: Batch) -> SegbenchError:
    return SegbenchError(
        f"a loss of {value} at step {step}, samples {', '.join(batch.ids)}",
        "a finite loss",
        "lower optimizer.lr, set trainer.gradient_clip_val, or check those samples; the last checkpoint is kept",
    )
