import pytest

from segbench.errors import SegbenchError
from segbench.experiment.build import build_dataset
from segbench.experiment.checks import doubtful, refuse_impossible

SCORES = ("val/mean_iu", "val/pixel_acc")


def checked(config, processes=1):
    refuse_impossible(config, build_dataset(config.data, config.weights), SCORES, processes)


def test_a_validation_that_never_comes_is_refused(tiny_config):
    # Four images ten times, two a batch.
    within = ("trainer.val_check_interval=20", "trainer.check_val_every_n_epoch=1")
    checked(tiny_config(*within))
    with pytest.raises(SegbenchError, match=r"val_check_interval=20, where an epoch has at most 10(.|\n)*=null"):
        checked(tiny_config(*within), processes=2)
    checked(tiny_config("trainer.val_check_interval=100", "trainer.check_val_every_n_epoch=null"))


def test_a_monitor_that_is_no_score_is_refused_unless_nothing_is_validated(tiny_config):
    with pytest.raises(SegbenchError, match=r"monitor=val/loss\n.*val/mean_iu, val/pixel_acc"):
        checked(tiny_config("callbacks.checkpoint.monitor=val/loss"))
    checked(tiny_config("callbacks.checkpoint.monitor=val/loss", "data.val=0"))
    checked(tiny_config("callbacks.checkpoint.monitor=null"))


def test_overfitting_batches_names_another_way(tiny_config):
    with pytest.raises(SegbenchError, match="limit_train_batches"):
        checked(tiny_config("+trainer.overfit_batches=1"))


def test_a_warm_up_longer_than_the_run_is_doubtful(tiny_config):
    assert doubtful(tiny_config("scheduler.warmup_steps=3", "trainer.max_steps=3")) == []
    (said,) = doubtful(tiny_config("scheduler.warmup_steps=4", "trainer.max_steps=3"))
    assert said == "scheduler.warmup_steps=4 of trainer.max_steps=3: the rate never reaches optimizer.lr"
