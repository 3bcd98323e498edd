import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from segbench.errors import SegbenchError
from segbench.models.layers import (
    FixedUpsampling,
    LearnableUpsampling,
    MatrixConv2d,
    bilinear_kernel,
    crop,
    lrn,
    max_pool,
    scaled,
)

KERNELS_OF_THE_NETS = [(4, 2), (16, 8), (32, 16), (64, 32), (63, 32)]


def caffe_pool_1d(values, kernel, stride, padding):
    """Caffe's rule written out: the number rounds up, and a last window beyond a padded map is dropped."""
    size = len(values)
    count = math.ceil((size + 2 * padding - kernel) / stride) + 1
    if padding and (count - 1) * stride >= size + padding:
        count -= 1
    windows = [range(max(0, i * stride - padding), min(i * stride - padding + kernel, size)) for i in range(count)]
    return [max(values[j] for j in window) for window in windows]


@given(
    size=st.integers(3, 40), window=st.sampled_from([(2, 2, 0), (3, 2, 0), (3, 1, 1), (3, 2, 1)]), seed=st.integers(0)
)
@settings(deadline=None)
def test_pooling_rounds_up_as_caffe_does(size, window, seed):
    values = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    pooled = max_pool(torch.from_numpy(values).expand(1, 1, 7, size), *window)
    assert pooled[0, 0, 0].tolist() == caffe_pool_1d(values.tolist(), *window)


@pytest.mark.parametrize(("size", "pooled"), [(1, 1), (2, 1), (3, 2), (5, 3)])
def test_a_map_of_odd_size_keeps_its_last_row(size, pooled):
    assert max_pool(torch.zeros(1, 1, size, 4), 2, 2).shape == (1, 1, pooled, 2)


@pytest.mark.parametrize("size", [(6, 4), (5, 4), (4, 7)])
def test_pooling_without_gradients_has_the_same_bits(size):
    features = torch.randn(2, 3, *size).bfloat16().to(memory_format=torch.channels_last).requires_grad_()
    expected = max_pool(features, 2, 2)
    with torch.no_grad():
        pooled = max_pool(features, 2, 2)
    assert torch.equal(pooled, expected)
    assert pooled.is_contiguous(memory_format=torch.channels_last)


def test_lrn_divides_alpha_by_its_size():
    # Large values, so that 1e-4 / 5 times the sum of squares is not lost beside 1.
    x = np.random.default_rng(0).normal(0, 300, (2, 9, 3, 4)).astype(np.float32)
    expected = np.empty_like(x)
    for c in range(9):
        near = x[:, max(0, c - 2) : c + 3]
        expected[:, c] = x[:, c] / (1 + 1e-4 / 5 * (near.astype(np.float64) ** 2).sum(1)) ** 0.75
    torch.testing.assert_close(lrn(torch.from_numpy(x)), torch.from_numpy(expected))


def test_bilinear_kernels_of_even_and_odd_size():
    # k = 4: f = 2, c = 1.5; k = 3: f = 2, c = 1.
    assert bilinear_kernel(4)[1].tolist() == [0.75 * w for w in (0.25, 0.75, 0.75, 0.25)]
    assert bilinear_kernel(3).tolist() == [[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]]


@pytest.mark.parametrize(("kernel", "stride"), KERNELS_OF_THE_NETS)
def test_fixed_upsampling_is_the_dense_layer_with_bilinear_kernels_on_its_diagonal(kernel, stride):
    torch.manual_seed(0)
    layer = FixedUpsampling(3, kernel, stride)
    score = torch.randn(2, 3, 4, 5)
    dense = torch.zeros(3, 3, kernel, kernel)
    for i in range(kernel):
        for j in range(kernel):
            f = (kernel + 1) // 2
            c = f - 1 if kernel % 2 else f - 0.5
            dense[range(3), range(3), i, j] = (1 - abs(i - c) / f) * (1 - abs(j - c) / f)
    expected = F.conv_transpose2d(score, dense, stride=stride)
    torch.testing.assert_close(layer(score), expected)
    torch.testing.assert_close(layer.dense_weight(), dense)
    assert expected.shape == (2, 3, 3 * stride + kernel, 4 * stride + kernel)


@pytest.mark.parametrize(("kernel", "stride"), KERNELS_OF_THE_NETS)
def test_fixed_upsampling_keeps_what_is_constant_and_what_rises_evenly(kernel, stride):
    ramp = torch.arange(6.0).expand(1, 1, 6, 6)
    up = FixedUpsampling(1, kernel, stride)(ramp)[0, 0]
    inner = slice(kernel - stride, -(kernel - stride))
    torch.testing.assert_close(up[inner, inner].diff(dim=1), torch.full_like(up[inner, inner], 1 / stride)[:, 1:])
    torch.testing.assert_close(up[inner, inner].diff(dim=0), torch.zeros_like(up[inner, inner])[1:])


