"""A training of one weight whose validation scores are written down beforehand."""

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from torch import nn
from torch.utils.data import DataLoader

from segbench.data.datamodule import ResumableLoader
from segbench.runtime.log import log_to
from segbench.spec import Batch


def one_sample(batch):
    (index,) = batch
    return Batch({"em": torch.ones(2, 1)}, {}, (f"sample-{index}",), (index,), ((1, 1),))


class Scripted(lightning.LightningModule):
    """A weight that starts at 0 and falls by `lr` in each step, by `losses`; validation k scores `scores[k]`."""

    def __init__(self, scores=(), losses=None, lr=1.0):
        super().__init__()
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.model.weight)
        self.scores, self.losses, self.lr = list(scores), losses or {}, lr
        self.validated_with = []

    def training_step(self, batch, batch_idx):
        loss = self.model(batch.images["em"]).mean()
        return loss * self.losses.get(batch.ids[0], 1.0)

    def validation_step(self, batch, batch_idx):
        self.validated_with.append(self.model.weight.item())
        self.log("val/score", self.scores.pop(0), batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


@pytest.fixture
def fit(tmp_path):
    """`fit(module, *callbacks, steps=..., every=..., **trainer)`: train on samples 0, 1, 2 ...; gives the Trainer."""

    def fitted(module, *callbacks, steps=4, validate_every=1, resume=None, **settings):
        samples = ResumableLoader(range(100), collate_fn=one_sample)
        defaults = {
            "accelerator": "cpu",
            "max_steps": steps,
            "val_check_interval": validate_every * settings.get("accumulate_grad_batches", 1),
            "check_val_every_n_epoch": None,
            "callbacks": list(callbacks),
            "logger": False,
            "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in callbacks),
            "enable_progress_bar": any(isinstance(callback, ProgressBar) for callback in callbacks),
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "limit_val_batches": len(module.scores) and 1,
            "default_root_dir": tmp_path,
        }
        trainer = lightning.Trainer(**defaults | settings)
        with log_to(None):
            trainer.fit(module, samples, DataLoader([0], collate_fn=one_sample), ckpt_path=resume, weights_only=True)
        return trainer

    return fitted


@pytest.fixture
def scripted():
    return Scripted
