import copy

import pytest
import torch
from torch import nn

from segbench.errors import SegbenchError
from segbench.experiment.build import build_dataset
from segbench.experiment.checks import (
    doubtful,
    refuse_finishing,
    refuse_impossible,
    refuse_single_values,
)
from segbench.spec import HeadSpec

SCORES = ("val/mean_iu", "val/pixel_acc")


HEADS = {"semantic": HeadSpec(("background", "cell"), ((0, 0, 0),) * 2)}


def checked(config, processes=1):
    refuse_impossible(config, build_dataset(config.data, config.weights), SCORES, processes)


def test_a_validation_that_never_comes_is_refused(tiny_config):
    # Four images ten times, two a batch.
    within = ("trainer.val_check_interval=20", "trainer.check_val_every_n_epoch=1")
    checked(tiny_config(*within))
    with pytest.raises(SegbenchError, match=r"val_check_interval=20, where an epoch has at most 10(.|\n)*=null"):
        checked(tiny_config(*within), processes=2)
    checked(tiny_config("trainer.val_check_interval=100", "trainer.check_val_every_n_epoch=null"))
    # Of windows, thousands an epoch.
    windows = ("data.draw=pixels", "data.repeats=1", "trainer.val_check_interval=100")
    checked(tiny_config(*windows, "trainer.check_val_every_n_epoch=1"))


def test_a_monitor_that_is_no_score_is_refused_unless_nothing_is_validated(tiny_config):
    with pytest.raises(SegbenchError, match=r"monitor=val/loss\n.*val/mean_iu, val/pixel_acc"):
        checked(tiny_config("callbacks.checkpoint.monitor=val/loss"))
    checked(tiny_config("callbacks.checkpoint.monitor=val/loss", "data.val=0"))
    checked(tiny_config("callbacks.checkpoint.monitor=null"))


def test_batches_to_overfit_are_a_number_or_a_share(tiny_config):
    checked(tiny_config("+trainer.overfit_batches=2"))
    checked(tiny_config("+trainer.overfit_batches=0.5"))
    for wrong in (-1, 1.5):
        with pytest.raises(SegbenchError, match="overfit_batches="):
            checked(tiny_config(f"+trainer.overfit_batches={wrong}"))
    # They are the epoch.
    with pytest.raises(SegbenchError, match="at most 2 batches"):
        each = ("trainer.val_check_interval=3", "trainer.check_val_every_n_epoch=1")
        checked(tiny_config("+trainer.overfit_batches=2", *each))


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("limit_train_batches=0", r"limit_train_batches=0\n.*above 0\n.*trainer.max_steps=0 to score"),
        ("limit_test_batches=0", r"limit_test_batches=0\n.*above 0\n.*leave it out$"),
        ("limit_test_batches=0.0", r"limit_test_batches=0.0\n.*above 0"),
        ("limit_train_batches=0.01", r"0.01, where train has 20 batches on each process\n.*at least one batch"),
        ("limit_val_batches=0.4", r"0.4, where val has 2 batches on each process\n.*at least one batch"),
    ],
)
def test_a_limit_that_leaves_no_batch_is_refused(tiny_config, limit, said):
    with pytest.raises(SegbenchError, match=said):
        checked(tiny_config(f"+trainer.{limit}"))


def test_a_limit_that_leaves_some_is_not(tiny_config):
    for limit in ("limit_train_batches=0.05", "limit_test_batches=1", "limit_val_batches=0.5", "limit_val_batches=0"):
        checked(tiny_config(f"+trainer.{limit}"))
    checked(tiny_config("data.test=0", "+trainer.limit_test_batches=0"))


def test_a_validation_beyond_limited_epochs_is_refused(tiny_config):
    within = ("trainer.val_check_interval=3", "trainer.check_val_every_n_epoch=1", "+trainer.limit_train_batches=0.1")
    with pytest.raises(SegbenchError, match=r"val_check_interval=3, where an epoch has at most 2 batches"):
        checked(tiny_config(*within))


