import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from segbench.errors import SegbenchError
from segbench.models.unet import UNet, _centre_crop, tile_geometry
from segbench.spec import TileGeometry


def convolutions(model):
    return {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    }


PAPER_LAYERS = (
    "conv_d0a_b conv_d0b_c conv_d1a_b conv_d1b_c conv_d2a_b conv_d2b_c conv_d3a_b conv_d3b_c conv_d4a_b conv_d4b_c "
    "upconv_d4c_u3a conv_u3b_c conv_u3c_d upconv_u3d_u2a conv_u2b_c conv_u2c_d upconv_u2d_u1a conv_u1b_c conv_u1c_d "
    "upconv_u1d_u0a conv_u0b_c conv_u0c_d conv_u0d_score"
).split()


def test_the_published_net_has_23_convolutions_and_31030658_parameters():
    model = UNet(in_channels=1, num_classes=2)
    assert list(convolutions(model)) == PAPER_LAYERS
    assert len(PAPER_LAYERS) == 23
    assert sum(parameter.numel() for parameter in model.parameters()) == 31_030_658


def test_the_released_net_differs_in_the_last_up_convolution_alone():
    with torch.device("meta"):
        paper, released = convolutions(UNet()), convolutions(UNet(variant="phseg_v5"))
    assert list(paper) == list(released)
    different = [name for name in paper if paper[name].weight.shape != released[name].weight.shape]
    assert different == ["upconv_u1d_u0a", "conv_u0b_c"]
    assert released["upconv_u1d_u0a"].weight.shape == (128, 128, 2, 2)
    assert released["conv_u0b_c"].weight.shape == (64, 128 + 64, 3, 3)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_names_of_other_depths_follow_the_same_pattern(depth):
    names = list(convolutions(UNet(width=2, depth=depth)))
    assert names[: 2 * depth + 2] == [f"conv_d{level}{ab}" for level in range(depth + 1) for ab in ("a_b", "b_c")]
    assert names[2 * depth + 2] == f"upconv_d{depth}c_u{depth - 1}a"
    assert names[-4:] == [
        "upconv_d1c_u0a" if depth == 1 else "upconv_u1d_u0a",
        "conv_u0b_c",
        "conv_u0c_d",
        "conv_u0d_score",
    ]


def test_weights_are_drawn_as_he_proposes():
    torch.manual_seed(0)
    for name, conv in convolutions(UNet(width=32, variant="phseg_v5")).items():
        incoming = conv.in_channels * (1 if name.startswith("up") else conv.kernel_size[0] ** 2)
        # Four standard errors of a standard deviation's and of a mean's estimate.
        deviation, count = conv.weight.std().item(), conv.weight.numel()
        assert deviation == pytest.approx(math.sqrt(2 / incoming), rel=4 / math.sqrt(2 * count)), name
        assert abs(conv.weight.mean().item()) < 4 * deviation / math.sqrt(count), name
        assert torch.count_nonzero(conv.bias) == 0


def plainly(model: UNet, image, *, padding, variant):
    """The net computed anew from its weights, layer by layer, as figure 1 shows it."""
    weights = dict(model.named_parameters())
    padded = 1 if padding == "same" else 0

    def conv(name, x):
        return F.relu(F.conv2d(x, weights[f"conv_{name}.weight"], weights[f"conv_{name}.bias"], padding=padded))

    def up(name, x):
        x = F.conv_transpose2d(x, weights[f"upconv_{name}.weight"], weights[f"upconv_{name}.bias"], stride=2)
        return F.relu(x) if variant == "phseg_v5" else x

    def join(up, skip):
        top, left = (skip.shape[2] - up.shape[2]) // 2, (skip.shape[3] - up.shape[3]) // 2
        return torch.cat([up, skip[:, :, top : top + up.shape[2], left : left + up.shape[3]]], 1)

    d0c = conv("d0b_c", conv("d0a_b", image))
    d1c = conv("d1b_c", conv("d1a_b", F.max_pool2d(d0c, 2, 2)))
    d2c = conv("d2b_c", conv("d2a_b", F.max_pool2d(d1c, 2, 2)))
    u1d = conv("u1c_d", conv("u1b_c", join(up("d2c_u1a", d2c), d1c)))
    u0d = conv("u0c_d", conv("u0b_c", join(up("u1d_u0a", u1d), d0c)))
    return F.conv2d(u0d, weights["conv_u0d_score.weight"], weights["conv_u0d_score.bias"])


