from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from segbench.errors import SegbenchError
from segbench.losses import LovaszSoftmax


def choquet(error_N, true_N, weight_N):
    """The Lovász extension as an integral over thresholds of the set function, which is spelt out; no sorting."""

    def jaccard_loss(wrong_N):
        union = weight_N[true_N | wrong_N].sum()
        return 0.0 if union == 0 else 1 - (weight_N[true_N & ~wrong_N].sum() / union).item()

    levels = [0.0, *sorted(set(error_N.tolist()))]
    return sum((high - low) * jaccard_loss(error_N >= high) for low, high in pairwise(levels))


def by_definition(logits, target, weight, sets, classes):
    total, counted = 0.0, 0
    for images in sets:
        labelled_N = target[images].flatten() != 255
        label_N, weight_N = target[images].flatten()[labelled_N], weight[images].flatten()[labelled_N]
        prob_KN = logits[images].softmax(1).movedim(1, 0).flatten(1)[:, labelled_N]
        if len(label_N) == 0:
            continue
        of_classes = [
            choquet(((label_N == k).double() - prob_KN[k]).abs(), label_N == k, weight_N)
            for k in range(len(prob_KN))
            if classes == "all" or (label_N == k).any()
        ]
        total, counted = total + sum(of_classes) / len(of_classes), counted + 1
    return total / max(counted, 1)


@pytest.mark.parametrize("classes", ["present", "all"])
@pytest.mark.parametrize("per_image", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_extension_of_the_set_function(batch, per_image, classes, seed):
    logits, target, weight = batch(seed, B=3, K=4, void=(0.0, 0.3, 0.8)[seed % 3])
    target[0] = 255  # an image without labels is no set
    target[1][target[1] == 2] = 0
    if seed > 2:
        # Ties are sorted anyhow.
        logits = logits.round()
    sets = [[0], [1], [2]] if per_image else [[0, 1, 2]]
    loss = LovaszSoftmax(per_image, classes)
    for weights in (weight, torch.ones_like(weight)):
        expected = by_definition(logits, target, weights, sets, classes)
        assert loss(logits, target, weights).item() == pytest.approx(expected, abs=1e-12)
    assert loss(logits, target).item() == pytest.approx(expected, abs=1e-12)


def test_two_pixels_by_hand():
    # Class 0: errors 1/4 (its own pixel) and 1/2 (the other), so 1/2 is wrong first: delta = 1 - 1/2, then 1.
    # 1/2 * 1/2 + 1/4 * 1/2 = 3/8. Class 1: errors 1/4 and 1/2 (its own): 1/2 * 1 + 1/4 * 0 = 1/2.
    logits = torch.tensor([[0.75, 0.25], [0.5, 0.5]]).log().T[None, :, None]
    assert LovaszSoftmax()(logits, torch.tensor([[[0, 1]]])).item() == pytest.approx((3 / 8 + 1 / 2) / 2)


def test_for_certain_probabilities_it_is_one_less_the_mean_iu(batch):
    logits, target, _ = batch(B=1, H=9, W=9)
    pred = logits.argmax(1)
    counted = target != 255
    ious = [
        (counted & (pred == k) & (target == k)).sum() / (counted & ((pred == k) | (target == k))).sum()
        for k in range(3)
    ]
    certain = 1000.0 * F.one_hot(pred, 3).movedim(-1, 1).double()
    assert LovaszSoftmax()(certain, target).item() == pytest.approx(1 - sum(ious).item() / 3)


def test_an_absent_class_costs_its_worst_pixel_where_all_are_counted():
    # Without a pixel of class 2, one wrong pixel is all wrong: the loss is the largest error.
    logits = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.3, 0.2]]).double().log().T[None, :, None]
    target = torch.tensor([[[0, 1]]])
    present, every = (LovaszSoftmax(classes=classes)(logits, target).item() for classes in ("present", "all"))
    assert every == pytest.approx((2 * present + 0.2) / 3)


def test_unknown_classes_are_refused():
    with pytest.raises(SegbenchError, match=r"loss\.classes=some\n.*present or all\n.*loss\.classes=present"):
        LovaszSoftmax(classes="some")


def test_class_weights_weigh_the_mean_over_the_classes_of_a_set(batch):
    logits, target, weight = batch(B=1)
    parts = [LovaszSoftmax(class_weights=[float(k == each) for k in range(3)]) for each in range(3)]
    losses = [loss(logits, target, weight) for loss in parts]
    torch.testing.assert_close(LovaszSoftmax()(logits, target, weight), sum(losses) / 3)
    weighted = LovaszSoftmax(class_weights=(1, 2, 5))(logits, target, weight)
    torch.testing.assert_close(weighted, (losses[0] + 2 * losses[1] + 5 * losses[2]) / 8)


@pytest.mark.parametrize("settings", [{}, {"classes": "all"}, {"class_weights": [1.0, 0.0, 3.0, 2.0]}])
def test_classes_are_left_out_alike_where_they_are_not_sorted_and_where_they_are(monkeypatch, settings):
    def gradient():
        logits = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
        target = torch.randint(0, 2, (2, 6, 6), generator=torch.Generator().manual_seed(1))
        target[1] = 255
        LovaszSoftmax(**settings)(logits, target).backward()
        return logits.grad

    on_cpu = gradient()
    # As on a GPU, whose host does not know how many classes there are.
    monkeypatch.setattr(torch.Tensor, "is_cpu", False)
    torch.testing.assert_close(gradient(), on_cpu)