def test_validations_of_a_part_or_of_nothing_are_doubtful(tiny_config):
    def said(*overrides):
        return doubtful(tiny_config("scheduler.warmup_steps=1", *overrides), HEADS)

    assert said() == said("+trainer.limit_val_batches=1.0") == []
    assert said("+trainer.limit_val_batches=0") == [
        "trainer.limit_val_batches=0: nothing is validated, so val/mean_iu chooses no best checkpoint and the last one "
        "is reported"
    ]
    assert said("+trainer.limit_val_batches=0", "callbacks.checkpoint.monitor=null") == [
        "trainer.limit_val_batches=0: nothing is validated"
    ]
    assert len(said("+trainer.limit_val_batches=1")) == len(said("+trainer.limit_val_batches=0.5")) == 1


def test_a_warm_up_longer_than_the_run_is_doubtful(tiny_config):
    assert doubtful(tiny_config("scheduler.warmup_steps=3", "trainer.max_steps=3"), HEADS) == []
    (said,) = doubtful(tiny_config("scheduler.warmup_steps=4", "trainer.max_steps=3"), HEADS)
    assert said == "scheduler.warmup_steps=4 of trainer.max_steps=3: the rate never reaches optimizer.lr"


@pytest.mark.parametrize(
    ("norm", "batch", "tile", "refused"),
    [
        (nn.BatchNorm2d, 1, 16, True),
        (nn.BatchNorm2d, 2, 16, False),
        (nn.BatchNorm2d, 1, 32, False),
        (nn.InstanceNorm2d, 4, 16, True),
        (nn.InstanceNorm2d, 4, 32, False),
    ],
)
def test_a_layer_that_would_normalise_single_values_is_refused(tiny_config, norm, batch, tile, refused):
    config = tiny_config(f"data.batch_size={batch}", f"data.tile={tile}")
    model = nn.Sequential(nn.AvgPool2d(16), norm(1))
    before = copy.deepcopy(model.state_dict())
    dataset = build_dataset(config.data, None)
    if refused:
        also = "data.batch_size=2, or " if norm is nn.BatchNorm2d else ""
        with pytest.raises(SegbenchError, match=rf"data\.tile=16 with .* layer 1 gets(.|\n)*set {also}data\.tile=32"):
            refuse_single_values(config, model, dataset)
    else:
        refuse_single_values(config, model, dataset)
    assert model.training and all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_layer_that_sees_the_images_of_all_processes_is_not_refused(tiny_config):
    config = tiny_config("data.batch_size=1", "data.tile=16", "trainer.devices=2", "trainer.sync_batchnorm=true")
    model, dataset = nn.Sequential(nn.AvgPool2d(16), nn.BatchNorm2d(1)), build_dataset(config.data, None)
    refuse_single_values(config, model, dataset)
    with pytest.raises(SegbenchError, match="one value of each channel"):
        refuse_single_values(config.replace({"trainer.sync_batchnorm": False}), model, dataset)


class Sized:
    """Training images that know their sizes."""

    def __init__(self, dataset, sizes):
        self.spec, self._sizes = dataset.spec, sizes

    def split(self, name):
        return self

    def sizes(self):
        return self._sizes


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d])
@pytest.mark.parametrize(
    ("sizes", "refused"), [({(64, 64), (16, 31)}, True), ({(64, 16), (16, 32)}, False), (set(), False)]
)
def test_whole_images_are_judged_by_the_smallest(tiny_config, norm, sizes, refused):
    config = tiny_config("data.batch_size=1", "data.tile=null")
    model, dataset = nn.Sequential(nn.AvgPool2d(16), norm(1)), build_dataset(config.data, None)
    refuse_single_values(config, model, dataset)
    if refused:
        also = "data.batch_size=2, or " if norm is nn.BatchNorm2d else ""
        with pytest.raises(SegbenchError, match=rf"tile=null \(an image of 16 x 31\)(.|\n)*set {also}data\.tile=62"):
            refuse_single_values(config, model, Sized(dataset, sizes))
    else:
        refuse_single_values(config, model, Sized(dataset, sizes))


def test_heads_of_other_numbers_of_classes_are_refused(compose):
    config = compose("name=x", "calibration=cubic", "median=2")
    refuse_finishing(config, {"semantic": 2})
    with pytest.raises(
        SegbenchError, match=r"calibration=cubic and median=2, and semantic has 21 classes\n.*\n.*leave"
    ):
        refuse_finishing(config, {"semantic": 21})
