"""A rate that is made for the other kind of loss is told apart, and one that fits is not."""

import logging

import pytest
from torch import nn

from segbench.experiment.build import build_experiment
from segbench.losses.rate import loss_rate_mismatch
from segbench.training.optim import adamw, sgd

VOC = 375 * 500


def complaint(reduction, lr, momentum, pixels=VOC):
    return loss_rate_mismatch(reduction, sgd(nn.Conv2d(1, 1, 1), lr=lr, momentum=momentum), pixels)


@pytest.mark.parametrize(
    ("reduction", "lr", "momentum"),
    [("sum", 1e-10, 0.99), ("sum", 1e-12, 0.99), ("sum", 1e-14, 0.99)]  # the release
    + [("mean", lr, 0.9) for lr in (1e-3, 1e-4, 5e-5, 1e-6, 1e-8)]  # the CVPR paper
    + [("mean", 1e-3, 0.99), ("mean", 1e-2, 0.9), ("mean", 0.1, 0.0)],  # U-Net, and common ones
)
def test_the_papers_rates_fit_their_losses(reduction, lr, momentum):
    assert complaint(reduction, lr, momentum) is None


@pytest.mark.parametrize(("lr", "momentum"), [(1e-3, 0.9), (1e-4, 0.9), (1e-6, 0.9), (1e-3, 0.99), (0.1, 0.0)])
def test_an_averages_rate_with_a_sum_is_told_with_both_numbers(lr, momentum):
    told = str(complaint("sum", lr, momentum))
    assert f"optimizer.lr={lr:g} (momentum {momentum:g}) and a loss summed over 187,500 pixels" in told
    assert "\n  expected: a rate below" in told
    assert "\n  to do:    set loss=cross_entropy," in told


@pytest.mark.parametrize("lr", [1e-10, 1e-12, 1e-14])
def test_a_sums_rate_with_an_average_is_told(lr):
    told = str(complaint("mean", lr, 0.99))
    assert f"optimizer.lr={lr:g} (momentum 0.99) and a loss averaged over pixels" in told
    assert "set loss=cross_entropy_sum" in told


def test_by_hand():
    # 1e-8 / (1 - 0.99) = 1e-6, over 99,999 and 100,001 pixels: on either side of a tenth.
    assert complaint("sum", 1e-8, 0.99, 99_999) is None
    assert "a rate below 1e-08" in str(complaint("sum", 1e-8, 0.99, 100_100))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("lr", [1e-14, 1e3])
def test_adaptive_optimisers_do_not_see_the_losses_scale(reduction, lr):
    assert loss_rate_mismatch(reduction, adamw(nn.Conv2d(1, 1, 1), lr=lr), VOC) is None


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        # Two tiles of 60 pixels, of which 20 come out.
        (("loss=cross_entropy_sum", "optimizer=sgd"), "summed over 800 pixels"),
        (("optimizer=sgd", "optimizer.lr=1e-12"), "averaged over pixels"),
        (("data.tile=null", "model=unet_same", "loss=cross_entropy_sum", "optimizer=sgd"), "summed over 4,608 pixels"),
        (("optimizer=sgd",), None),
        (("loss=cross_entropy_sum", "optimizer=sgd", "trainer.gradient_clip_val=1"), None),
        (("loss=cross_entropy_sum",), None),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_training_run_tells_it_at_its_start(compose, tiny_overrides, tmp_path, caplog, overrides, told):
    given = {o.split("=")[0]: o for o in (*tiny_overrides, *overrides)}
    config = compose(*given.values())
    with caplog.at_level(logging.WARNING):
        build_experiment(config, tmp_path)
    complaints = [record.getMessage() for record in caplog.records if record.getMessage().startswith("optimizer.lr")]
    assert len(complaints) == (told is not None)
    assert told is None or told in complaints[0]
