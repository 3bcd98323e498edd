"""A training step never waits for the device but where values are logged."""

import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator

from segbench.config.packaged import conf_root
from segbench.experiment.build import build_experiment
from segbench.runtime.log import log_to
from segbench.training.task import SegmentationTask

STEPS, EVERY = 5, 3


@pytest.fixture
def waited(tiny_config, waits, monkeypatch, tmp_path):
    """`waited(*overrides)`: `(step, operation)` of all that five steps on a device without values waited for."""
    monkeypatch.setattr(CPUAccelerator, "setup_device", lambda self, device: None)
    monkeypatch.setattr("lightning.pytorch.loops.fit_loop.has_len_all_ranks", lambda *arguments, **named: True)

    def of(*overrides):
        config = tiny_config(
            f"trainer.max_steps={STEPS}",
            f"trainer.log_every_n_steps={EVERY}",
            *("trainer.limit_val_batches=0", "callbacks.checkpoint.monitor=null", "callbacks.panels=null"),
            "callbacks.checkpoint.every_n_train_steps=100",
            *overrides,
        )
        (tmp_path / "checkpoints").mkdir()
        strategy = {"_target_": "lightning.pytorch.strategies.SingleDeviceStrategy", "device": "meta"}
        experiment = build_experiment(config.replace({"trainer.strategy": strategy}), tmp_path)
        trainer = experiment.trainer
        with log_to(None), waits(lambda: trainer.global_step) as seen:
            trainer.fit(experiment.task, experiment.data)
        assert trainer.global_step == STEPS
        return seen.seen

    return of


def steps_of(seen):
    return {step for step, _ in seen}


@pytest.mark.parametrize("loss", sorted(path.stem for path in (conf_root() / "loss").glob("[!_]*.yaml")))
def test_no_loss_makes_a_step_wait_but_where_it_is_logged(waited, loss):
    # The last step is read as it ends the training and a checkpoint is written.
    assert steps_of(waited(f"loss={loss}")) == {EVERY, STEPS}


@pytest.mark.parametrize(
    "overrides",
    [
        ("callbacks=averaged", "trainer.gradient_clip_val=1", "optimizer=sgd"),
        ("trainer.accumulate_grad_batches=2", "scheduler=cosine"),
        ("model=unet_same", "model.width=4", "data.tile=64", "trainer.precision=bf16-true"),
        ("~loss", "+loss={_target_: torch.nn.CrossEntropyLoss}"),
    ],
    ids=["averaged and clipped", "accumulated", "normalised, in bfloat16", "a loss of torch"],
)
def test_no_part_of_a_training_makes_a_step_wait(waited, overrides):
    assert steps_of(waited(*overrides)) == {EVERY, STEPS}


def test_a_logged_step_reads_each_value_once(waited):
    seen = [name for step, name in waited() if step == EVERY]
    # The guard reads its losses together; the progress, the loss and the norm of the gradients are one number each.
    assert len(seen) <= EVERY + 3


def test_what_reads_every_step_is_seen(waited, monkeypatch):
    step = SegmentationTask.training_step

    def reading(self, batch, batch_idx):
        made = step(self, batch, batch_idx)
        assert made["batch_loss"].isfinite()
        return made

    monkeypatch.setattr(SegmentationTask, "training_step", reading)
    assert steps_of(waited()) == set(range(STEPS + 1))


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: torch.zeros(3).copy_(x),
        lambda x: x.nonzero(),
        lambda x: torch.equal(x, x),
    ],
    ids=["item", "bool", "tolist", "cpu", "copy", "nonzero", "equal"],
)
def test_every_kind_of_wait_is_seen(waits, read):
    with waits() as mode:
        read(torch.ones(3, device="meta"))
    assert mode.seen
