import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from segbench.inference import rowwise
from segbench.inference.rowwise import NotRowwise, RowwiseForward
from segbench.models.unet import UNet


def in_strips(model, image_BCHW, rows):
    forward = RowwiseForward(model, image_BCHW.shape[2])
    strips = image_BCHW.split(rows, 2)
    return torch.cat([forward({"em": strip}, lambda output: {"out": output})["out"] for strip in strips], 2)


class Layers(nn.Module):
    """Dilated and strided convolutions, overlapping poolings and upsampling, with sums and concatenations."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.dilated = nn.Conv2d(1, 4, 3, padding=2, dilation=2)
        self.strided = nn.Conv2d(4, 4, 5, stride=2, padding=2)
        self.up = nn.ConvTranspose2d(4, 4, 4, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(8, 2, (3, 1), padding=(1, 0))

    def forward(self, image_BCHW):
        first = F.leaky_relu(self.norm(self.dilated(image_BCHW)), inplace=True)
        pooled = F.avg_pool2d(F.max_pool2d(first, 3, 1, 1), 1)
        up = self.up(torch.relu_(self.strided(first)))
        return self.last(torch.cat([up + 2 * pooled, first], 1)[:, :, 1:-2])


@settings(deadline=None)
@given(rows=st.integers(1, 70), height=st.integers(4, 30).map(lambda half: 2 * half))
def test_strips_give_what_the_whole_image_gives(rows, height):
    model = Layers().eval()
    image_BCHW = torch.randn(1, 1, height, 12, generator=torch.Generator().manual_seed(height))
    with torch.inference_mode():
        torch.testing.assert_close(in_strips(model, image_BCHW, rows), model(image_BCHW), rtol=0, atol=1e-5)


class Residual(nn.Module):
    """Sums in place, activations and upsampling as in residual networks and their decoders."""

    def __init__(self, factor, **upsampling):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(1, 4, 3, factor, 1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 2, 3, padding=1)
        self.up = nn.Upsample(scale_factor=factor, **upsampling)

    def forward(self, image_BCHW):
        first = self.first(image_BCHW)
        second = F.silu(self.second(first), inplace=True)
        second += first
        second *= 2
        larger = self.up(second)
        return self.last(F.pad(larger - F.interpolate(first, larger.shape[2:]), [0, 2])).softmax(1)


@pytest.mark.parametrize("rows", [1, 7, 16, 40])
@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_upsampling_in_strips_is_that_of_the_whole(mode, factor, rows):
    model = Residual(factor, mode=mode).eval()
    image_BCHW = torch.randn(1, 1, 40, 16)
    with torch.inference_mode():
        torch.testing.assert_close(in_strips(model, image_BCHW, rows), model(image_BCHW), rtol=0, atol=1e-5)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("rows", [4, 20, 33])
@pytest.mark.parametrize("arguments", [{}, {"variant": "phseg_v5"}, {"padding": "same", "norm": "batch"}])
def test_a_unet_in_strips_is_the_unet(arguments, rows, packed):
    torch.manual_seed(0)
    model = UNet(width=3, depth=2, **arguments).eval()
    image_BCHW = torch.randn(1, 1, *(model.geometry.input_for(side) for side in (70, 20)))
    if packed:
        image_BCHW = image_BCHW.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        torch.testing.assert_close(in_strips(model, image_BCHW, rows), model(image_BCHW), rtol=0, atol=1e-4)


def test_no_row_is_computed_twice(monkeypatch):
    computed, windows = [], rowwise._windows

    def counted(func, rows, kernel, stride, padding, dilation, fill, run):
        def counting(strip):
            computed.append((strip.shape[2] - kernel) // stride + 1)
            return run(strip)

        return windows(func, rows, kernel, stride, padding, dilation, fill, counting)

    monkeypatch.setattr(rowwise, "_windows", counted)
    model = UNet(width=2, depth=1, padding="same").eval()
    with torch.inference_mode():
        in_strips(model, torch.randn(1, 1, 64, 16), 16)
    # Four convolutions of 3x3 and one of 1x1 make 64 rows, two convolutions and the pooling 32.
    assert sum(computed) == 5 * 64 + 3 * 32


def test_the_network_itself_runs_once():
    model, called = UNet(width=2, depth=1, padding="same").eval(), []
    model.register_forward_hook(lambda *_: called.append(True))
    image_BCHW = torch.randn(1, 1, 64, 16)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        ours = in_strips(model, image_BCHW, 16)
        assert called == [True]
        assert torch.equal(ours, model(image_BCHW))


class Scaled(nn.Module):
    """Arguments that are rows by name, in a list and twice."""

    def forward(self, image_BCHW):
        both = torch.cat(tensors=[image_BCHW, image_BCHW * 2], dim=1)
        return torch.add(both, other=both, alpha=3)


def test_what_a_step_is_given_is_found_again():
    image_BCHW = torch.randn(1, 1, 12, 4)
    with torch.inference_mode():
        assert torch.equal(in_strips(Scaled(), image_BCHW, 4), Scaled()(image_BCHW))


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: F.group_norm(x, 1),
        lambda x: x - x.mean((2, 3), keepdim=True),
        lambda x: x.flip(2),
        lambda x: torch.cat([x, x], 2),
        lambda x: x.softmax(2),
        lambda x: x + torch.arange(8.0)[:, None],
        lambda x: F.max_pool2d(x, 3, ceil_mode=True),
        lambda x: F.relu_(x[:, :, 1:]) + x[:, :, 1:],
        lambda x: torch.zeros(1, 2, 8, 8),
        lambda x: F.interpolate(x, scale_factor=3),
        lambda x: F.interpolate(x, (13, 13)),
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
        lambda x: F.pad(x, [0, 0, 1, 1]),
        lambda x: x[:, :, 1:].add_(x[:, :, 1:]),
        lambda x: torch.from_numpy(x.numpy()),
    ],
)
def test_what_is_not_row_by_row_is_refused(forward):
    with torch.inference_mode(), pytest.raises(NotRowwise):
        in_strips(forward, torch.randn(1, 1, 8, 8), 4)
