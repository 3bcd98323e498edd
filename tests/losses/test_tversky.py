import math

import pytest
import torch

from segbench.errors import SegbenchError
from segbench.losses import Dice, Tversky


def logits_of(probabilities):
    """BKHW logits of B = 1 and one row, from the K probabilities of each pixel."""
    return torch.tensor(probabilities, dtype=torch.float64).log().T[None, :, None]


def test_two_pixels_by_hand():
    # p = (3/4, 1/4) and (1/2, 1/2), labels 0 and 1. Class 0: shared 3/4, false positive 1/2, missed 1/4.
    # Class 1: shared 1/2, false positive 1/4, missed 1/2.
    logits, target = logits_of([[0.75, 0.25], [0.5, 0.5]]), torch.tensor([[[0, 1]]])
    first = 0.75 / (0.75 + 0.3 * 0.5 + 0.7 * 0.25)
    second = 0.5 / (0.5 + 0.3 * 0.25 + 0.7 * 0.5)
    assert Tversky()(logits, target).item() == pytest.approx(1 - (first + second) / 2)
    focal = ((1 - first) ** 0.75 + (1 - second) ** 0.75) / 2
    assert Tversky(gamma=0.75)(logits, target).item() == pytest.approx(focal)
    smoothed = (1.75 / (1.75 + 0.15 + 0.175) + 1.5 / (1.5 + 0.075 + 0.35)) / 2
    assert Tversky(smooth=1)(logits, target).item() == pytest.approx(1 - smoothed)
    # The first class threefold.
    heavy = Tversky(class_weights=(3, 1))(logits, target)
    assert heavy.item() == pytest.approx((3 * (1 - first) + (1 - second)) / 4)


@pytest.mark.parametrize("per_image", [False, True])
def test_with_halves_it_is_dice(batch, per_image):
    logits, target, weight = batch()
    halves = Tversky(0.5, 0.5, per_image=per_image)(logits, target, weight)
    torch.testing.assert_close(halves, Dice(per_image=per_image)(logits, target, weight))
    smooth = Tversky(0.5, 0.5, smooth=1, classes="all")(logits, target)
    torch.testing.assert_close(smooth, Dice(smooth=2, classes="all")(logits, target))


def test_a_class_that_is_labelled_nowhere_counts_if_all_do():
    # Class 2 is predicted with 0.3 pixels: T = 1 / (1 + 0.3 * 0.3).
    logits, target = logits_of([[0.6, 0.3, 0.1], [0.5, 0.3, 0.2]]), torch.tensor([[[0, 1]]])
    first = 1.6 / (1.6 + 0.3 * 0.5 + 0.7 * 0.4)
    second = 1.3 / (1.3 + 0.3 * 0.3 + 0.7 * 0.7)
    every = Tversky(smooth=1, classes="all")(logits, target).item()
    assert every == pytest.approx(1 - (first + second + 1 / 1.09) / 3)
    assert Tversky(smooth=1)(logits, target).item() == pytest.approx(1 - (first + second) / 2)


def test_a_right_prediction_has_loss_and_gradient_zero_at_every_exponent():
    logits = torch.tensor([[[[1e4]], [[-1e4]]]], requires_grad=True)
    loss = Tversky(gamma=0.75)(logits, torch.tensor([[[0]]]))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-20)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    "wrong", [{"alpha": -1}, {"beta": math.inf}, {"gamma": 0}, {"smooth": -1}, {"classes": "some"}]
)
def test_arguments_outside_their_range_are_refused(wrong):
    with pytest.raises(SegbenchError, match=rf"loss\.{next(iter(wrong))}="):
        Tversky(**wrong)