@pytest.mark.parametrize("variant", ["paper", "phseg_v5"])
@pytest.mark.parametrize(("padding", "size"), [("valid", (48, 64)), ("same", (20, 32))])
@pytest.mark.parametrize("train", [False, True])
def test_the_forward_is_the_figure(variant, padding, size, train):
    # In training mode without dropout the skips are cropped another way.
    torch.manual_seed(1)
    model = UNet(3, 5, width=4, depth=2, padding=padding, variant=variant, dropout=0.0).train(train)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    image = torch.randn(2, 3, *size)
    expected = plainly(model, image, padding=padding, variant=variant)
    with torch.set_grad_enabled(train):
        torch.testing.assert_close(model(image), expected)
    if train:
        parameters = list(model.parameters())
        ours = torch.autograd.grad(model(image).square().mean(), parameters)
        theirs = torch.autograd.grad(expected.square().mean(), parameters)
        torch.testing.assert_close(ours, theirs)


def test_the_published_net_turns_572_into_388():
    assert tile_geometry() == TileGeometry(step=16, offset=60, margin=92, minimum=8, context=92)
    model = UNet(width=2).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 1, 572, 188)).shape == (1, 2, 388, 4)


@given(
    depth=st.integers(1, 4),
    padding=st.sampled_from(["valid", "same"]),
    k=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    variant=st.sampled_from(["paper", "phseg_v5"]),
    norm=st.sampled_from(["none", "batch"]),
)
@settings(deadline=None, max_examples=40)
def test_sizes_are_those_of_the_geometry(depth, padding, k, variant, norm):
    model = UNet(2, 3, width=1, depth=depth, padding=padding, variant=variant, norm=norm).eval()
    geometry = model.geometry
    height, width = (geometry.offset + geometry.step * (geometry.minimum + i) for i in k)
    with torch.inference_mode():
        logits_BKhw = model(torch.zeros(1, 2, height, width))
    assert logits_BKhw.shape == (1, 3, height - 2 * geometry.margin, width - 2 * geometry.margin)


