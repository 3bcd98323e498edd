"""Exponentially averaged weights: what is evaluated and kept is the average, what is trained is not."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from segbench.errors import check


class AveragedWeights(lightning.Callback):
    """Keep an exponential moving average of the weights (Polyak averaging) and evaluate with it.

    After each step average <- decay_t average + (1 - decay_t) weights, with decay_t = min(decay, (1 + t) / (10 + t)),
    so that the random start is soon forgotten. Running statistics of norms are averaged too; integers are copied.

    Args:
        decay: in [0, 1); 0.999 averages over about the last thousand steps.

    Raises:
        SegbenchError: another decay.
    """

    def __init__(self, decay: float = 0.999) -> None:
        check("callbacks.averaged_weights.decay", decay, 0 <= decay < 1, "a share from 0, below 1", 0.999)
        self._decay = decay
        self.average: dict[str, Tensor] = {}
        self._trained: dict[str, Tensor] = {}
        self._averaged_at = 0

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start from the current weights unless a checkpoint holds an average."""
        model = _network(pl_module).state_dict()
        if not self.average:
            self.average = {name: tensor.detach().clone() for name, tensor in model.items()}
        self.average = {name: tensor.to(model[name].device) for name, tensor in self.average.items()}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Note the step that a resume begins at; in `on_fit_start` it is not loaded yet."""
        self._averaged_at = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average once a step, also where a step takes several batches."""
        step = trainer.global_step
        if step == self._averaged_at:
            return
        self._averaged_at = step
        average = get_ema_multi_avg_fn(min(self._decay, (1 + step) / (10 + step)))  # type: ignore[no-untyped-call]
        model = _network(pl_module).state_dict()
        floating = [name for name, tensor in self.average.items() if tensor.is_floating_point()]
        average([self.average[name] for name in floating], [model[name] for name in floating], step)
        for name in self.average.keys() - set(floating):
            self.average[name].copy_(model[name])

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Swap the average in."""
        if trainer.state.fn == "fit":
            self._trained = {name: tensor.clone() for name, tensor in _network(pl_module).state_dict().items()}
            _network(pl_module).load_state_dict(self.average)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Swap it out."""
        if self._trained:
            _network(pl_module).load_state_dict(self._trained)
            self._trained = {}

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the average beside the trained weights."""
        if self._trained:
            # Saved in the middle of a validation: the module holds the average.
            for name, tensor in self._trained.items():
                checkpoint["state_dict"][f"model.{name}"] = tensor
        checkpoint["averaged_model"] = dict(self.average)

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the average."""
        self.average = dict(checkpoint["averaged_model"])


def _network(task: lightning.LightningModule) -> nn.Module:
    assert isinstance(task.model, nn.Module)
    return task.model
