"""Averages over scales: by hand, beside torch's interpolation, and independent of tiles and batches."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from segbench.errors import SegbenchError
from segbench.inference import multiscale
from segbench.inference.multiscale import SCALES, resized_by, scales_of
from segbench.inference.stream import predict_image, predict_stream
from segbench.inference.windows import ReadableImage
from segbench.models.fcn import fcn32s
from segbench.models.unet import UNet


def image(channels, height, width, seed=1):
    return {"rgb": torch.randn(channels, height, width, generator=torch.Generator().manual_seed(seed))}


def readable(key, pixels):
    def read(y0, y1, x0, x1):
        return {name: part[:, y0:y1, x0:x1].numpy() for name, part in pixels.items()}

    return ReadableImage(key, tuple(next(iter(pixels.values())).shape[-2:]), read)


class Pointwise(nn.Module):
    """Logits (v, 0) of a pixel of value v."""

    def forward(self, image_BCHW):
        return torch.cat([image_BCHW, torch.zeros_like(image_BCHW)], 1)


class TwoHeads(nn.Module):
    def forward(self, image_BCHW):
        mean = image_BCHW.mean(1, keepdim=True)
        return {"semantic": image_BCHW, "geometric": torch.cat([mean, -mean], 1)}


def small(name):
    torch.manual_seed(0)
    if name == "fcn":
        network = fcn32s(num_classes=3, width=0.02)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.2)
        return network.eval()
    return UNet(in_channels=3, num_classes=3, width=3, depth=2, padding=name).eval()


def test_scales_are_the_usual_ones_unless_others_are_set():
    assert scales_of("multiscale", None) == SCALES == (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    assert scales_of("multiscale", [1, 2]) == (1.0, 2.0)
    assert scales_of("d4", [1, 2]) == scales_of("none", None) == ()
    for bad in ([], [0.0], [1.0, -1.0], [float("nan")], [float("inf")]):
        with pytest.raises(SegbenchError, match=r"tta_scales=.*\n  expected: at least one positive number"):
            scales_of("multiscale", bad)


def test_two_scales_by_hand():
    # Halved, the four pixels become one of their mean; doubled again, all have its probability.
    value = torch.tensor([[[0.0, 1.0], [2.0, 5.0]]])
    found = predict_image(Pointwise().eval(), {"em": value}, ["s"], tta="multiscale", scales=[1.0, 0.5])["s"]
    expected = (torch.sigmoid(value[0]) + torch.sigmoid(torch.tensor(2.0))) / 2
    assert found.shape == (2, 2, 2) and found.dtype == torch.float32
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(found.sum(0), torch.ones(2, 2))


@pytest.mark.parametrize("scales", [None, [1.0], [0.5, 2.0], [0.3]])
def test_a_constant_image_is_predicted_as_at_its_own_size_by_a_pointwise_net(scales):
    value = {"em": torch.full((1, 7, 5), 0.7)}
    found = predict_image(Pointwise().eval(), value, ["s"], tta="multiscale", scales=scales)["s"]
    torch.testing.assert_close(found[0], torch.full((7, 5), 0.7).sigmoid())


def test_a_net_that_is_equivariant_to_scale_gives_the_same_at_every_scale():
    # The probability is the value itself, and bilinear interpolation keeps a ramp but for the pixels at its ends.
    class Ramp(nn.Module):
        def forward(self, image_BCHW):
            return torch.cat([image_BCHW, 1 - image_BCHW], 1).log()

    ramp = (torch.arange(24.0) + 0.5) / 24
    pixels = {"em": ramp.clamp(0.02, 0.98).expand(1, 16, 24).contiguous()}
    plain = predict_image(Ramp().eval(), pixels, ["s"])["s"]
    found = predict_image(Ramp().eval(), pixels, ["s"], tta="multiscale")["s"]
    torch.testing.assert_close(found[:, :, 2:-2], plain[:, :, 2:-2])


def mirrored_too(network, pixels):
    """The mean of an image's prediction and of its mirror image's."""
    upright, mirrored = (
        predict_image(network, {"rgb": given}, ["s"])["s"] for given in (pixels["rgb"], pixels["rgb"].flip(-1))
    )
    return (upright + mirrored.flip(-1)) / 2


@pytest.mark.parametrize("name", ["fcn", "same", "valid"])
@pytest.mark.parametrize("size", [(40, 33), (17, 64)])
def test_it_is_the_mean_that_torch_gives(name, size):
    network, pixels, scales = small(name), image(3, *size), (0.5, 0.75, 1.0, 1.3)
    found = predict_image(network, pixels, ["s"], tta="multiscale", scales=scales)["s"]
    mean = torch.zeros(3, *size)
    for scale in scales:
        sides = tuple(int(side * scale + 0.5) for side in size)
        resized = interpolate(pixels["rgb"][None], size=sides, mode="bilinear", align_corners=False)
        if name == "fcn":
            own = mirrored_too(network, {"rgb": resized[0]})
        else:
            # Of a tile the mirror image is taken, with what is mirrored beyond the border to fill it.
            own = predict_image(network, {"rgb": resized[0]}, ["s"], tta="multiscale", scales=[1.0])["s"]
        mean += interpolate(own[None], size=size, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(found, mean / 4, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.sum(0), torch.ones(size))


def test_an_input_scale_multiplies_the_scales_or_is_the_only_one():
    assert resized_by("multiscale", [0.5, 1], 2) == (1.0, 2.0)
    assert resized_by("multiscale", [0.5, 1], None) == resized_by("multiscale", [0.5, 1], 1) == (0.5, 1.0)
    assert resized_by("d4", None, 0.5) == (0.5,)
    assert resized_by("none", None, None) == resized_by("none", None, 1) == ()
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(SegbenchError, match=r"input_scale=.*\n  expected: a positive number"):
            resized_by("none", None, bad)


def test_an_input_scale_by_hand():
    # Halved, the four pixels become one of their mean.
    value = torch.tensor([[[0.0, 1.0], [2.0, 5.0]]])
    found = predict_image(Pointwise().eval(), {"em": value}, ["s"], input_scale=0.5)["s"]
    torch.testing.assert_close(found[0], torch.full((2, 2), 2.0).sigmoid())
    constant = torch.full((1, 7, 5), 0.7)
    found = predict_image(Pointwise().eval(), {"em": constant}, ["s"], input_scale=2)["s"]
    torch.testing.assert_close(found[0], constant[0].sigmoid())


@pytest.mark.parametrize("tta", ["none", "d4"])
@pytest.mark.parametrize("tile", [None, 8])
def test_an_input_scale_is_what_torch_gives(tta, tile):
    network, pixels = small("valid"), image(3, 24, 20)
    resized = interpolate(pixels["rgb"][None], size=(36, 30), mode="bilinear", align_corners=False)
    own = predict_image(network, {"rgb": resized[0]}, ["s"], tta=tta)["s"]
    expected = interpolate(own[None], size=(24, 20), mode="bilinear", align_corners=False)[0]
    found = predict_image(network, pixels, ["s"], tta=tta, input_scale=1.5, tile=tile)["s"]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_an_input_scale_of_several_scales_is_that_of_each():
    network, pixels = small("fcn"), image(3, 20, 24)
    how = {"tta": "multiscale", "scales": [0.5, 1.0]}
    found = predict_image(network, pixels, ["s"], **how, input_scale=1.5)["s"]
    assert torch.equal(found, predict_image(network, pixels, ["s"], tta="multiscale", scales=[0.75, 1.5])["s"])
    plain = predict_image(network, pixels, ["s"])["s"]
    assert torch.equal(predict_image(network, pixels, ["s"], input_scale=1)["s"], plain)


@pytest.mark.parametrize("tile", [8, 24])
def test_tiles_change_only_the_last_bits(tile):
    network, pixels = small("valid"), image(3, 40, 33)
    whole = predict_image(network, pixels, ["s"], tta="multiscale")["s"]
    tiled = predict_image(network, pixels, ["s"], tta="multiscale", tile=tile)["s"]
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_bits_do_not_depend_on_what_is_predicted_beside_an_image(batch):
    network = small("fcn")
    given = [image(3, 20, 24, seed) for seed in range(3)] + [image(3, 11, 9)]
    images = [readable(number, pixels) for number, pixels in enumerate(given)]
    stream = predict_stream(network, images, ["s"], tta="multiscale", scales=[0.5, 1.25], batch=batch)
    windows = list(stream)
    assert [(window.key, window.y, window.x) for window in windows] == [(number, 0, 0) for number in range(4)]
    for pixels, window in zip(given, windows, strict=True):
        alone = predict_image(network, pixels, ["s"], tta="multiscale", scales=[0.5, 1.25])["s"]
        assert torch.equal(window.probabilities["s"], alone)


def test_all_heads_and_the_smallest_images():
    maps = predict_image(TwoHeads().eval(), image(4, 1, 3), ["semantic", "geometric"], tta="multiscale")
    assert {head: tuple(found.shape) for head, found in maps.items()} == {"semantic": (4, 1, 3), "geometric": (2, 1, 3)}
    assert all(torch.isfinite(found).all() for found in maps.values())


@pytest.mark.parametrize(
    ("free", "what"),
    # The image at its own size and at twice it takes 3 * 4 * (100 + 400) bytes, the maps 2 * 4 * (400 + 200).
    [(5999.0, "reading it"), (6000.0, None)],
)
def test_an_image_that_memory_cannot_hold_is_refused_before_it_is_read(monkeypatch, free, what):
    monkeypatch.setattr(multiscale, "free_bytes", lambda: free)
    read = []

    def reading(*part):
        read.append(part)
        return {"rgb": np.zeros((3, part[1] - part[0], part[3] - part[2]), np.float32)}

    class First(nn.Module):
        def forward(self, image_BCHW):
            return image_BCHW[:, :2]

    stream = predict_stream(First().eval(), [ReadableImage(0, (10, 10), reading)], ["s"], tta="multiscale", scales=[2])
    if what is None:
        assert len(list(stream)) == 1
    else:
        with pytest.raises(SegbenchError, match=rf"10 x 10 pixels at other scales: {what} takes(.|\n)*tta=none"):
            list(stream)
        assert read == [(0, 1, 0, 1)]


def test_probabilities_that_memory_cannot_hold_are_refused(monkeypatch):
    # 4 classes of 4 bytes for 100 pixels, the map and two more, beside one channel of the image.
    monkeypatch.setattr(multiscale, "free_bytes", lambda: 4 * 4 * 300 - 1.0)

    class Four(nn.Module):
        def forward(self, image_BCHW):
            return image_BCHW.expand(-1, 4, -1, -1)

    with pytest.raises(SegbenchError, match=r"its probabilities takes? 0\.0 GiB"):
        predict_image(Four().eval(), image(1, 10, 10), ["s"], tta="multiscale", scales=[1.0])
