"""A run that was cut off and continued ends with the weights of one that was not."""

import csv
from pathlib import Path

import pytest
import torch

from segbench.callbacks.checkpoints import Checkpoints
from segbench.runs import Run
from segbench.train import train

SMALL = [
    "name=small",
    "model.width=4",
    "model.depth=2",
    "data.tile=92",
    "data.train=8",
    "data.val=1",
    "data.test=1",
    "data.height=96",
    "data.width=96",
    "data.repeats=1",
    "trainer.max_steps=6",
    "trainer.val_check_interval=3",
    "trainer.precision=32-true",
    "callbacks.panels=null",
    "callbacks.checkpoint.every_n_train_steps=1",
    "augment=unet",
    "threads=1",
    "trainer.log_every_n_steps=1",
]


class Cut(RuntimeError):
    pass


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return torch.load(directory / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


# Four steps make an epoch: in the midst of the first, at its last step, in the midst of the second.
@pytest.mark.parametrize("step", [2, 4, 5])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_continued_run_ends_with_the_same_weights(compose, tmp_path, monkeypatch, step, workers):
    whole, cut = tmp_path / "whole", tmp_path / "cut"

    def config():
        return compose(*SMALL, f"data.num_workers={workers}")

    train(config(), whole, [])

    original = Checkpoints.on_train_batch_end

    def cut_off(self, trainer, *arguments):
        original(self, trainer, *arguments)
        if trainer.global_step == step:
            raise Cut

    monkeypatch.setattr(Checkpoints, "on_train_batch_end", cut_off)
    with pytest.raises(Cut):
        train(config(), cut, [])
    monkeypatch.setattr(Checkpoints, "on_train_batch_end", original)
    train(config(), cut, [], resume=True)

    expected, continued = weights(whole), weights(cut)
    assert all(torch.equal(expected[name], continued[name]) for name in expected)
    provenance = Run.open(cut).provenance()
    assert len(provenance["resumed"]) == 1
    assert provenance["started"] <= provenance["resumed"][0]["started"]
    with (cut / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == sorted(steps)
