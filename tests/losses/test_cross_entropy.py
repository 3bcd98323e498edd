import math

import pytest
import torch
from torch.nn import functional as F

from segbench.errors import SegbenchError
from segbench.losses import CrossEntropy, WeightedCrossEntropy


def plain(logits, target, weight, reduction):
    """The docstring's formula, pixel by pixel."""
    total, labelled = logits.new_zeros(()), 0
    for b, y, x in (target != 255).nonzero().tolist():
        total = total - weight[b, y, x] * logits[b, :, y, x].log_softmax(0)[target[b, y, x]]
        labelled += 1
    return total / labelled if reduction == "mean" else total


def test_two_pixels_by_hand():
    # Equal logits: l = ln 2. Logits (ln 3, 0): probabilities 3/4 and 1/4, so l = ln 4 for the second class.
    logits = torch.tensor([[[[0.0, math.log(3.0)]], [[0.0, 0.0]]]])
    target = torch.tensor([[[0, 1]]])
    weight = torch.tensor([[[1.0, 5.0]]])
    assert CrossEntropy("sum")(logits, target).item() == pytest.approx(math.log(2) + math.log(4))
    assert CrossEntropy("sum")(logits, target, weight).item() == pytest.approx(math.log(2) + 5 * math.log(4))
    assert CrossEntropy("mean")(logits, target, weight).item() == pytest.approx((math.log(2) + 5 * math.log(4)) / 2)


def test_the_mean_is_not_divided_by_the_weights(batch):
    logits, target, weight = batch()
    loss = CrossEntropy("mean")
    assert loss(logits, target, 4 * weight).item() == pytest.approx(4 * loss(logits, target, weight).item())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_without_weight_it_is_torchs_cross_entropy(batch, reduction):
    logits, target, _ = batch()
    logits.requires_grad_()
    ours = CrossEntropy(reduction)(logits, target)
    theirs = F.cross_entropy(logits, target, ignore_index=255, reduction=reduction)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_value_and_gradient_are_those_of_the_plain_form(batch, reduction):
    logits, target, weight = batch()
    logits.requires_grad_()
    ours = WeightedCrossEntropy(reduction)(logits, target, weight)
    reference = plain(logits, target, weight, reduction)
    torch.testing.assert_close(ours, reference)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, reference)))
    assert torch.autograd.gradcheck(lambda z: WeightedCrossEntropy(reduction)(z, target, weight), (logits,))


def test_a_pixels_gradient_is_its_weight_times_the_softmax_error_over_the_labelled_pixels(batch):
    logits, target, weight = batch(void=0.5)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(CrossEntropy()(logits, target, weight), logits)
    labelled = target != 255
    error = logits.softmax(1) - F.one_hot(target.clamp(max=2), 3).movedim(-1, 1)
    torch.testing.assert_close(gradient, error * (weight * labelled / labelled.sum()).unsqueeze(1))


def test_large_logits_stay_finite():
    logits = torch.tensor([[[[1e4]], [[-1e4]]]], requires_grad=True)
    loss = CrossEntropy()(logits, torch.tensor([[[1]]]))
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert torch.isfinite(logits.grad).all()


def test_the_weighted_loss_refuses_a_batch_without_weight(batch):
    logits, target, _ = batch()
    assert WeightedCrossEntropy.needs_weight and not CrossEntropy.needs_weight
    with pytest.raises(SegbenchError, match="a batch without pixel weights"):
        WeightedCrossEntropy()(logits, target)


def test_an_unknown_reduction_is_refused():
    with pytest.raises(SegbenchError, match=r"loss\.reduction=none"):
        CrossEntropy("none")


def test_class_weights_by_hand(batch):
    # l = ln 2 of class 0 and ln 4 of class 1, weighted 1 and 3; the mean is over the sum of the class weights.
    logits = torch.tensor([[[[0.0, math.log(3.0)]], [[0.0, 0.0]]]])
    target, heavy = torch.tensor([[[0, 1]]]), (1.0, 3.0)
    total = math.log(2) + 3 * math.log(4)
    assert CrossEntropy("sum", class_weights=heavy)(logits, target).item() == pytest.approx(total)
    assert CrossEntropy(class_weights=heavy)(logits, target).item() == pytest.approx(total / 4)
    # Pixel weights multiply, and are not in the denominator.
    doubled = CrossEntropy(class_weights=heavy)(logits, target, torch.full((1, 1, 2), 2.0)).item()
    assert doubled == pytest.approx(2 * total / 4)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_class_weights_are_those_of_torchs_cross_entropy(batch, reduction):
    logits, target, _ = batch()
    logits.requires_grad_()
    factors = [0.5, 2.0, 0.0]
    ours = CrossEntropy(reduction, class_weights=factors)(logits, target)
    given = torch.tensor(factors, dtype=torch.float64)
    theirs = F.cross_entropy(logits, target, given, ignore_index=255, reduction=reduction)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)))


def test_a_batch_of_classes_of_weight_zero_has_loss_zero():
    logits = torch.zeros(1, 2, 1, 2, requires_grad=True)
    loss = CrossEntropy(class_weights=(0, 1))(logits, torch.zeros(1, 1, 2, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


def test_class_weights_out_of_range_or_of_another_number_are_refused(batch):
    for wrong in ((-1, 1), (0, 0), (math.inf, 1)):
        with pytest.raises(SegbenchError, match=r"loss\.class_weights=.*\n.*finite factor"):
            CrossEntropy(class_weights=wrong)
    with pytest.raises(SegbenchError, match=r"loss\.class_weights with 2 factors for 3 classes"):
        CrossEntropy(class_weights=(1, 2))(*batch()[:2])


def test_class_weights_are_the_configs_and_not_the_checkpoints():
    assert not CrossEntropy(class_weights=(1, 2)).state_dict()
