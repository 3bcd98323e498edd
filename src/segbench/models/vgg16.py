"""VGG16 (Simonyan and Zisserman, arXiv:1409.1556, table 1, D) made fully convolutional, as the FCN authors released it.

Layers and offsets are those of `voc-fcn32s`, `voc-fcn16s` and `voc-fcn8s` in shelhamer/fcn.berkeleyvision.org.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import conv2d, relu

from segbench.models.backbone import Backbone, Layer, Upsampling
from segbench.models.frame import Framed
from segbench.models.layers import MatrixConv2d, max_pool, plain_on_cpu, scaled

# 3x3 convolutions, their channels, and the 2x2 pooling that follows.
STAGES = (
    (("conv1_1", "conv1_2"), 64, "pool1"),
    (("conv2_1", "conv2_2"), 128, "pool2"),
    (("conv3_1", "conv3_2", "conv3_3"), 256, "pool3"),
    (("conv4_1", "conv4_2", "conv4_3"), 512, "pool4"),
    (("conv5_1", "conv5_2", "conv5_3"), 512, "pool5"),
)
FC_CHANNELS = 4096

# With 100 zeros around it, even a one-pixel image fills fc6's 7x7 window at stride 32.
PAD = 100


def build(in_channels: int, width: float) -> dict[str, nn.Module]:
    """The layers by name: 13 convolutions, and fc6 and fc7 as convolutions of 7x7 and 1x1."""
    layers: dict[str, nn.Module] = {}
    for names, full_channels, _ in STAGES:
        for name in names:
            out_channels = scaled(full_channels, width)
            layers[name] = nn.Conv2d(in_channels, out_channels, 3, padding=1 if layers else PAD)
            in_channels = out_channels
    fc_channels = scaled(FC_CHANNELS, width)
    layers["fc6"] = MatrixConv2d(in_channels, fc_channels, 7)
    layers["fc7"] = MatrixConv2d(fc_channels, fc_channels, 1)
    return layers


# Of these stages a prediction computes what is near the image. After them it has reached nearly everything.
FRAMED = 3


def run(layer: Layer, image_BCHW: Tensor, dropout: nn.Module) -> dict[str, Tensor]:
    """The pooled maps and fc7: H pixels a side give a pool5 of m = ceil((H + 198) / 32) and an fc7 of m - 6."""
    maps = {}
    x, unframed = image_BCHW, 0
    if plain_on_cpu(image_BCHW):
        # conv1_1 has the last row of zeros itself.
        framed = Framed(image_BCHW, PAD - 1, FRAMED)
        for names, _, pool in STAGES[:FRAMED]:
            framed.stage(partial(_convolved, [layer(name) for name in names], padding=1), len(names), _pooled)
            maps[pool] = framed.map_BCHW
        x, unframed = framed.map_BCHW, FRAMED
    for names, _, pool in STAGES[unframed:]:
        x = maps[pool] = _pooled(_convolved([layer(name) for name in names], x))
    for name in ("fc6", "fc7"):
        x = dropout(relu(layer(name)(x), inplace=True))
    maps["fc7"] = x
    return maps


def _convolved(layers: Sequence[Callable[[Tensor], Tensor]], x: Tensor, padding: int | None = None) -> Tensor:
    """Without the last relu; `padding` in place of the first layer's own."""
    first: Any = layers[0]
    x = first(x) if padding is None else conv2d(x, first.weight, first.bias, padding=padding)
    for each in layers[1:]:
        x = each(relu(x, inplace=True))
    return x


def _pooled(x: Tensor) -> Tensor:
    # The largest value is the same before and after relu, which has a quarter as much to do after it.
    return relu(max_pool(x, kernel=2, stride=2), inplace=True)


def channels(name: str, width: float) -> int:
    """C of a map that is scored."""
    return scaled({"fc7": FC_CHANNELS, "pool4": 512, "pool3": 256}[name], width)


VGG16 = Backbone(
    name="vgg16",
    first="conv1_1",
    build=build,
    run=run,
    channels=channels,
    top="fc7",
    decoders={
        32: (Upsampling("upscore", kernel=64, stride=32, offset=19),),
        16: (
            Upsampling("upscore2", kernel=4, stride=2, offset=5, skip="pool4"),
            Upsampling("upscore16", kernel=32, stride=16, offset=27),
        ),
        8: (
            Upsampling("upscore2", kernel=4, stride=2, offset=5, skip="pool4"),
            Upsampling("upscore_pool4", kernel=4, stride=2, offset=9, skip="pool3"),
            Upsampling("upscore8", kernel=16, stride=8, offset=31),
        ),
    },
)

_POOL4, _POOL3, _LAST = VGG16.decoders[8]
AT_ONCE = (replace(_POOL4, skip_scale=0.01), replace(_POOL3, skip_scale=0.0001), _LAST)
"""FCN-8s trained in one stage: skips are scaled down to the size of fc7's scores (`voc-fcn8s-atonce`)."""
