import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from segbench.errors import SegbenchError
from segbench.inference import rowwise, stream
from segbench.inference.rowwise import NotRowwise, RowwiseForward
from segbench.inference.stream import predict_image
from segbench.inference.symmetries import symmetries
from segbench.models.unet import UNet
from segbench.spec import TileGeometry


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


@pytest.fixture
def _small(monkeypatch):
    for name, value in (("WHOLE_PIXELS", 40 * 40), ("BAND", 48), ("STRIP_PIXELS", 900), ("WINDOW_PIXELS", 48 * 10)):
        monkeypatch.setattr(stream, name, value)


@pytest.fixture
def _threads(request, monkeypatch):
    """Of torch, each on a band of its own however much these have in common."""
    before = torch.get_num_threads()
    monkeypatch.setattr(stream, "SEAMS", 100)
    torch.set_num_threads(request.param)
    yield
    assert torch.get_num_threads() == request.param
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_small", "_threads")
@pytest.mark.parametrize("_threads", [1, 2, 4], indirect=True)
@pytest.mark.parametrize("size", [(75, 100), (130, 117)])
@pytest.mark.parametrize("arguments", [{}, {"padding": "same", "norm": "batch"}])
def test_a_large_image_is_predicted_in_bands_of_strips(arguments, size):
    torch.manual_seed(0)
    model = UNet(width=3, depth=2, **arguments).eval()
    images = {"em": torch.randn(1, *size)}
    shares = []
    model.register_forward_pre_hook(lambda *_: shares.append(torch.get_num_threads()))
    ours = predict_image(model, images, ["semantic"])["semantic"]
    assert shares[-1] == 1
    whole = predict_image(model, images, ["semantic"], tile=1000)["semantic"]
    torch.testing.assert_close(ours, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("threads", "size", "in_memory", "groups"),
    [
        (1, (2048, 2048), 9, [1]),
        (2, (2048, 2048), 9, [2]),
        (8, (2048, 2048), 9, [2]),
        (8, (8192, 8192), 9, [8]),
        (8, (8192, 8192), 5, [4]),
        (8, (8192, 8192), 1, [1, 1]),
        (2, (5000, 20000), 9, [2, 2, 2]),
    ],
)
def test_bands_side_by_side_follow_threads_memory_and_what_they_have_in_common(
    threads, size, in_memory, groups, monkeypatch
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(stream._TilePredictor, "bands_in_memory", lambda *_: in_memory)
    model = UNet(width=2, padding="same").eval()
    predictor = stream._TilePredictor(model, ("semantic",), model.geometry, [], channels_last=False)
    bands = stream._side_by_side(predictor, stream.ReadableImage(None, size, lambda *_: {}))
    assert [len(group) for group in bands] == groups
    assert sum((r.stop - r.start) * (c.stop - c.start) for group in bands for r, c in group) == size[0] * size[1]


def test_bands_fit_into_memory(monkeypatch):
    model = UNet(width=2, padding="same").eval()
    predictor = stream._TilePredictor(model, ("semantic",), model.geometry, symmetries("none"), channels_last=False)
    monkeypatch.setattr(stream, "STRIP_PIXELS", 1000)

    def count(free):
        monkeypatch.setattr(stream, "free_bytes", lambda: free)
        return predictor.bands_in_memory(lambda: {"em": torch.zeros(1, 1, 1)})

    # The largest layer has 4 channels of 4 bytes in, 2 out.
    assert [count(free) for free in (0, 8 * 24_000 * 3, math.inf)] == [1, 3, 2**62 // (8 * 24_000)]


class Normed(nn.Module):
    """Group normalisation needs the whole map; alike in every tile here, since there is one channel of constants."""

    geometry = TileGeometry(step=4, context=4)

    def forward(self, image_BCHW):
        return torch.cat([image_BCHW, F.group_norm(torch.ones_like(image_BCHW), 1)], 1)


@pytest.mark.usefixtures("_small", "_threads")
@pytest.mark.parametrize("_threads", [1, 2], indirect=True)
def test_another_network_is_predicted_in_tiles_and_this_is_told_once(monkeypatch, caplog):
    monkeypatch.setattr(stream, "DEFAULT_TILE", 32)
    image_CHW, model = torch.randn(1, 100, 60), Normed().eval()
    for _ in range(2):
        ours = predict_image(model, {"em": image_CHW}, ["semantic"])["semantic"]
        torch.testing.assert_close(ours[0], torch.sigmoid(image_CHW[0]))
    (told,) = caplog.messages
    assert "overlapping tiles" in told
    assert "aten.ones_like" in told


class Faulty(nn.Module):
    geometry = TileGeometry(step=4, context=4)

    def forward(self, image_BCHW):
        raise KeyError("a fault of the network")


@pytest.mark.usefixtures("_small")
def test_an_error_of_the_network_is_raised_as_it_is():
    with pytest.raises(KeyError, match="a fault of the network"):
        predict_image(Faulty().eval(), {"em": torch.randn(1, 100, 60)}, ["semantic"])


class TwoHeads(nn.Module):
    """Heads of which one is done with rows that the other still waits for; keeps its input while it computes."""

    geometry = TileGeometry(context=4)

    def __init__(self, swapped):
        super().__init__()
        torch.manual_seed(0)
        self.far = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 2, 5, padding=2))
        self.near, self.swapped, self.seen = nn.Conv2d(1, 2, 1), swapped, None

    def forward(self, image_BCHW):
        self.seen = image_BCHW
        found = {"far": self.far(image_BCHW), "near": self.near(self.seen)}
        assert self.seen is image_BCHW
        return dict(reversed(found.items())) if self.swapped else found


@pytest.mark.usefixtures("_small", "_threads")
@pytest.mark.parametrize("_threads", [1, 2, 4], indirect=True)
@pytest.mark.parametrize("swapped", [False, True])
def test_heads_of_unlike_depth_go_together(swapped):
    images, model = {"em": torch.randn(1, 130, 117)}, TwoHeads(swapped).eval()
    ours = predict_image(model, images, ["far", "near"])
    assert model not in stream._IN_TILES
    whole = predict_image(model, images, ["far", "near"], tile=1000)
    assert ours.keys() == {"far", "near"}
    for head, map_KHW in ours.items():
        torch.testing.assert_close(map_KHW, whole[head], rtol=0, atol=1e-5)


class Changing(nn.Module):
    geometry = TileGeometry(step=4, context=4)

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, image_BCHW):
        self.calls += 1
        larger = image_BCHW + image_BCHW if self.calls < 2 else image_BCHW.flip(2)
        return torch.cat([image_BCHW, larger], 1)


@pytest.mark.usefixtures("_small", "_threads")
@pytest.mark.parametrize("_threads", [1], indirect=True)
def test_a_network_that_changes_within_an_image_is_refused():
    with pytest.raises(SegbenchError, match=r"operations change within an image: aten.flip[\s\S]*set tile="):
        predict_image(Changing().eval(), {"em": torch.randn(1, 100, 60)}, ["semantic"])


@pytest.mark.usefixtures("_small")
def test_an_image_that_cannot_be_read_is_no_reason_for_tiles(caplog):
    def read(*window):
        raise OSError("gone")

    image = stream.ReadableImage(None, (100, 60), read)
    with pytest.raises(OSError, match="gone"):
        next(stream.predict_stream(UNet(width=3, depth=2).eval(), [image], ["semantic"]))
    assert caplog.messages == []
