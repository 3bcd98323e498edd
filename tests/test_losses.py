import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from segbench.errors import SegbenchError
from segbench.losses import CrossEntropy, WeightedCrossEntropy


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def batch(seed=0, B=2, K=3, H=4, W=5, void=0.3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(B, K, H, W, generator=generator, dtype=dtype)
    target = torch.randint(K, (B, H, W), generator=generator)
    target[torch.rand(B, H, W, generator=generator) < void] = 255
    weight = 3 * torch.rand(B, H, W, generator=generator, dtype=dtype)
    return logits, target, weight


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


def test_the_mean_is_not_divided_by_the_weights():
    logits, target, weight = batch()
    loss = CrossEntropy("mean")
    assert loss(logits, target, 4 * weight).item() == pytest.approx(4 * loss(logits, target, weight).item())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_without_weight_it_is_torchs_cross_entropy(reduction):
    logits, target, _ = batch()
    logits.requires_grad_()
    ours = CrossEntropy(reduction)(logits, target)
    theirs = F.cross_entropy(logits, target, ignore_index=255, reduction=reduction)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_value_and_gradient_are_those_of_the_plain_form(reduction):
    logits, target, weight = batch()
    logits.requires_grad_()
    ours = WeightedCrossEntropy(reduction)(logits, target, weight)
    reference = plain(logits, target, weight, reduction)
    torch.testing.assert_close(ours, reference)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, reference)))
    assert torch.autograd.gradcheck(lambda z: WeightedCrossEntropy(reduction)(z, target, weight), (logits,))


def test_a_pixels_gradient_is_its_weight_times_the_softmax_error_over_the_labelled_pixels():
    logits, target, weight = batch(void=0.5)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(CrossEntropy()(logits, target, weight), logits)
    labelled = target != 255
    error = logits.softmax(1) - F.one_hot(target.clamp(max=2), 3).movedim(-1, 1)
    torch.testing.assert_close(gradient, error * (weight * labelled / labelled.sum()).unsqueeze(1))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_batch_of_void_has_loss_and_gradient_zero(reduction, weighted):
    logits, target, weight = batch()
    logits.requires_grad_()
    loss = CrossEntropy(reduction)(logits, torch.full_like(target, 255), weight if weighted else None)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()
    assert CrossEntropy().normaliser(torch.full_like(target, 255)).item() == 0


def test_another_void_label():
    logits, target, _ = batch()
    moved = torch.where(target == 255, -1, target)
    torch.testing.assert_close(CrossEntropy(ignore_index=-1)(logits, moved), CrossEntropy()(logits, target))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), void=st.sampled_from([0.0, 0.4, 1.0]))
def test_mean_times_normaliser_is_the_sum(seed, void):
    logits, target, weight = batch(seed, void=void)
    mean, total = CrossEntropy("mean"), CrossEntropy("sum")
    torch.testing.assert_close(
        mean(logits, target, weight) * mean.normaliser(target, weight), total(logits, target, weight)
    )


def test_two_ranks_rescaled_by_the_global_normaliser_are_one_batch():
    logits, target, weight = batch(B=4)
    target[:2, :3] = 255  # the ranks differ in what is labelled
    loss = CrossEntropy("mean")
    whole = loss(logits, target, weight)
    halves = [(logits[part], target[part], weight[part]) for part in (slice(0, 2), slice(2, 4))]
    counts = [loss.normaliser(t, w) for _, t, w in halves]
    rescaled = [loss(*half) * 2 * count / sum(counts) for half, count in zip(halves, counts, strict=True)]
    torch.testing.assert_close(sum(rescaled) / 2, whole)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("seed", range(3))
def test_half_precision_logits_are_reduced_in_float32(dtype, seed):
    logits, target, weight = batch(seed, dtype=torch.float32)
    half = logits.to(dtype)
    expected = CrossEntropy()(half.float(), target, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = CrossEntropy()(half, target, weight)
    outside = CrossEntropy()(half, target, weight)
    assert inside.dtype == outside.dtype == torch.float32
    assert inside.item() == outside.item() == expected.item()


def test_large_logits_stay_finite():
    logits = torch.tensor([[[[1e4]], [[-1e4]]]], requires_grad=True)
    loss = CrossEntropy()(logits, torch.tensor([[[1]]]))
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", ["target", "weight"])
def test_a_size_that_would_broadcast_is_refused(name):
    logits, target, weight = batch()
    given_arrays = {"target": target, "weight": weight}
    given_arrays[name] = given_arrays[name][:1]
    with pytest.raises(SegbenchError, match=rf"a {name} of shape \(1, 4, 5\) for logits of shape \(2, 3, 4, 5\)"):
        CrossEntropy()(logits, given_arrays["target"], given_arrays["weight"])


def test_the_weighted_loss_refuses_a_batch_without_weight():
    logits, target, _ = batch()
    assert WeightedCrossEntropy.needs_weight and not CrossEntropy.needs_weight
    with pytest.raises(SegbenchError, match="a batch without a weight map"):
        WeightedCrossEntropy()(logits, target)


def test_an_unknown_reduction_is_refused():
    with pytest.raises(SegbenchError, match=r"loss\.reduction=none"):
        CrossEntropy("none")
