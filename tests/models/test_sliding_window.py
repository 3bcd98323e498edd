import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.errors import SegbenchError
from segbench.inference.bands import banded
from segbench.inference.forward import TilePredictor
from segbench.inference.stream import predict_image
from segbench.inference.symmetries import symmetries
from segbench.inference.windows import ReadableImage
from segbench.models import SlidingWindow
from segbench.spec import TileGeometry


def net(dtype=torch.float32, **options):
    torch.manual_seed(0)
    return SlidingWindow(**{"maps": 3, "hidden": 5} | options).eval().to(dtype)


def image(height, width, dtype=torch.float32, channels=1, batch=1):
    torch.manual_seed(1)
    return torch.randn(batch, channels, height, width, dtype=dtype)


def by_definition(model, image_BCHW):
    """A window at every pixel, each in a forward pass of its own."""
    field = model.geometry.offset + 1
    height, width = (side - field + 1 for side in image_BCHW.shape[-2:])
    rows = [
        torch.cat([model(image_BCHW[:, :, y : y + field, x : x + field]) for x in range(width)], dim=3)
        for y in range(height)
    ]
    return torch.cat(rows, dim=2)


SMALL = {"window": 15, "kernels": (2, 2)}
"""15 -> 14, 7 -> 6, 3: two poolings."""


