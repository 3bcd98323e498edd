import pytest
import torch
from torch import nn

from segbench.losses.foreign import Foreign


@pytest.fixture
def drawn():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator, requires_grad=True)
    return logits, torch.randint(3, (2, 4, 5), generator=generator)


class Mean(nn.Module):
    """Cross-entropy that knows no void, weighted by pixel."""

    def forward(self, logits_BKHW, target_BHW, weight_BHW):
        assert logits_BKHW.shape[2:] == target_BHW.shape[1:] == weight_BHW.shape[1:]
        return (nn.functional.cross_entropy(logits_BKHW, target_BHW, reduction="none") * weight_BHW).mean()


def test_void_pixels_are_left_out_of_a_loss_that_does_not_know_them(drawn):
    logits, target = drawn
    target[0, 1] = 255
    weight = torch.rand(2, 4, 5)
    labelled = target != 255
    each = nn.functional.cross_entropy(logits, target.where(labelled, 0), reduction="none") * weight
    torch.testing.assert_close(Foreign(Mean())(logits, target, weight), each[labelled].mean())


def test_without_void_it_gets_the_batch_as_it_is(drawn):
    logits, target = drawn
    weight = torch.rand(2, 4, 5)
    assert torch.equal(Foreign(Mean())(logits, target, weight), Mean()(logits, target, weight))


@pytest.mark.parametrize(
    "loss",
    [Mean(), nn.CrossEntropyLoss(), nn.CrossEntropyLoss(weight=torch.tensor([0.0, 1.0, 2.0]))],
    ids=["without void", "torch's", "torch's, of which a class counts nothing"],
)
def test_void_pixels_alone_have_no_loss_and_no_gradient(drawn, loss):
    logits, target = drawn
    value = Foreign(loss, 255)(logits, torch.full_like(target, 255), torch.ones(2, 4, 5))
    value.backward()
    assert value == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_a_loss_that_knows_void_is_not_changed(drawn):
    logits, target = drawn
    target[1] = 255
    expected = nn.CrossEntropyLoss(ignore_index=255)(logits, target)
    assert torch.equal(Foreign(nn.CrossEntropyLoss())(logits, target), expected)


def test_a_loss_that_does_not_know_void_waits_for_the_device_once(waits):
    with waits() as mode:
        Foreign(Mean())(
            torch.ones(2, 3, 4, 5, device="meta"),
            torch.ones(2, 4, 5, dtype=torch.long, device="meta"),
            torch.ones(2, 4, 5, device="meta"),
        )
    assert [name for _, name in mode.seen] == ["nonzero"]