def test_fixed_upsampling_saves_nothing_and_learns_nothing():
    layer = FixedUpsampling(2, 4, 2)
    assert not layer.state_dict()
    assert not list(layer.parameters())
    assert not list(layer.buffers())
    assert repr(layer) == "FixedUpsampling(2, kernel=4, stride=2)"


def test_fixed_upsampling_is_done_in_float32_under_autocast_and_keeps_float64():
    layer = FixedUpsampling(2, 64, 32)
    score = torch.randn(1, 2, 3, 3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        up = layer(score)
    assert up.dtype == torch.float32
    assert torch.equal(up, layer(score.float()))
    assert layer(score.double()).dtype == torch.float64
    assert layer(torch.zeros(1, 2, 3, 3, device="meta")).shape == (1, 2, 128, 128)


def test_fixed_upsampling_trains_after_it_was_used_in_inference_mode():
    layer = FixedUpsampling(2, 4, 2)
    with torch.inference_mode():
        layer(torch.zeros(1, 2, 3, 3))
    score = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (score,))


def test_learnable_upsampling_starts_as_the_fixed_one():
    layer = LearnableUpsampling(3, 16, 8)
    assert {name: tuple(blob.shape) for name, blob in layer.state_dict().items()} == {"weight": (3, 3, 16, 16)}
    score = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(layer(score), FixedUpsampling(3, 16, 8)(score))
    layer(score).square().sum().backward()
    assert layer.weight.grad[0, 1].any()


def test_crop_is_refused_where_the_map_ends():
    features = torch.arange(30.0).reshape(1, 1, 5, 6)
    assert crop(features, 2, 3, 4).tolist() == features[:, :, 2:5, 2:6].tolist()
    with pytest.raises(SegbenchError, match="5x6 to be cropped at 2 to 4x4\n  expected: at least 6x6"):
        crop(features, 2, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [((64, 1.0), 64), ((64, 1 / 100), 1), ((96, 0.1), 10), ((96, 0.1, 4), 8), ((4, 0.1, 2), 2)],
)
def test_reduced_widths_are_whole_channels_in_whole_groups(arguments, expected):
    assert scaled(*arguments) == expected


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("batch", "channels", "size"), [(1, 5, (7, 7)), (2, 5, (9, 8)), (2, 1, (7, 10)), (3, 5, (20, 9))]
)
def test_values_and_gradients_are_those_of_a_convolution(layout, batch, channels, size):
    # The last size has more windows than outputs, and goes the usual way.
    torch.manual_seed(0)
    ours = MatrixConv2d(channels, 30, 7).double().to(memory_format=layout)
    theirs = nn.Conv2d(channels, 30, 7).double()
    theirs.load_state_dict(ours.state_dict())
    features = torch.randn(batch, channels, *size, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    output, expected = ours(features), theirs(features)
    torch.testing.assert_close(output, expected)
    # As in the nets, a ReLU writes into it.
    results = [
        torch.autograd.grad(out.relu_().square().sum(), [features, *conv.parameters()])
        for out, conv in ((output, ours), (expected, theirs))
    ]
    torch.testing.assert_close(*results)


def test_the_layout_is_kept():
    for layout in (torch.contiguous_format, torch.channels_last):
        conv = MatrixConv2d(4, 30, 3).to(memory_format=layout)
        output = conv(torch.randn(2, 4, 5, 6).to(memory_format=layout))
        assert output.is_contiguous(memory_format=layout)


def test_the_product_is_taken_where_windows_are_few_and_only_there(monkeypatch):
    taken = []
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: taken.append(x.shape) or x)
    conv = MatrixConv2d(2, 6, 3)
    conv(torch.zeros(1, 2, 4, 5))
    assert not taken
    conv(torch.zeros(2, 2, 4, 5))
    conv(torch.zeros(1, 2, 4, 5, device="meta"))
    assert len(taken) == 2


def test_a_map_smaller_than_the_window_is_refused_by_torch():
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        MatrixConv2d(2, 6, 3)(torch.zeros(1, 2, 2, 5))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kernel", [1, 3])
def test_its_weights_are_cast_once_in_a_region_and_as_they_are_in_the_next(layout, kernel, casts):
    conv = MatrixConv2d(4, 30, kernel).to(memory_format=layout)
    features = torch.randn(1, 4, 5, 5).to(memory_format=layout)
    with torch.no_grad():
        for _ in range(2):
            counted = casts(torch.float32, 30 * 4 * kernel**2)
            with counted, torch.autocast("cpu", torch.bfloat16):
                first, second = conv(features), conv(features)
            assert len(counted.found) == 1
            assert torch.equal(first, second)
            with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
                assert torch.equal(first, conv(features))
            conv.weight.mul_(2)
        # Other memory, and the same tensor.
        conv.double()
        torch.testing.assert_close(conv(features.double()), F.conv2d(features.double(), conv.weight, conv.bias))
