import threading

import numpy as np
import pytest
import torch
from torch import nn

from segbench.errors import SegbenchError
from segbench.inference import forward, stream
from segbench.inference.in_turn import AHEAD
from segbench.inference.stream import predict_image, predict_stream
from segbench.inference.windows import ReadableImage
from segbench.models.unet import UNet
from segbench.spec import TileGeometry


def unet(**arguments):
    torch.manual_seed(0)
    return UNet(**{"width": 3, "depth": 2} | arguments).eval()


def image(*size):
    return {"em": torch.randn(*size, generator=torch.Generator().manual_seed(1))}


class Pointwise(nn.Module):
    """Logits (v, 0) of a pixel of value v: as large as the input, the same in every orientation."""

    def forward(self, image_BCHW):
        return torch.cat([image_BCHW, torch.zeros_like(image_BCHW)], 1)


class Neighbour(nn.Module):
    """Unpadded: logits (left neighbour, 0); turned, it is another."""

    geometry = TileGeometry(margin=1, minimum=3, context=1)

    def forward(self, image_BCHW):
        left = image_BCHW[..., 1:-1, :-2]
        return torch.cat([left, torch.zeros_like(left)], 1)


def test_each_pixel_gets_the_softmax_of_its_logits():
    value = torch.tensor([[[0.0, 1.0], [2.0, -1.0], [0.5, 3.0]]])
    probabilities = predict_image(Pointwise().eval(), {"em": value}, ["semantic"])["semantic"]
    assert probabilities.shape == (2, 3, 2)
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities[0], torch.sigmoid(value[0]))
    torch.testing.assert_close(probabilities.sum(0), torch.ones(3, 2))


@pytest.mark.parametrize("size", [(5, 7), (1, 4), (2, 2)])
def test_beyond_the_border_the_image_is_mirrored_as_numpy_does_it(size):
    value = image(1, *size)["em"]
    probabilities = predict_image(Neighbour().eval(), {"em": value}, ["semantic"], tile=3)["semantic"]
    mirrored = np.pad(value[0].numpy(), 1, mode="reflect")[1:-1, :-2]
    torch.testing.assert_close(probabilities[0], torch.sigmoid(torch.from_numpy(mirrored)))


@pytest.mark.parametrize("tta", ["none", "d4"])
@pytest.mark.parametrize("size", [(75, 50), (9, 130)])
@pytest.mark.parametrize(
    "arguments", [{}, {"depth": 3, "width": 2}, {"variant": "phseg_v5"}, {"norm": "batch", "padding": "same"}]
)
def test_the_result_does_not_depend_on_the_tile_size(arguments, size, tta):
    model, images = unet(**arguments), image(1, *size)
    whole = predict_image(model, images, ["semantic"], tta=tta)["semantic"]
    assert whole.shape == (2, *size)
    for tile in (1, 16, 30, 64, 5000):
        tiled = predict_image(model, images, ["semantic"], tile=tile, tta=tta)["semantic"]
        torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)


