"""What every loss keeps: void has no influence, half precision is reduced in float32, several batches' sums add up."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.errors import SegbenchError
from segbench.losses import CrossEntropy, Dice, Focal, LovaszSoftmax, Sum, Tversky, WeightedCrossEntropy

LOSSES = {
    "cross-entropy": lambda **given: CrossEntropy(**given),
    "summed": lambda **given: CrossEntropy("sum", **given),
    "weighted": lambda **given: WeightedCrossEntropy(**given),
    "focal": lambda **given: Focal(alpha=(0.5, 1.0, 2.0), **given),
    "flat focal": lambda **given: Focal(gamma=0.5, reduction="sum", **given),
    "dice": lambda **given: Dice(**given),
    "squared dice": lambda **given: Dice(squared=True, smooth=1, classes="all", **given),
    "lovasz": lambda **given: LovaszSoftmax(**given),
    "lovasz of a batch": lambda **given: LovaszSoftmax(per_image=False, classes="all", **given),
    "dice of images": lambda **given: Dice(per_image=True, class_weights=(1, 2, 0.5), **given),
    "tversky": lambda **given: Tversky(**given),
    "focal tversky": lambda **given: Tversky(gamma=0.75, smooth=1, classes="all", class_weights=(1, 2, 0), **given),
    "by class": lambda **given: CrossEntropy(class_weights=(0.5, 1, 2), **given),
    "focal by class": lambda **given: Focal(class_weights=(0.5, 1, 2), **given),
    "lovasz by class": lambda **given: LovaszSoftmax(class_weights=(0.5, 1, 2), **given),
    "a sum by class": lambda **given: Sum(
        {"a": CrossEntropy(class_weights=(1, 0, 1)), "b": Tversky()}, dict(a=1, b=2), class_weights=(1, 2, 3), **given
    ),
    "a sum": lambda **given: Sum(
        {"a": CrossEntropy(), "b": Dice(), "c": LovaszSoftmax()}, dict(a=1, b=2, c=3), **given
    ),
}
every_loss = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES)


def gradient(loss, logits, target, weight):
    logits = logits.clone().requires_grad_()
    value = loss(logits, target, weight)
    return value.detach(), torch.autograd.grad(value, logits)[0]


@every_loss
def test_its_gradient_is_that_of_finite_differences(make, batch):
    logits, target, weight = batch()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: make()(z, target, weight), (logits,))
    assert make()(logits, target, weight) > 0.1


@every_loss
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), void=st.sampled_from([0.2, 0.9]))
def test_void_has_no_influence(make, batch, seed, void):
    logits, target, weight = batch(seed, void=void)
    changed, other, heavier = batch(seed + 1)[0], target == 255, batch(seed + 2)[2]
    there = other[:, None].expand_as(logits)
    before = gradient(make(), logits, target, weight)
    after = gradient(make(), torch.where(there, 50 * changed, logits), target, torch.where(other, heavier, weight))
    torch.testing.assert_close(after, before)
    assert not before[1][there].any()


@every_loss
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000))
def test_where_a_pixel_lies_has_no_influence(make, batch, seed):
    logits, target, weight = batch(seed)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(seed))

    def moved(x):
        return x.flatten(-2)[..., order].view_as(x)

    before = gradient(make(), logits, target, weight)
    after = gradient(make(), moved(logits), moved(target), moved(weight))
    torch.testing.assert_close(after, (before[0], moved(before[1])))


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_of_void_has_loss_and_gradient_zero(make, batch, dtype):
    logits, target, weight = batch(dtype=torch.float32)
    value, slope = gradient(make(), logits.to(dtype), torch.full_like(target, 255), weight)
    assert value.item() == 0
    assert not slope.any()


@every_loss
def test_another_void_label(make, batch):
    logits, target, weight = batch()
    moved = torch.where(target == 255, -1, target)
    torch.testing.assert_close(make(ignore_index=-1)(logits, moved, weight), make()(logits, target, weight))


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("seed", range(3))
def test_half_precision_logits_are_reduced_in_float32(make, batch, dtype, seed):
    logits, target, weight = batch(seed, dtype=torch.float32)
    half = logits.to(dtype)
    expected = make()(half.float(), target, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = make()(half, target, weight)
    outside = make()(half, target, weight)
    assert inside.dtype == outside.dtype == torch.float32
    assert inside.item() == outside.item() == expected.item()


@every_loss
@pytest.mark.parametrize("label", [0, 1])
def test_certain_logits_have_finite_gradients(make, label):
    logits = torch.tensor([[[[1e4]], [[-1e4]], [[-1e4]]]])
    value, slope = gradient(make(), logits, torch.tensor([[[label]]]), torch.ones(1, 1, 1))
    assert torch.isfinite(value)
    assert torch.isfinite(slope).all()


@every_loss
@pytest.mark.parametrize("name", ["target", "pixel weight"])
def test_a_size_that_would_broadcast_is_refused(make, batch, name):
    logits, target, weight = batch()
    given_arrays = {"target": target, "pixel weight": weight}
    given_arrays[name] = given_arrays[name][:1]
    with pytest.raises(SegbenchError, match=rf"{name} of shape \(1, 4, 5\) for logits of shape \(2, 3, 4, 5\)"):
        make()(logits, given_arrays["target"], given_arrays["pixel weight"])


@every_loss
def test_a_label_beyond_the_classes_is_no_pixel_of_nothing(make, batch):
    logits, target, weight = batch()
    target[0, 0, 0] = 3
    with pytest.raises((IndexError, RuntimeError), match=r"out of bounds"):
        make()(logits, target, weight)


@every_loss
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), empty=st.booleans())
def test_the_sums_of_two_batches_are_those_of_one(make, batch, seed, empty):
    loss = make()
    logits, target, weight = batch(seed, B=4)
    target[:2, :3] = 255  # the halves differ in what is labelled
    if empty:
        target[2:] = 255
    halves = [loss.sums(logits[part], target[part], weight[part]) for part in (slice(0, 2), slice(2, 4))]
    together = loss.value({name: halves[0][name] + halves[1][name] for name in halves[0]})
    whole = loss(logits, target, weight)
    if loss.additive:
        torch.testing.assert_close(together, whole)


def test_only_pixels_of_a_batch_that_are_one_set_do_not_add_up(batch):
    assert [name for name, make in LOSSES.items() if not make().additive] == ["lovasz of a batch"]
    assert not Sum({"a": LovaszSoftmax(per_image=False)}, {"a": 1}).additive


def test_which_losses_grow_with_the_pixels():
    assert [name for name, make in LOSSES.items() if make().reduction == "sum"] == ["summed", "flat focal"]
    assert Sum({"a": Dice(), "b": CrossEntropy("sum")}, {"a": 1, "b": 1}).reduction == "sum"
