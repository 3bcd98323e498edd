"""Several processes do what one does: the same samples, gradients, counts and scores."""

import subprocess
import sys

import lightning
import numpy as np
import pytest
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from torch import nn

from segbench.data.augment import Augmentation
from segbench.data.datamodule import SegmentationData
from segbench.data.raw import RawImage
from segbench.losses import CrossEntropy, Dice, Focal, LovaszSoftmax, Sum
from segbench.metrics.confusion import Overlap
from segbench.runs.directory import Run
from segbench.runtime.log import log_to
from segbench.spec import DatasetSpec, HeadSpec, ModalitySpec, TileGeometry
from segbench.training.optim import constant, sgd
from segbench.training.task import Evaluation, SegmentationTask

SPEC = DatasetSpec(
    "d",
    {"em": ModalitySpec(1, (100.0,), (50.0,), "grey level")},
    {"semantic": HeadSpec(("membrane", "cell"), ((0, 0, 0), (255, 255, 255)))},
    *("", "", "p"),
)


class Images:
    """Images of several sizes; the more rows of one are void, the later it comes."""

    spec = SPEC

    def __init__(self, count):
        self.ids = tuple(f"image-{index}" for index in range(count))

    def split(self, name):
        return self if self.ids else None

    def __len__(self):
        return len(self.ids)

    def read(self, index):
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (12, 10 + index % 3), dtype=np.uint8)
        label = (image > 100).astype(np.uint8)
        label[: min(index, 11)] = 255
        return RawImage({"em": image}, {"semantic": label}, self.ids[index])


class Splits:
    """So many images to train on and to score."""

    spec = SPEC

    def __init__(self, train, scored):
        self.splits = {"train": Images(train), "val": Images(scored), "test": Images(scored)}

    def split(self, name):
        return self.splits.get(name)


class Net(nn.Module):
    geometry = TileGeometry()

    def __init__(self, norm=False):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4) if norm else nn.Identity()
        self.second = nn.Conv2d(4, 2, 1)

    def forward(self, image):
        return self.second(self.norm(self.first(image)).relu())


def trained(ranks, batch, *, loss=CrossEntropy, norm=False, scored=3, steps=2, train=12, lr=1.0, **settings):
    """The weights and the counts of a test after `steps` steps on so many ranks."""
    task = SegmentationTask(
        Net(norm),
        SPEC,
        {"semantic": loss()},
        {"semantic": [Overlap(SPEC.heads["semantic"].class_names)]},
        lambda module: sgd(module, lr=lr, momentum=0.0),
        constant,
        Evaluation(),
    )
    data = SegmentationData(
        Splits(train, scored), TileGeometry(), Augmentation(), seed=0, batch_size=batch, eval_batch_size=2
    )
    trainer = lightning.Trainer(
        accelerator="cpu",
        strategy="ddp" if ranks > 1 else "auto",
        devices=ranks,
        plugins=LightningEnvironment() if ranks > 1 else None,
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **settings,
    )
    with log_to(None):
        trainer.fit(task, data)
        validated = task.per_image("val")
        trainer.test(task, data, verbose=False)
    weights = torch.cat([p.detach().flatten().double() for p in task.model.parameters()])
    return weights, validated, task.per_image("test"), dict(task.scores["test"])


