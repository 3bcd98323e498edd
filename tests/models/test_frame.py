from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv2d, max_pool2d, pad, relu
from torch.utils.flop_counter import FlopCounterMode

from segbench.models.fcn import FCN
from segbench.models.frame import Framed

pool = partial(max_pool2d, kernel_size=2, stride=2, ceil_mode=True)


def convolutions(weights, biases, x_BCHW):
    for weight, bias in zip(weights, biases, strict=True):
        x_BCHW = relu(conv2d(x_BCHW, weight, bias, padding=1))
    return x_BCHW


@settings(max_examples=40)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(50, 70),
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
)
def test_every_map_is_that_of_the_whole(sides, frame, reaches):
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, dtype=torch.float64, generator=generator)
    image_BCHW = draw(2, 3, *sides)
    framed, whole_BCHW = Framed(image_BCHW, frame, len(reaches)), pad(image_BCHW, [frame] * 4)
    for reach in reaches:
        channels = [whole_BCHW.shape[1], *[4] * reach]
        weights = [draw(after, before, 3, 3) for before, after in pairwise(channels)]
        stage = partial(convolutions, weights, [draw(4) for _ in range(reach)])
        framed.stage(stage, reach, pool)
        whole_BCHW = pool(stage(whole_BCHW))
        torch.testing.assert_close(framed.map_BCHW, whole_BCHW, rtol=1e-12, atol=1e-12)


def vgg16(**options):
    torch.manual_seed(1)
    model = FCN("vgg16", 8, 5, 3, width=0.05, **options).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or name.startswith("score"):
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("size", [(1, 1), (17, 40), (100, 131)])
def test_a_prediction_is_the_forward_pass_of_a_training(size):
    model = vgg16().double()
    image_BCHW = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = model(image_BCHW).detach()
    with torch.no_grad():
        torch.testing.assert_close(model(image_BCHW), expected, rtol=1e-10, atol=1e-10)


def test_it_keeps_the_order_in_memory_and_the_type_of_autocast():
    model = vgg16().to(memory_format=torch.channels_last)
    image_BCHW = torch.randn(2, 3, 40, 30).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(image_BCHW).detach()
        with torch.no_grad():
            found = model(image_BCHW)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    framed = Framed(image_BCHW, 99, 1)
    framed.stage(lambda x_BCHW: x_BCHW.bfloat16(), 0, pool)
    assert framed.map_BCHW.dtype == torch.bfloat16
    assert framed.map_BCHW.is_contiguous(memory_format=torch.channels_last)


def test_a_prediction_needs_fewer_operations():
    model, image_BCHW = vgg16(), torch.zeros(1, 3, 500, 500)

    def operations():
        with FlopCounterMode(display=False) as counter:
            model(image_BCHW)
        return counter.get_total_flops()

    whole = operations()
    with torch.no_grad():
        assert operations() < 0.85 * whole
