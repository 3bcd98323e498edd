"""Every axis takes classes of other packages and of the user's own, from the command line."""

import json
import math
import sys

import pytest
import torch
import yaml

import segbench
from segbench.config.record import Component
from segbench.config.trust import own
from segbench.errors import SegbenchError
from segbench.experiment.axes import make_loss, make_optimizer, refuse_weights_without_gradient
from segbench.runs.directory import Run
from segbench.spec import HeadSpec
from segbench.training.checkpoint import read_checkpoint

MINE = """\
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from segbench.data.raw import RawImage, Source
from segbench.spec import DatasetSpec, HeadSpec, ModalitySpec


class Half(nn.Module):
    "Logits of half the size, as networks of Hugging Face give them."

    def __init__(self, in_channels, num_classes, form="logits"):
        super().__init__()
        self.conv, self.form = nn.Conv2d(in_channels, num_classes, 3, padding=1, stride=2), form

    def forward(self, images):
        logits = self.conv(images)
        if self.form == "logits":
            return SimpleNamespace(logits=logits)
        if self.form == "small":
            return logits
        whole = nn.functional.interpolate(logits, images.shape[-2:])
        return {"list": [whole, logits], "out": {"out": whole, "aux": logits}, "none": None}[self.form]


class Spare(nn.Module):
    "Has a layer that no score reaches."

    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.conv, self.spare = nn.Conv2d(in_channels, num_classes, 1), nn.Conv2d(1, 1, 1)

    def forward(self, images):
        return self.conv(images)


class Hinge(nn.Module):
    "Knows nothing of void."

    def forward(self, logits, target):
        return nn.functional.multi_margin_loss(logits.movedim(1, -1).flatten(0, -2), target.flatten())


class PerPixel(nn.Module):
    def forward(self, logits, target):
        return nn.functional.cross_entropy(logits, target, reduction="none")


class Fails(nn.Module):
    def forward(self, logits, target):
        raise RuntimeError("on purpose")


class Drawn(Source):
    def __init__(self, split, count):
        self.ids = tuple(f"{split}-{number}" for number in range(count))

    def read(self, index):
        image = np.random.default_rng(index).integers(0, 256, (32, 40), dtype=np.uint8)
        return RawImage({"grey": image}, {"kind": (image > 127).astype(np.uint8)}, self.ids[index])


class Mine:
    def __init__(self, count):
        self.splits = {name: Drawn(name, count) for name in ("train", "val", "test")}

    @property
    def spec(self):
        grey = ModalitySpec(1, (127.0,), (60.0,), "grey level, 0 to 255")
        head = HeadSpec(("dark", "light"), ((0, 0, 0), (255, 255, 255)))
        return DatasetSpec("mine", {"grey": grey}, {"kind": head}, "", "", "drawn")

    def split(self, name):
        return self.splits.get(name)


class Streets(Dataset):
    def __init__(self, count, colours=3):
        self.count, self.colours = count, colours

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        image = torch.rand(self.colours, 32, 40, generator=torch.Generator().manual_seed(index))
        mask = (image[0] * 3).long()
        mask[:2] = 255
        return image, mask
"""
TINY = (
    *("trainer=cpu", "threads=1", "trainer.precision=32-true", "trainer.max_steps=4", "trainer.val_check_interval=2"),
    *("data.train=2", "data.val=1", "data.test=1", "data.height=32", "data.width=32", "data.tile=32"),
    *("data.batch_size=2", "data.repeats=4", "model.width=4", "model.depth=1", "task.channels_last=false"),
    *("metrics=overlap", "trainer.log_every_n_steps=1", "hydra.run.dir=run"),
)
OWN_NET = tuple(each for each in TINY if not each.startswith("model."))
OWN_DATA = tuple(
    each for each in TINY if not each.startswith(("data.train", "data.val", "data.test", "data.h", "data.w"))
)