@given(depth=st.integers(1, 6), size=st.integers(1, 1200))
def test_the_valid_sizes_are_exactly_those_that_every_pooling_halves(depth, size):
    # The rule of the paper's section 3, followed level by level: even before each pooling, and something left.
    at, sides = size, []
    for _ in range(depth):
        sides.append(at - 4)
        at = (at - 4) // 2
    bottom = at - 4
    out = bottom
    for _ in range(depth):
        out = 2 * out - 4
    possible = bottom >= 1 and out >= 1 and all(side % 2 == 0 for side in sides)
    geometry = tile_geometry(depth)
    assert geometry.is_valid(size) == possible
    if possible:
        assert geometry.output_size(size) == out


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_context_of_a_padded_net_is_the_reach_of_its_gradient(depth):
    model = UNet(width=1, depth=depth, padding="same", dropout=0.0).double()
    for module in convolutions(model).values():
        nn.init.ones_(module.weight)
    geometry = model.geometry
    size = 4 * (geometry.context // geometry.step + 2) * geometry.step
    centre = size // 2
    reach = 0
    for pixel in range(centre, centre + geometry.step):
        # Increasing input lets each pooling pass one pixel; decreasing the other: together, all four corners.
        for slope in (1e-6, -1e-6):
            image = (1 + slope * torch.arange(size * 8, dtype=torch.float64)).reshape(1, 1, 8, size)
            image = image.contiguous().requires_grad_()
            model(image)[0, 0, 4, pixel].backward()
            touched = np.flatnonzero(image.grad[0, 0].abs().sum(0).numpy())
            reach = max(reach, pixel - touched[0], touched[-1] - pixel)
    assert reach == geometry.context


@pytest.mark.parametrize(
    ("size", "message"), [(512, r"use 508 or 524 \(output 324 or 340\)"), (100, r"use 188 \(output 4\)")]
)
def test_a_wrong_size_is_refused_with_the_nearest_right_ones(size, message):
    model = UNet(width=1)
    with pytest.raises(SegbenchError, match=message):
        model(torch.zeros(1, 1, size, 572))
    with pytest.raises(SegbenchError, match=message):
        model(torch.zeros(1, 1, 572, size))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes=0"),
        ({"in_channels": 0}, "in_channels=0"),
        ({"width": 0}, "width=0"),
        ({"depth": 0}, r"model\.depth=0"),
        ({"dropout": 1.0}, r"model\.dropout=1\.0"),
        ({"padding": "reflect"}, r"model\.padding=reflect\n  expected: valid or same"),
        ({"norm": "group"}, r"model\.norm=group\n  expected: none or batch"),
        ({"variant": "2016"}, r"model\.variant=2016\n  expected: paper or phseg_v5"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(SegbenchError, match=message):
        UNet(**arguments)


def test_batch_normalisation_follows_each_3x3_convolution_and_takes_over_its_bias():
    model = UNet(width=4, depth=2, norm="batch")
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms == [f"norm_{blob}" for blob in ("d0b", "d0c", "d1b", "d1c", "d2b", "d2c", "u1c", "u1d", "u0c", "u0d")]
    for name, conv in convolutions(model).items():
        assert (conv.bias is None) == (conv.kernel_size == (3, 3)), name


def test_dropout_ends_the_contracting_path_and_the_upper_skip_carries_it():
    torch.manual_seed(0)
    model = UNet(width=4, depth=2, dropout=0.5).train()
    seen = []
    model.dropout.register_forward_hook(lambda _, inputs, output: seen.append(output))
    joined = {}
    model.conv_u1b_c.register_forward_pre_hook(lambda _, inputs: joined.update(u1b=inputs[0]))
    model(torch.rand(1, 1, 48, 48))
    d1c, d2c = seen
    assert d1c.shape[1:] == (8, 18, 18)
    assert d2c.shape[1:] == (16, 5, 5)
    # Up-sampled first, then the skip, with the zeros that dropout put into it.
    torch.testing.assert_close(joined["u1b"][:, 8:], d1c[..., 4:-4, 4:-4])
    seen.clear()
    model.eval()(torch.rand(1, 1, 48, 48))
    assert len(seen) == 2


def test_dropout_follows_the_seed():
    model = UNet(width=2, depth=1).train()
    image = torch.rand(1, 1, 20, 20)

    def drawn(seed):
        torch.manual_seed(seed)
        return model(image)

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_channels_last_goes_through_and_the_gradient_of_a_crop_keeps_it():
    model = UNet(width=8, depth=1).to(memory_format=torch.channels_last)
    image = torch.rand(2, 1, 20, 20).to(memory_format=torch.channels_last)
    assert model(image).is_contiguous(memory_format=torch.channels_last)
    skip = torch.rand(2, 8, 16, 16).to(memory_format=torch.channels_last).requires_grad_()
    _centre_crop(skip, torch.empty(2, 8, 8, 6)).sum().backward()
    assert skip.grad.is_contiguous(memory_format=torch.channels_last)
    assert skip.grad.sum() == 2 * 8 * 8 * 6
    assert skip.grad[0, 0, 4:12, 5:11].min() == 1
