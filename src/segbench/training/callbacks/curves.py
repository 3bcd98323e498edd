"""Gradient norm and learning rate over steps."""

from __future__ import annotations

import lightning
import torch
from torch.optim import Optimizer


class Curves(lightning.Callback):
    """Log `train/gradient_norm` (before clipping) and `train/lr` every `trainer.log_every_n_steps` steps."""

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: Optimizer
    ) -> None:
        """Read them where they are: after backward, before clipping and the step."""
        if (trainer.global_step + 1) % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        gradients = [p.grad.detach() for p in pl_module.parameters() if p.grad is not None]
        if gradients:
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
            pl_module.log("train/gradient_norm", norm)
        pl_module.log("train/lr", optimizer.param_groups[0]["lr"])
