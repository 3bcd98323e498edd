"""Gradient norm and learning rate over steps."""

from __future__ import annotations

import lightning
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from segbench.training.lightning_internals import logs_now


class Curves(lightning.Callback):
    """Log `train/gradient_norm` (before clipping) and `train/lr` every `trainer.log_every_n_steps` steps."""

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: Optimizer
    ) -> None:
        """Log both: the gradients are there after backward, not yet clipped."""
        if not logs_now(trainer):
            return
        gradients = [p.grad.detach() for p in pl_module.parameters() if p.grad is not None]
        if gradients:
            pl_module.log("train/gradient_norm", get_total_norm(gradients))
        pl_module.log("train/lr", optimizer.param_groups[0]["lr"])