def test_an_unpadded_net_sees_the_mirrored_image_and_nothing_else():
    model, images = unet(), image(1, 36, 52)
    margin = model.geometry.margin
    padded = np.pad(images["em"].numpy(), ((0, 0), (margin, margin), (margin, margin)), mode="reflect")
    with torch.inference_mode():
        expected = model(torch.from_numpy(padded)[None])[0].softmax(0)
    # 36 + 40 and 52 + 40 are valid sides of depth 2, so one forward of the padded image gives all.
    ours = predict_image(model, images, ["semantic"])["semantic"]
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_a_padded_net_sees_the_image_as_it_is():
    model, images = unet(padding="same"), image(1, 36, 52)
    with torch.inference_mode():
        expected = model(images["em"][None])[0].softmax(0)
    torch.testing.assert_close(predict_image(model, images, ["semantic"])["semantic"], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("tta", ["rot4", "d4"])
def test_averaging_changes_nothing_for_an_equivariant_net(tta):
    images = image(1, 6, 9)
    plain = predict_image(Pointwise().eval(), images, ["semantic"])["semantic"]
    averaged = predict_image(Pointwise().eval(), images, ["semantic"], tta=tta)["semantic"]
    torch.testing.assert_close(averaged, plain)


def test_averaging_takes_the_mean_of_probabilities():
    # Turned by 0, 90, 180 and 270 degrees, the left neighbour is the left, upper, right and lower one.
    images = image(1, 6, 9)
    padded = np.pad(images["em"][0].numpy(), 1, mode="reflect")
    neighbours = [padded[1:-1, :-2], padded[1:-1, 2:], padded[:-2, 1:-1], padded[2:, 1:-1]]
    expected = np.mean([1 / (1 + np.exp(-value)) for value in neighbours], axis=0)
    averaged = predict_image(Neighbour().eval(), images, ["semantic"], tta="rot4", tile=4)["semantic"]
    np.testing.assert_allclose(averaged[0].numpy(), expected, rtol=1e-5)


def test_a_streamed_image_is_read_a_tile_at_a_time_and_predicted_alike():
    model = unet()
    pixels = image(1, 90, 130)["em"].numpy()
    largest = 0

    def read(y0, y1, x0, x1):
        nonlocal largest
        assert 0 <= y0 < y1 <= 90
        assert 0 <= x0 < x1 <= 130
        largest = max(largest, y1 - y0, x1 - x0)
        return {"em": pixels[:, y0:y1, x0:x1]}

    seen = np.zeros((90, 130), int)
    streamed = torch.zeros(2, 90, 130)
    given = [ReadableImage(None, (90, 130), read)]
    for window in predict_stream(model, given, ["semantic"], tile=32, tta="rot4"):
        part, y, x = window.probabilities["semantic"], window.y, window.x
        h, w = part.shape[-2:]
        seen[y : y + h, x : x + w] += 1
        streamed[:, y : y + h, x : x + w] = part
    assert (seen == 1).all()
    assert largest == model.geometry.input_for(32)
    assembled = predict_image(model, {"em": torch.from_numpy(pixels)}, ["semantic"], tile=32, tta="rot4")["semantic"]
    assert torch.equal(streamed, assembled)


def test_a_large_image_is_cut_without_being_asked(monkeypatch):
    monkeypatch.setattr(forward, "WHOLE_PIXELS", 100 * 100)
    monkeypatch.setattr(stream, "DEFAULT_TILE", 40)

    def tiles(model, size, tta="none"):
        return len(list(predict_stream(model, [readable("a", *size)], ["semantic"], tta=tta)))

    assert tiles(unet(), (60, 60), "rot4") == tiles(unet(), (60, 60)) == 1
    assert tiles(unet(), (61, 61), "rot4") == 4
    assert tiles(Pointwise().eval(), (200, 200)) == 1


class TwoHeads(nn.Module):
    def forward(self, images):
        depth, rgb = images["depth"], images["rgb"]
        return {"geometric": torch.cat([depth, -depth], 1), "semantic": rgb, "unused": depth}


def test_several_modalities_and_heads_go_by_name():
    images = {"rgb": image(3, 4, 5)["em"], "depth": image(1, 4, 5)["em"]}
    maps = predict_image(TwoHeads().eval(), images, ["semantic", "geometric"], tta="d4")
    assert list(maps) == ["semantic", "geometric"]
    torch.testing.assert_close(maps["semantic"], images["rgb"].softmax(0))
    torch.testing.assert_close(maps["geometric"][0], torch.sigmoid(2 * images["depth"][0]))


def test_autocast_is_the_callers_and_probabilities_are_float32():
    model, images = unet(width=8), image(1, 40, 40)
    plain = predict_image(model, images, ["semantic"])["semantic"]
    with torch.autocast("cpu", torch.bfloat16):
        cast = predict_image(model, images, ["semantic"], channels_last=True)["semantic"]
    assert cast.dtype == torch.float32
    assert not torch.equal(cast, plain)
    torch.testing.assert_close(cast, plain, rtol=0, atol=0.1)


def test_channels_last_reaches_the_network():
    formats = []
    model = unet(in_channels=3)
    model.register_forward_pre_hook(
        lambda _, inputs: formats.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    for channels_last in (False, True):
        predict_image(model, image(3, 40, 40), ["semantic"], tta="rot4", channels_last=channels_last)
    assert formats == [False] * 4 + [True] * 4


@pytest.mark.parametrize("size", [(100, 70), (20, 130), (16, 16)])
@pytest.mark.parametrize("batch", [1, 3])
def test_blended_tiles_of_a_network_that_sees_one_pixel_are_exact(size, batch):
    given = [readable("a", *size), readable("b", 40, 33)]
    model = Pointwise().eval()
    whole = {each.key: np.zeros(each.size) for each in given}
    for window in predict_stream(model, given, ["semantic"], tile=32, overlap=0.3, batch=batch):
        part = window.probabilities["semantic"][0].numpy()
        whole[window.key][window.y : window.y + part.shape[0], window.x : window.x + part.shape[1]] += part
    for each in given:
        exact = predict_image(model, image(1, *each.size), ["semantic"])
        np.testing.assert_allclose(whole[each.key], exact["semantic"][0], atol=1e-6)


def test_blended_tiles_are_close_to_the_whole_and_exact_where_they_see_all():
    model, images = unet(padding="same"), image(1, 96, 64)
    exact = predict_image(model, images, ["semantic"])["semantic"]
    blended = predict_image(model, images, ["semantic"], tile=64, overlap=0.25)["semantic"]
    torch.testing.assert_close(blended.sum(0), torch.ones(96, 64))
    # Tiles at 0 and 32; a pixel of the first is exact as far from its border as the network sees.
    alone = 40 - model.geometry.context // 4 * 4
    torch.testing.assert_close(blended[:, :alone], exact[:, :alone], rtol=0, atol=1e-5)
    assert 0 < (blended - exact).abs().max() < 0.2


def test_one_tile_is_one_forward():
    batches = []
    model = unet()
    model.register_forward_pre_hook(lambda _, inputs: batches.append(inputs[0].shape[0]))
    predict_image(model, image(1, 100, 40), ["semantic"], tile=48, tta="rot4")
    assert batches == [1] * 12


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(SegbenchError, match=r"training mode\n.*\n.*model\.eval\(\)"):
        predict_image(unet().train(), image(1, 40, 40), ["semantic"])


def test_an_empty_image_is_refused():
    with pytest.raises(SegbenchError, match="an image of 0 x 4 pixels"):
        predict_image(unet(), {"em": torch.zeros(1, 0, 4)}, ["semantic"])


def readable(key, *size):
    pixels = image(1, *size)["em"]
    return ReadableImage(key, size, lambda y0, y1, x0, x1: {"em": pixels[:, y0:y1, x0:x1]})


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_tiles_of_several_images_go_through_together_where_they_are_of_one_size(batch):
    model, batches = unet(), []
    model.register_forward_pre_hook(lambda _, inputs: batches.append(tuple(inputs[0].shape)))
    images = [readable("a", 40, 40), readable("b", 40, 40), readable("c", 40, 60), readable("d", 40, 60)]
    found = {}
    for window in predict_stream(model, images, ["semantic"], tile=40, tta="rot4", batch=batch):
        found[window.key, window.y, window.x] = window.probabilities["semantic"]
    # The wider ones are cut into two tiles of 32 and 28, for which 72 are read.
    assert list(found) == [("a", 0, 0), ("b", 0, 0), ("c", 0, 0), ("c", 0, 32), ("d", 0, 0), ("d", 0, 32)]
    expected = {1: [1, 1, 1, 1, 1, 1], 3: [2, 3, 1], 100: [2, 4]}[batch]
    assert [shape[0] for shape in batches] == [count for count in expected for _ in range(4)]
    for each in images:
        pixels = {"em": each.read(0, each.size[0], 0, each.size[1])["em"]}
        alone = predict_image(model, pixels, ["semantic"], tile=40, tta="rot4")["semantic"]
        for (key, y, x), window in found.items():
            if key == each.key:
                h, w = window.shape[-2:]
                torch.testing.assert_close(window, alone[:, y : y + h, x : x + w], rtol=0, atol=1e-6)


def on_two_devices(model, images, **arguments):
    devices = [torch.device("cpu")] * 2
    return predict_stream(model, images, ["semantic"], devices=devices, **arguments)


class Traced(nn.Module):
    """Where and how each tile is computed."""

    geometry = TileGeometry(step=4, context=4)

    def __init__(self, calls):
        super().__init__()
        self.calls = calls
        self.layer = nn.Conv2d(1, 2, 1)

    def __deepcopy__(self, memo):
        return Traced(self.calls).eval()

    def forward(self, image_BCHW):
        self.calls.append((id(self), threading.get_ident(), torch.is_autocast_enabled("cpu")))
        return torch.cat([image_BCHW, -image_BCHW], 1) + 0 * self.layer(image_BCHW)


def test_tiles_go_to_the_devices_in_turn_and_come_back_in_order():
    calls = []
    images = [readable("a", 40, 40), readable("b", 20, 60)]
    with torch.autocast("cpu", torch.bfloat16):
        windows = list(on_two_devices(Traced(calls).eval(), images, tile=16))
    assert [window.key for window in windows] == ["a"] * 9 + ["b"] * 4
    assert len({(model, thread) for model, thread, _ in calls}) == 2
    assert threading.get_ident() not in {thread for _, thread, _ in calls}
    assert all(cast for *_, cast in calls)
    for window in windows:
        image_CHW = next(each for each in images if each.key == window.key).read(0, 60, 0, 60)["em"]
        height, width = window.probabilities["semantic"].shape[-2:]
        part_HW = image_CHW[0, window.y : window.y + height, window.x : window.x + width]
        torch.testing.assert_close(window.probabilities["semantic"][0], torch.sigmoid(2 * part_HW), rtol=0, atol=0.01)


def test_several_devices_predict_what_one_does():
    model = unet()
    alone = list(predict_stream(model, [readable("a", 90, 70)], ["semantic"], tile=32, tta="rot4", batch=2))
    spread = list(on_two_devices(model, [readable("a", 90, 70)], tile=32, tta="rot4", batch=2))
    for one, other in zip(alone, spread, strict=True):
        assert (one.y, one.x) == (other.y, other.x)
        torch.testing.assert_close(one.probabilities, other.probabilities, rtol=0, atol=1e-6)


def test_no_more_than_a_few_batches_are_read_ahead():
    read = []

    def images():
        for key in range(20):
            read.append(key)
            yield readable(key, 40, 40)

    windows = on_two_devices(unet(), images())
    next(windows)
    assert len(read) == 2 * AHEAD + 1
    windows.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("segbench-device")]


def test_what_was_read_before_an_unreadable_image_is_predicted():
    def images():
        yield readable("a", 40, 40)
        raise OSError("unreadable")

    windows = on_two_devices(unet(), images())
    assert next(windows).key == "a"
    with pytest.raises(OSError, match="unreadable"):
        next(windows)


def test_an_error_on_a_device_is_raised():
    def ends(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model = unet()
    model.register_forward_pre_hook(ends)
    with pytest.raises(SegbenchError, match="does not fit into memory"):
        list(on_two_devices(model, [readable("a", 128, 144)]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpus_predict_what_the_cpu_does():
    model = unet().double()
    images = [readable("a", 90, 70)]
    alone = list(predict_stream(model, images, ["semantic"], tile=32))
    devices = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    spread = list(predict_stream(model.to(devices[0]), images, ["semantic"], tile=32, devices=devices))
    for one, other in zip(alone, spread, strict=True):
        torch.testing.assert_close(one.probabilities["semantic"], other.probabilities["semantic"].cpu())