def test_the_papers_largest_network():
    with torch.device("meta"):
        model = SlidingWindow()
    shapes = [tuple(layer.weight.shape) for layer in [*model.convolutions, model.full, model.score]]
    assert shapes == [(48, 1, 4, 4), (48, 48, 5, 5), (48, 48, 4, 4), (48, 48, 4, 4), (200, 48, 3, 3), (2, 200, 1, 1)]
    # Weights and biases: 816 + 57,648 + 36,912 + 36,912 + 86,600 + 402.
    assert sum(parameter.numel() for parameter in model.parameters()) == 219_290
    assert model.geometry == TileGeometry(step=1, offset=94, margin=47, minimum=1, context=47)
    assert model.geometry.output_size(95) == 1
    sides = [95]
    for layer in model.convolutions:
        sides += [sides[-1] - layer.kernel_size[0] + 1, (sides[-1] - layer.kernel_size[0] + 1) // 2]
    assert sides == [95, 92, 46, 42, 21, 18, 9, 6, 3]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("options", [{}, {"window": 65, "kernels": (4, 4, 5)}], ids=["95", "65"])
def test_an_image_at_once_is_a_window_at_every_pixel(options, dtype):
    model = net(dtype, **options)
    given_BCHW = image(model.field + 18, model.field + 5, dtype, batch=2)
    with torch.no_grad():
        at_once, windows = model(given_BCHW), by_definition(model, given_BCHW)
    assert at_once.shape == (2, 2, 19, 6)
    scale = float(windows.abs().max())
    assert float((at_once - windows).abs().max()) <= (1e-12 if dtype == torch.float64 else 1e-5) * max(scale, 1)


@settings(max_examples=8)
@given(
    st.integers(0, 9), st.integers(0, 9), st.integers(1, 3), st.sampled_from([((2, 2), 15), ((4,), 11), ((2, 3), 13)])
)
def test_the_two_are_equal_whatever_the_layers(more_y, more_x, channels, layers):
    kernels, window = layers
    model = net(torch.float64, window=window, kernels=kernels, in_channels=channels)
    given_BCHW = image(window + more_y, window + more_x, torch.float64, channels)
    with torch.no_grad():
        torch.testing.assert_close(model(given_BCHW), by_definition(model, given_BCHW), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "lens", [{"foveation": 1.5}, {"field": 21}, {"foveation": 2.0, "field": 25}], ids=["fovea", "sampling", "both"]
)
def test_a_network_with_a_lens_goes_through_an_image_window_by_window(lens):
    model = net(torch.float64, **SMALL, **lens)
    given_BCHW = image(model.field + 3, model.field + 7, torch.float64, batch=2)
    with torch.no_grad():
        torch.testing.assert_close(model(given_BCHW), by_definition(model, given_BCHW), rtol=0, atol=1e-12)


def test_gradients_of_dense_training_are_those_of_its_windows():
    model = net(torch.float64, **SMALL)
    given_BCHW = image(18, 17, torch.float64)
    grads = []
    for scores in (model(given_BCHW), by_definition(model, given_BCHW)):
        model.zero_grad()
        scores.square().sum().backward()
        grads.append([parameter.grad.clone() for parameter in model.parameters()])
    for dense, windows in zip(*grads, strict=True):
        torch.testing.assert_close(dense, windows)


def test_tiles_of_one_pixel_are_windows_mirrored_at_the_border():
    model = net(torch.float64, **SMALL)
    given_CHW = image(9, 8, torch.float64)[0]
    at_once = predict_image(model, {"em": given_CHW}, ["semantic"])["semantic"]
    windows = predict_image(model, {"em": given_CHW}, ["semantic"], tile=1)["semantic"]
    torch.testing.assert_close(at_once, windows, rtol=0, atol=1e-6)
    mirrored = torch.nn.functional.pad(given_CHW[None], (7, 7, 7, 7), mode="reflect")
    expected = by_definition(model, mirrored).softmax(1)[0]
    torch.testing.assert_close(windows.double(), expected, rtol=0, atol=1e-6)


def test_large_images_go_through_in_strips_of_rows():
    model = net(**SMALL)
    given_CHW = image(70, 33)[0]
    predictor = TilePredictor(model, ("semantic",), model.geometry, symmetries(), channels_last=False)
    readable = ReadableImage(None, (70, 33), lambda y0, y1, x0, x1: {"em": given_CHW[:, y0:y1, x0:x1]})
    whole = predict_image(model, {"em": given_CHW}, ["semantic"])["semantic"]
    strips = torch.zeros_like(whole)
    for part in banded(predictor, readable):
        answer = part.probabilities["semantic"]
        strips[:, part.y : part.y + answer.shape[1], part.x : part.x + answer.shape[2]] = answer
    torch.testing.assert_close(strips, whole, rtol=0, atol=1e-6)


def test_the_lens_is_the_identity_without_foveation_and_sampling():
    torch.testing.assert_close(net(**SMALL).lens(), torch.eye(15))


def test_the_lens_samples_finely_in_the_centre_and_coarsely_outside():
    lens_VF = net(**SMALL, field=29).lens()
    assert lens_VF.shape == (15, 29)
    torch.testing.assert_close(lens_VF.sum(1), torch.ones(15))
    # Where each sample lies: u + 7 (u / 7)^3.
    places = lens_VF @ torch.arange(-14.0, 15.0)
    expected = torch.tensor([u + 7 * (u / 7) ** 3 for u in range(-7, 8)])
    torch.testing.assert_close(places, expected)
    assert places[-1] == 14 and places[7] == 0


def test_the_lens_blurs_the_border_by_its_deviation_and_the_centre_not_at_all():
    lens_VF = net(window=65, kernels=(4, 4, 5), foveation=2.0).lens()
    pixels = torch.arange(-32.0, 33.0)
    assert lens_VF[32].tolist() == [float(pixel == 0) for pixel in pixels]
    # Half way the deviation is 1 pixel; the Gaussian is cut by nothing there.
    spread = float((lens_VF[48] * (pixels - 16) ** 2).sum())
    assert math.isclose(spread, 1.0, rel_tol=1e-3)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"window": 94}, "model.window=94"),
        ({"window": 95, "kernels": [4, 4]}, "a map of 43 pixels before a pooling"),
        ({"window": 65}, "model.kernels"),
        ({"maps": 0}, "model.maps=0"),
        ({"foveation": -1}, "model.foveation=-1"),
        ({"field": 93}, "model.field=93"),
        ({"field": 96}, "model.field=96"),
    ],
)
def test_settings_that_make_no_network_are_refused(options, key):
    with pytest.raises(SegbenchError, match=key):
        SlidingWindow(**options)


def test_a_setting_that_may_be_left_out_is_named_as_it_is_typed():
    with pytest.raises(SegbenchError) as raised:
        SlidingWindow(field=93)
    assert raised.value.action == "set model.field=null"


def test_an_image_smaller_than_the_window_is_refused():
    with pytest.raises(SegbenchError, match="an input side of 94 pixels"):
        net()(image(94, 95))
