import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segbench.errors import SegbenchError
from segbench.inference import bands, forward, stream
from segbench.inference.forward import TilePredictor
from segbench.inference.stream import predict_image, predict_stream
from segbench.inference.symmetries import symmetries
from segbench.inference.windows import ReadableImage
from segbench.models.unet import UNet
from segbench.spec import TileGeometry


@pytest.fixture
def _small(monkeypatch):
    monkeypatch.setattr(forward, "WHOLE_PIXELS", 40 * 40)
    for name, value in (("BAND", 48), ("STRIP_PIXELS", 900), ("WINDOW_PIXELS", 48 * 10)):
        monkeypatch.setattr(bands, name, value)


@pytest.fixture
def _threads(request, monkeypatch):
    """Of torch, each on a band of its own however much these have in common."""
    before = torch.get_num_threads()
    monkeypatch.setattr(bands, "SEAMS", 100)
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
    monkeypatch.setattr(bands, "_in_memory", lambda *_: in_memory)
    model = UNet(width=2, padding="same").eval()
    predictor = TilePredictor(model, ("semantic",), model.geometry, [], channels_last=False)
    found = bands._side_by_side(predictor, ReadableImage(None, size, lambda *_: {}))
    assert [len(group) for group in found] == groups
    assert sum((r.stop - r.start) * (c.stop - c.start) for group in found for r, c in group) == size[0] * size[1]


def test_bands_fit_into_memory(monkeypatch):
    model = UNet(width=2, padding="same").eval()
    predictor = TilePredictor(model, ("semantic",), model.geometry, symmetries("none"), channels_last=False)
    monkeypatch.setattr(bands, "STRIP_PIXELS", 1000)

    image = ReadableImage(None, (1, 1), lambda *_: {"em": torch.zeros(1, 1, 1)})

    def count(free):
        monkeypatch.setattr(bands, "free_bytes", lambda: free)
        return bands._in_memory(predictor, image)

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

    image = ReadableImage(None, (100, 60), read)
    with pytest.raises(OSError, match="gone"):
        next(predict_stream(UNet(width=3, depth=2).eval(), [image], ["semantic"]))
    assert caplog.messages == []