@pytest.fixture
def train(call, tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.delenv("SEGBENCH_TARGETS", raising=False)
    monkeypatch.chdir(tmp_path)

    def trained(*overrides, code=0):
        done, out, err = call("train", *overrides)
        assert done == code, out + err
        return Run(tmp_path / "run") if code == 0 else err

    return trained


def rates(run):
    lines = (run.path / "metrics.csv").read_text().splitlines()
    names = lines[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
    return [float(row["train/lr"]) for row in rows if row["train/lr"]]


def test_classes_of_torch_lightning_albumentations_and_torchmetrics(train, tmp_path):
    run = train(
        *TINY,
        "optimizer._target_=torch.optim.RMSprop",
        "optimizer.momentum=0.5",
        "scheduler._target_=torch.optim.lr_scheduler.StepLR",
        *("scheduler.step_size=1", "scheduler.gamma=0.5", "scheduler.interval=epoch", "optimizer.lr=1e-3"),
        "loss._target_=torch.nn.CrossEntropyLoss",
        "loss.weight=[1.0,2.0]",
        "augment.transforms=[{_target_: albumentations.HorizontalFlip, p: 0.5}, {_target_: albumentations.Blur}]",
        *("callbacks.early._target_=lightning.pytorch.callbacks.EarlyStopping", "callbacks.early.monitor=val/mean_iu"),
        *("callbacks.early.patience=1", "callbacks.early.min_delta=1", "trainer.max_steps=12"),
        *("trainer.check_val_every_n_epoch=null", "trainer.profiler=simple"),
        "logger.rows._target_=lightning.pytorch.loggers.CSVLogger",
        *("metrics.ece._target_=torchmetrics.classification.MulticlassCalibrationError", "metrics.ece.n_bins=5"),
        "metrics.auroc._target_=torchmetrics.classification.BinaryAUROC",
        "metrics.gds._target_=torchmetrics.segmentation.GeneralizedDiceScore",
        "metrics.gds.input_format=index",
    )
    results = run.results()
    assert results["protocol"]["ended_by"].startswith("early stopping on val/mean_iu: ")
    assert results["timing"]["steps"] == 4
    assert rates(run) == pytest.approx([1e-3] * 4, rel=1e-6) or rates(run)[:4] == pytest.approx([1e-3] * 4)
    for name in ("ece", "auroc", "gds"):
        assert 0 <= results["metrics"][f"test/{name}"] <= 1
        assert "not exact over processes" in results["protocol"]["versions"][f"test/{name}"]
    group = read_checkpoint(run.path / "checkpoints" / "last.ckpt")["optimizer_states"][0]["param_groups"][0]
    assert (group["momentum"], group["alpha"], len(group["params"])) == (0.5, 0.99, group["params"][-1] + 1)
    assert "step 4: ended by early stopping" in (run.path / "run.log").read_text()
    assert "Profiler Report" in (run.path / "fit-profile.txt").read_text()
    assert list(run.path.rglob("lightning_logs")) != []
    other = (
        "hydra.run.dir=other",
        "seed=1",
        "metrics.ece._target_=torchmetrics.classification.MulticlassCalibrationError",
    )
    train(*TINY, *other)
    pair = segbench.compare([run.path, run.path.parent / "other"], metric="mean_iu", seeds_apart=True).pairs[0]
    assert pair.differences[0].interval


def test_our_options_for_layers_stand_beside_any_optimiser(train):
    run = train(*TINY, "optimizer._target_=torch.optim.RAdam", "+optimizer.bias_lr_factor=2.0")
    groups = read_checkpoint(run.path / "checkpoints" / "last.ckpt")["optimizer_states"][0]["param_groups"]
    assert groups[1]["lr"] == 2 * groups[0]["lr"]


def test_a_plateau_follows_the_score_of_the_validation(train):
    plateau = "scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau"
    # No score is better than the first by 1, so each validation counts.
    given = (plateau, "scheduler.patience=0", "scheduler.factor=0.1", "scheduler.threshold=1", "optimizer.lr=1e-2")
    many = ("trainer.max_steps=6", "trainer.check_val_every_n_epoch=null", "scheduler.threshold_mode=abs")
    run = train(*TINY, *given, *many)
    assert rates(run) == pytest.approx([1e-2] * 4 + [1e-3] * 2)
    state = read_checkpoint(run.path / "checkpoints" / "last.ckpt")["lr_schedulers"][0]
    assert state["mode"] == "max"
    # A validation that the last checkpoint precedes counts once, before and after a resume.
    train(*TINY, *given, *many, "trainer.max_steps=4", "hydra.run.dir=short")
    train("resume=short", "trainer.max_steps=6")
    assert rates(Run(run.path.parent / "short")) == rates(run)
    refused = train(*TINY, *given, "scheduler.monitor=val/loss", "hydra.run.dir=other", code=1)
    assert "scheduler.monitor=val/loss of ReduceLROnPlateau" in refused and "val/mean_iu" in refused


def test_a_schedule_of_torch_gets_the_steps_of_the_training(train):
    run = train(*TINY, "scheduler._target_=torch.optim.lr_scheduler.OneCycleLR", "scheduler.max_lr=0.1")
    assert len(set(rates(run))) == 4
    refused = train(*TINY, "scheduler._target_=torch.optim.lr_scheduler.CosineAnnealingLR", "hydra.run.dir=b", code=1)
    assert "CosineAnnealingLR refuses its arguments: " in refused and "T_max" in refused


@pytest.mark.parametrize("form", ["logits", "list", "out"])
def test_a_network_gives_its_output_in_any_form(train, form):
    run = train(
        *OWN_NET, "model._target_=mine.Half", f"model.form={form}", "trainer.max_steps=1", "loss._target_=mine.Hinge"
    )
    told = {"logits": "a SimpleNamespace with logits", "list": "a list of 2, of which the first is used"}
    assert told.get(form, "outputs for out, aux, of which out is used") in (run.path / "run.log").read_text()
    assert math.isfinite(run.results()["metrics"]["test/mean_iu"])


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("model.form=small", "Half gives (1, 2, 16, 16) for semantic of an input of 32x32"),
        ("model.form=none", "Half: the model gives a NoneType"),
        ("model._target_=math.sqrt", "sqrt refuses its arguments"),
        ("model._target_=fractions.Fraction", "which gives a fractions.Fraction"),
        ("loss._target_=mine.PerPixel", "loss mine.PerPixel gives a tensor of (1, 1, 127)"),
        ("loss._target_=mine.Fails", "loss mine.Fails fails on logits (2, 2, 8, 8) and labels of 0 to 1: RuntimeError"),
        ("optimizer._target_=builtins.list", "list refuses its arguments"),
        ("callbacks.mine._target_=builtins.dict", "callbacks.mine._target_=builtins.dict, which gives a dict"),
        ("metrics.mine._target_=builtins.dict", "metrics.mine._target_=builtins.dict"),
        ("data._target_=builtins.dict", "a data set: an attribute `spec`"),
        ("loss._target_=nowhere.Loss", "loss._target_=nowhere.Loss: No module named 'nowhere'"),
        ("model.wdith=3", "model.wdith"),
    ],
)
def test_what_does_not_fit_an_axis_is_told_before_training(train, override, told):
    base = ("model._target_=mine.Half",) if not override.startswith("model._target_") else ()
    refused = train(*OWN_NET, *base, override, code=1)
    assert told in refused and "expected:" in refused and "Traceback" not in refused


