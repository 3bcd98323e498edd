import math

import pytest
import torch
from torch.nn import functional as F

from segbench.errors import SegbenchError
from segbench.losses import Dice


def logits_of(probabilities):
    """BKHW logits of B = 1 and one row, from the K probabilities of each pixel."""
    return torch.tensor(probabilities, dtype=torch.float64).log().T[None, :, None]


def test_two_pixels_by_hand():
    # p = (3/4, 1/4) and (1/2, 1/2), labels 0 and 1.
    # D_0 = 2 * 3/4 / (5/4 + 1) = 2/3; D_1 = 2 * 1/2 / (3/4 + 1) = 4/7.
    logits, target = logits_of([[0.75, 0.25], [0.5, 0.5]]), torch.tensor([[[0, 1]]])
    assert Dice()(logits, target).item() == pytest.approx(1 - (2 / 3 + 4 / 7) / 2)
    # Squares: 9/16 + 1/4 = 13/16 and 1/16 + 1/4 = 5/16.
    squared = (1.5 / (13 / 16 + 1) + 1 / (5 / 16 + 1)) / 2
    assert Dice(squared=True)(logits, target).item() == pytest.approx(1 - squared)
    assert Dice(smooth=1)(logits, target).item() == pytest.approx(1 - (2.5 / 3.25 + 2 / 2.75) / 2)
    # The second pixel threefold: D_0 = 1.5 / (3/4 + 3/2 + 1), D_1 = 3 / (1/4 + 3/2 + 3).
    weighted = Dice()(logits, target, torch.tensor([[[1.0, 3.0]]]))
    assert weighted.item() == pytest.approx(1 - (1.5 / 3.25 + 3 / 4.75) / 2)


def test_a_class_that_is_labelled_nowhere():
    logits, target = logits_of([[0.6, 0.3, 0.1], [0.5, 0.3, 0.2]]), torch.tensor([[[0, 1]]])
    present = (1.2 / 2.1 + 0.6 / 1.6) / 2
    assert Dice()(logits, target).item() == pytest.approx(1 - present)
    smoothed = (2.2 / 3.1 + 1.6 / 2.6 + 1 / 1.3) / 3
    assert Dice(smooth=1, classes="all")(logits, target).item() == pytest.approx(1 - smoothed)


@pytest.mark.parametrize("squared", [False, True])
def test_for_certain_probabilities_it_is_the_dice_score(batch, squared):
    logits, target, _ = batch(H=9, W=9)
    pred = logits.argmax(1)
    counted = target != 255
    scores = [
        2 * (counted & (pred == k) & (target == k)).sum() / ((counted & (pred == k)).sum() + (target == k).sum())
        for k in range(3)
    ]
    certain = 1000.0 * F.one_hot(pred, 3).movedim(-1, 1)
    assert Dice(squared=squared)(certain, target).item() == pytest.approx(1 - sum(scores).item() / 3)


def test_the_sets_are_of_the_batch_and_not_of_each_image(batch):
    logits, target, weight = batch(B=4)
    together = logits.movedim(0, 1).reshape(1, 3, 16, 5), target.view(1, 16, 5), weight.view(1, 16, 5)
    torch.testing.assert_close(Dice()(*together), Dice()(logits, target, weight))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"classes": "some"}, r"loss\.classes=some\n.*present or all"),
        ({"smooth": -1}, r"loss\.smooth=-1\n.*>= 0"),
        ({"smooth": math.inf}, r"loss\.smooth=inf"),
        ({"classes": "all"}, r"loss\.smooth=0\.0\n.*above 0 for classes=all\n.*loss\.smooth=1"),
    ],
)
def test_arguments_outside_their_range_are_refused(wrong, told):
    with pytest.raises(SegbenchError, match=told):
        Dice(**wrong)


def test_class_weights_weigh_the_mean_over_the_classes_that_count():
    # D_0 = 2/3 and D_1 = 4/7, as above; the third class is labelled nowhere.
    logits = logits_of([[0.75, 0.25, 1e-30], [0.5, 0.5, 1e-30]])
    weighted = Dice(class_weights=(1, 3, 7))(logits, torch.tensor([[[0, 1]]]))
    assert weighted.item() == pytest.approx((1 * (1 - 2 / 3) + 3 * (1 - 4 / 7)) / 4)


def test_sets_of_each_image_by_hand():
    # Two images of one pixel, labels 0 and 1, p = (3/4, 1/4) and (1/2, 1/2): D_0 = 1.5 / 1.75 of the first image, where
    # class 1 is absent; D_1 = 1 / 1.5 of the second, where class 0 is.
    logits = logits_of([[0.75, 0.25], [0.5, 0.5]]).movedim(3, 0).movedim(-1, 2).reshape(2, 2, 1, 1)
    target = torch.tensor([[[0]], [[1]]])
    assert Dice(per_image=True)(logits, target).item() == pytest.approx(1 - (1.5 / 1.75 + 1 / 1.5) / 2)
    # With both classes in every image and s = 1, an absent class counts: 1 / (1/4 + 1) and 1 / (1/2 + 1).
    first, second = (2.5 / 2.75 + 1 / 1.25) / 2, (2 / 2.5 + 1 / 1.5) / 2
    every = Dice(smooth=1, classes="all", per_image=True)(logits, target)
    assert every.item() == pytest.approx(1 - (first + second) / 2)
    # The batch as one set, in which no class is absent.
    assert Dice()(logits, target).item() == pytest.approx(1 - (2 / 3 + 4 / 7) / 2)


def test_an_image_of_void_is_no_set(batch):
    logits, target, weight = batch(B=2)
    target[1] = 255
    alone = Dice(per_image=True)(logits[:1], target[:1], weight[:1])
    torch.testing.assert_close(Dice(per_image=True)(logits, target, weight), alone)
