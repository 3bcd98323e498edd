import pytest
import torch
from torch import nn

from segbench.errors import SegbenchError
from segbench.inference import forward
from segbench.inference.forward import geometry_of
from segbench.inference.stream import predict_image, predict_stream
from segbench.inference.windows import ReadableImage
from segbench.models.unet import UNet
from segbench.spec import TileGeometry


def test_the_geometry_is_found_inside_a_wrapper():
    model = UNet(width=3, depth=2).eval()
    assert geometry_of(nn.DataParallel(model)) == model.geometry
    assert geometry_of(nn.Identity()) == TileGeometry()


class Hungry(nn.Module):
    geometry = TileGeometry(step=16, context=16)

    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, image_BCHW):
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_where_memory_ends_a_smaller_tile_is_proposed(error):
    with pytest.raises(SegbenchError, match=r"a tile of 128 x 144 pixels does not fit into memory.*[^$]*tile=48"):
        predict_image(Hungry(error).eval(), {"em": torch.randn(1, 128, 144)}, ["semantic"])


def test_another_error_passes_as_it_is():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        predict_image(
            Hungry(RuntimeError("shapes cannot be multiplied")).eval(), {"em": torch.randn(1, 64, 64)}, ["semantic"]
        )


def test_a_tile_beyond_main_memory_is_refused_before_it_is_tried(monkeypatch):
    monkeypatch.setattr(forward, "WHOLE_PIXELS", 100)
    model, images = UNet(width=3, depth=2).eval(), {"em": torch.randn(1, 200, 200)}
    forwards = []
    model.register_forward_pre_hook(lambda _, inputs: forwards.append(tuple(inputs[0].shape[-2:])))
    # Width 3 holds 3 channels in and 3 out of its widest layer, near 24 bytes for each of the 240 x 240 pixels.
    monkeypatch.setattr(forward, "free_bytes", lambda: 1e6)
    with pytest.raises(SegbenchError, match=r"a tile of 240 x 240 .* GiB needed at least[^$]*tile=100"):
        predict_image(model, images, ["semantic"], tile=200)
    assert forwards == [(44, 44)]
    monkeypatch.setattr(forward, "free_bytes", lambda: 2e6)
    predict_image(model, images, ["semantic"], tile=200)
    assert forwards[1:] == [(44, 44), (240, 240)]


def test_a_whole_image_beyond_main_memory_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr(forward, "WHOLE_PIXELS", 100)
    monkeypatch.setattr(forward, "free_bytes", lambda: 1e6)
    model = nn.Conv2d(3, 2, 1).eval()
    parts = []

    def read(*window):
        parts.append(window)
        return {"rgb": torch.zeros(3, window[1] - window[0], window[3] - window[2])}

    images = [ReadableImage(None, (300, 400), read)]
    # 5 float32 channels of 300 x 400 pixels are 2.4 MB.
    with pytest.raises(SegbenchError, match=r"a tile of 300 x 400 .* GiB needed at least[^$]*takes it whole"):
        list(predict_stream(model, images, ["semantic"]))
    assert parts == [(0, 1, 0, 1)]
    monkeypatch.setattr(forward, "free_bytes", lambda: 1e7)
    list(predict_stream(model, images, ["semantic"]))
    assert parts[-1] == (0, 300, 0, 400)


def test_a_batch_that_does_not_fit_proposes_a_smaller_one():
    model = Hungry(torch.OutOfMemoryError("CUDA out of memory"))
    model.eval()
    images = [ReadableImage(key, (32, 32), lambda *_: {"em": torch.zeros(1, 32, 32)}) for key in "abcd"]
    with pytest.raises(SegbenchError, match=r"4 tiles of 32 x 32 pixels do not fit[^$]*batch_size=, say 2"):
        list(predict_stream(model, images, ["semantic"], batch=4))
    with pytest.raises(SegbenchError, match=r"batch_size=0\n.*positive"):
        predict_stream(model, images, ["semantic"], batch=0)


class Liar(nn.Module):
    geometry = TileGeometry(margin=2, minimum=5, context=2)

    def forward(self, image_BCHW):
        return image_BCHW


def test_an_output_that_contradicts_the_geometry_is_refused():
    with pytest.raises(SegbenchError, match=r"makes \(12, 14\) of \(12, 14\) pixels\n  expected: \(8, 10\)"):
        predict_image(Liar().eval(), {"em": torch.randn(2, 8, 10)}, ["semantic"])