def test_a_layer_that_no_score_reaches_is_told_where_processes_wait_for_its_gradient(train):
    refused = train(*OWN_NET, "model._target_=mine.Spare", "trainer.strategy=ddp", code=1)
    told = (
        "2 of 4 weights of Spare get no gradient, as no score that is used depends on them (spare.weight, spare.bias)"
    )
    assert told in refused and "set trainer.strategy=ddp_find_unused_parameters_true" in refused
    spec, images = segbench.build([*OWN_NET, "model._target_=mine.Half"]).dataset.spec, (32, 32)
    half = Component.model_validate({"_target_": "mine.Half"})
    network = sys.modules["mine"].Half(1, 2).train()
    refuse_weights_without_gradient(half, network, spec, images)
    assert network.training and all(weight.grad is None for weight in network.parameters())
    for weight in network.parameters():
        weight.requires_grad = False
    refuse_weights_without_gradient(half, network, spec, images)


def test_a_data_set_of_ones_own_and_any_torch_dataset(train):
    base = ("data.batch_size=2", "trainer.max_steps=1", "model.depth=1")
    run = train(*OWN_DATA, *base, "data._target_=mine.Mine", "data.count=4")
    assert run.results()["protocol"]["dataset"] == "mine"
    given = [
        f"data.{split}={{_target_: mine.Streets, count: {n}}}" for split, n in (("train", 4), ("val", 1), ("test", 2))
    ]
    run = train(*OWN_DATA, *base, "data=torch_dataset", *given, "data.classes=3", "hydra.run.dir=run2")
    run = Run(run.path.parent / "run2")
    assert [modality["channels"] for modality in run.dataset()["modalities"].values()] == [3]
    assert set(run.results()["metrics"]) >= {"test/mean_iu", "test/iu/class 2"}
    refused = train(*OWN_DATA, *base, "data=torch_dataset", *given, "data.classes=2", "hydra.run.dir=c", code=1)
    assert "labels 2" in refused and "0 to 1, and 255 for void" in refused