LOSSES = {
    "mean": (CrossEntropy, 1.0),
    "sum": (lambda: CrossEntropy("sum"), 1e-3),
    "dice": (Dice, 1.0),
    "focal": (Focal, 1.0),
    "lovasz of images": (lambda: LovaszSoftmax(per_image=True), 1.0),
    "cross entropy and dice": (lambda: Sum({"ce": CrossEntropy(), "dice": Dice()}, {"ce": 1.0, "dice": 0.5}), 1.0),
}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", LOSSES)
def test_ranks_take_the_step_of_one_with_the_whole_batch(on_ranks, name, accumulate):
    loss, lr = LOSSES[name]

    def gradient(ranks, batch):
        given = {"loss": loss, "lr": lr, "accumulate_grad_batches": accumulate, "scored": 1, "val_check_interval": 1}
        before = torch.cat([p.detach().flatten().double() for p in Net().parameters()])
        return (before - trained(ranks, batch, steps=1, **given)[0]) / lr

    alone = gradient(1, 6)
    for ranks in (2, 3):
        for together in on_ranks(ranks, lambda rank, ranks=ranks: gradient(ranks, 6 // ranks)):
            assert (together - alone).abs().max() < 1e-6 * max(1.0, float(alone.abs().max()))
    assert alone.abs().max() > 1e-3


def test_ranks_step_with_the_mean_of_the_batches_that_are_left(on_ranks):
    def weights(ranks, accumulate):
        return trained(ranks, 6 // ranks, steps=1, accumulate_grad_batches=accumulate, scored=1)[0]

    # Two batches an epoch.
    whole = weights(1, 2)
    assert (weights(1, 5) - whole).abs().max() < 1e-6
    for left in on_ranks(2, lambda rank: weights(2, 5)):
        assert (left - whole).abs().max() < 1e-6


@pytest.mark.parametrize("norm", [False, True], ids=["no norm", "batch norm"])
@pytest.mark.parametrize("scored", [1, 2, 4, 7])
def test_any_number_of_ranks_counts_the_same_integers(on_ranks, scored, norm):
    # The weights are those of one process: only the counting is on several.
    weights = Net(norm).train()
    for seed in range(3):
        weights(torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 1, 8, 8)).astype(np.float32)))
    state = {name: tensor.clone() for name, tensor in weights.state_dict().items()}

    def tested(ranks):
        task = SegmentationTask(
            Net(norm),
            SPEC,
            {"semantic": CrossEntropy()},
            {"semantic": [Overlap(SPEC.heads["semantic"].class_names)]},
            *(sgd, constant, Evaluation()),
        )
        task.model.load_state_dict(state)
        data = SegmentationData(
            Splits(1, scored), TileGeometry(), Augmentation(), seed=0, batch_size=1, eval_batch_size=2
        )
        trainer = lightning.Trainer(
            accelerator="cpu",
            strategy="ddp" if ranks > 1 else "auto",
            devices=ranks,
            plugins=LightningEnvironment() if ranks > 1 else None,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        with log_to(None):
            trainer.validate(task, data, verbose=False)
            trainer.test(task, data, verbose=False)
        return task.per_image("val"), task.per_image("test"), task.scores

    alone = tested(1)
    assert alone[1][0].tolist() == list(range(scored))
    for ranks in (2, 3):
        for told in on_ranks(ranks, lambda rank, ranks=ranks: tested(ranks)):
            for (indices, counts), (expected_indices, expected) in zip(told[:2], alone[:2], strict=True):
                np.testing.assert_array_equal(indices, expected_indices)
                assert counts.keys() == expected.keys()
                for key in counts:
                    np.testing.assert_array_equal(counts[key], expected[key])
            assert told[2] == alone[2]


def test_a_validation_within_a_training_sees_one_norm_on_all_ranks(on_ranks):
    # Each rank normalises its own samples while it trains: those of the first one are what is scored and kept.
    results = on_ranks(2, lambda rank: trained(2, 3, norm=True, scored=5, train=6, val_check_interval=1))
    weights, validated, tested, scores = results[0]
    for other in results[1:]:
        assert torch.equal(other[0], weights)
        assert other[3] == scores
        for (indices, counts), (expected_indices, expected) in ((other[1], validated), (other[2], tested)):
            np.testing.assert_array_equal(indices, expected_indices)
            np.testing.assert_array_equal(counts["semantic/confusion/matrix"], expected["semantic/confusion/matrix"])
    assert validated[0].tolist() == [0, 1, 2, 3, 4]


STAGE = """\
# @package _global_
defaults:
  - override /model: unet
  - override /metrics: overlap
  - override /trainer: cpu
model: {width: 2, depth: 2, dropout: 0.3}
data: {train: 4, val: 1, test: 1, height: 48, width: 48, tile: 60, batch_size: 1, repeats: 1}
trainer: {max_steps: 3, val_check_interval: 1.0, precision: 32-true}
callbacks: {panels: null, extremes: null, checkpoint: {every_n_train_steps: 1}}
threads: 1
stages: STAGES
"""


@pytest.mark.parametrize("cut_in", ["first", "second"])
def test_stages_on_two_ranks_go_on_where_they_were_cut_off(on_ranks, tmp_path, monkeypatch, cut_in):
    import hydra

    from segbench.config.composed import resolved
    from segbench.config.packaged import conf_root
    from segbench.config.record import Config
    from segbench.experiment.stages import compose_stages
    from segbench.experiment.train import train
    from segbench.runs.directory import Run
    from segbench.training.callbacks.checkpoints import Checkpoints

    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    (folder / "first.yaml").write_text(STAGE.replace("STAGES", "null"))
    (folder / "second.yaml").write_text(STAGE.replace("STAGES", "[first]"))

    def composed():
        given = [f"hydra.searchpath=[file://{folder.parent}]", "experiment=second", "trainer.devices=2"]
        with hydra.initialize_config_dir(str(conf_root()), version_base="1.3"):
            config = Config.of(resolved(hydra.compose("train", [*given, "name=second"])))
            return config, compose_stages(config, given)

    class Cut(RuntimeError):
        pass

    def run(rank, name, cut=False, resume=False):
        config, stages = composed()
        if cut:
            original = Checkpoints._write_last

            def cutting(self, trainer):
                original(self, trainer)
                if ("stages" in self._directory.parts) is (cut_in == "first") and trainer.global_step == 2:
                    raise Cut

            Checkpoints._write_last = cutting
        try:
            train(config, tmp_path / name, [], resume=resume or rank > 0, stages=stages)
        except Cut:
            return "cut"
        return Run(tmp_path / name).state()

    def weights(directory):
        return torch.load(directory / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]

    on_ranks(2, lambda rank: run(rank, "whole"))
    assert on_ranks(2, lambda rank: run(rank, "run", cut=True)) == ["cut", "cut"]
    assert Run(tmp_path / "run" / "stages" / "first").state() == ("failed" if cut_in == "first" else "finished")
    on_ranks(2, lambda rank: run(rank, "run", resume=True))
    for directory in (".", "stages/first"):
        assert Run(tmp_path / "run" / directory).state() == "finished"
        expected, continued = weights(tmp_path / "whole" / directory), weights(tmp_path / "run" / directory)
        assert all(torch.equal(expected[key], continued[key]) for key in expected)
    assert "stages/first" in (tmp_path / "run" / "run.log").read_text()


SMALL = [
    *("name=small", "model=unet_small", "model.width=4", "model.depth=2", "data.tile=60", "data.train=8", "data.val=2"),
    *(
        "data.test=3",
        "data.height=48",
        "data.width=48",
        "data.repeats=2",
        "metrics=overlap",
        "scheduler.warmup_steps=0",
    ),
    *(
        "trainer.precision=32-true",
        "trainer=ddp",
        "trainer.accelerator=gpu",
        "trainer.val_check_interval=2",
        "tta=none",
    ),
]


@pytest.mark.gpu(2)
@pytest.mark.slow
def test_two_gpus_score_and_go_on_as_one_does(call, tmp_path):
    run = tmp_path / "run"
    code, _, err = call("train", *SMALL, "trainer.max_steps=4", "trainer.devices=2", f"hydra.run.dir={run}")
    assert code == 0, err
    scored = {}
    for devices in (1, 2):
        given = ("trainer=ddp", f"trainer.devices={devices}", "trainer.accelerator=gpu")
        directory = tmp_path / f"scored-{devices}"
        assert call("evaluate", f"run={run}", *given, f"hydra.run.dir={directory}")[0] == 0
        scored[devices] = Run(directory).results()["metrics"]
    assert scored[1] == scored[2]
    assert call("train", f"resume={run}", "trainer.devices=1", "trainer.max_steps=6")[0] == 0
    assert Run(run).results()["timing"]["steps"] == 6


SYNCHRONISED = """\
import os, torch, torch.distributed as dist
from torch import nn
rank = int(os.environ["LOCAL_RANK"])
torch.cuda.set_device(rank)
dist.init_process_group("nccl")
torch.manual_seed(0)
whole = torch.randn(4, 3, 8, 8)
norm = nn.BatchNorm2d(3)
expected = norm(whole)
both = nn.SyncBatchNorm.convert_sync_batchnorm(nn.BatchNorm2d(3)).cuda()
torch.testing.assert_close(both(whole[2 * rank : 2 * rank + 2].cuda()).cpu(), expected[2 * rank : 2 * rank + 2])
torch.testing.assert_close(both.running_var.cpu(), norm.running_var)
dist.barrier(device_ids=[rank])
dist.destroy_process_group()
"""


@pytest.mark.gpu(2)
@pytest.mark.slow
def test_the_norm_of_two_gpus_is_that_of_one_batch(tmp_path):
    (tmp_path / "norm.py").write_text(SYNCHRONISED)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*command, str(tmp_path / "norm.py")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
