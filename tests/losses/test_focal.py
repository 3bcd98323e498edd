import math

import pytest
import torch

from segbench.errors import SegbenchError
from segbench.losses import CrossEntropy, Focal


def test_two_pixels_by_hand():
    # Logits (ln 3, 0): probabilities 3/4 and 1/4. Right: (1/4)^2 ln(4/3); wrong: (3/4)^2 ln 4.
    logits = torch.tensor([[[[math.log(3.0)] * 2], [[0.0, 0.0]]]])
    target = torch.tensor([[[0, 1]]])
    right, wrong = math.log(4 / 3) / 16, math.log(4) * 9 / 16
    assert Focal(reduction="sum")(logits, target).item() == pytest.approx(right + wrong)
    assert Focal()(logits, target).item() == pytest.approx((right + wrong) / 2)
    assert Focal(gamma=1, reduction="sum")(logits, target).item() == pytest.approx(
        math.log(4 / 3) / 4 + math.log(4) * 3 / 4
    )
    halved = Focal(alpha=(0.25, 0.5), reduction="sum")(logits, target)
    assert halved.item() == pytest.approx(right / 4 + wrong / 2)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_without_gamma_it_is_cross_entropy_to_the_bit(batch, reduction):
    logits, target, weight = batch()
    focal, plain = (loss(logits, target, weight) for loss in (Focal(0, None, reduction), CrossEntropy(reduction)))
    assert focal.item() == plain.item()


def test_alpha_is_the_configs_and_not_the_checkpoints():
    assert not Focal(alpha=(0.25, 0.75)).state_dict()


def test_an_alpha_of_another_length_is_refused(batch):
    logits, target, _ = batch()
    with pytest.raises(
        SegbenchError, match=r"loss\.alpha with 2 factors for 3 classes\n.*one factor per class\n.*null"
    ):
        Focal(alpha=(0.25, 0.75))(logits, target)


@pytest.mark.parametrize("wrong", [{"gamma": -1}, {"gamma": math.nan}, {"alpha": ()}, {"alpha": (1, -1)}])
def test_arguments_outside_their_range_are_refused(wrong):
    with pytest.raises(SegbenchError, match=rf"loss\.{next(iter(wrong))}=.*\n.*finite.*\n.*set loss\."):
        Focal(**wrong)