@pytest.mark.parametrize("target", ["mine.Hinge", "torch.nn.CrossEntropyLoss", "segbench.losses.CrossEntropy"])
def test_void_pixels_change_no_loss(train, target):
    from segbench.config.record import Loss

    with own({"_target_": target}):
        loss = make_loss(Loss(target=target), HeadSpec(("a", "b"), ((0, 0, 0),) * 2, ignore_index=9), "")
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 4, 5, generator=generator, requires_grad=True)
    target_BHW = torch.randint(2, (2, 4, 5), generator=generator)
    void = torch.rand(2, 4, 5, generator=generator) < 0.3
    target_BHW[void] = 9
    expected = loss(logits.movedim(1, -1)[~void].T[None, :, None], target_BHW[~void][None, None])
    torch.testing.assert_close(loss(logits, target_BHW), expected)
    (gradient,) = torch.autograd.grad(loss(logits, target_BHW), logits)
    assert gradient.movedim(1, -1)[void].abs().max() == 0
    empty = loss(logits, torch.full_like(target_BHW, 9))
    assert empty == 0 and torch.autograd.grad(empty, logits)[0].abs().max() == 0


@pytest.mark.slow
def test_a_strategy_is_a_class_too(train):
    strategy = "trainer.strategy={_target_: lightning.pytorch.strategies.DDPStrategy, gradient_as_bucket_view: true}"
    run = train(*TINY, strategy, "trainer.devices=2", "data.batch_size=1", "loss._target_=torch.nn.CrossEntropyLoss")
    assert yaml.safe_load((run.path / "config.yaml").read_text())["trainer"]["strategy"]["gradient_as_bucket_view"]
    assert "averaged over 2 processes" in (run.path / "run.log").read_text()
    assert json.loads((run.path / "results.json").read_text())["provenance"]["processes"] == 2


def test_an_optimiser_of_flat_vectors_refuses_another_memory_format():
    module = torch.nn.Conv2d(2, 2, 3)
    lbfgs = Component.model_validate({"_target_": "torch.optim.LBFGS", "lr": 0.1})
    assert isinstance(make_optimizer(lbfgs, module), torch.optim.LBFGS)
    with pytest.raises(SegbenchError, match=r"set task\.channels_last=false"):
        make_optimizer(lbfgs, module.to(memory_format=torch.channels_last))
