"""BVLC GoogLeNet made fully convolutional: **a reconstruction**.

The trunk is `bvlc_googlenet` (Szegedy et al., arXiv:1409.4842, table 1), its names unchanged, '/' included. The FCN
paper says of its FCN-GoogLeNet (section 4.1) that only the final loss layer is used and the final average pooling
dropped; no definition was released. Padding, kernel and crop are therefore ours, after the authors' FCN-AlexNet: 100
pixels around the image, and a kernel of 63, which aligns exactly. Value i of inception_5b is centred on pixel
32 i - 67, its kernel in upscore on 32 i + 31: hence the offset of 98.

The receptive field of 907 in the paper's table 1 includes the dropped pooling; without it, it is 715.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from segbench.models.backbone import Backbone, Layer, Upsampling
from segbench.models.layers import lrn, max_pool, scaled

PAD = 100

# Output channels of: 1x1, 3x3_reduce, 3x3, 5x5_reduce, 5x5, pool_proj.
INCEPTIONS = {
    "inception_3a": (64, 96, 128, 16, 32, 32),
    "inception_3b": (128, 128, 192, 32, 96, 64),
    "inception_4a": (192, 96, 208, 16, 48, 64),
    "inception_4b": (160, 112, 224, 24, 64, 64),
    "inception_4c": (128, 128, 256, 24, 64, 64),
    "inception_4d": (112, 144, 288, 32, 64, 64),
    "inception_4e": (256, 160, 320, 32, 128, 128),
    "inception_5a": (256, 160, 320, 32, 128, 128),
    "inception_5b": (384, 192, 384, 48, 128, 128),
}
POOLED = ("inception_3b", "inception_4e")
"""Followed by a 3x3 pooling of stride 2."""


def build(in_channels: int, width: float) -> dict[str, nn.Module]:
    """The layers by name: 3 convolutions, and 9 inception modules of 6."""
    c64, c192 = scaled(64, width), scaled(192, width)
    layers: dict[str, nn.Module] = {
        "conv1/7x7_s2": nn.Conv2d(in_channels, c64, 7, stride=2, padding=PAD),
        "conv2/3x3_reduce": nn.Conv2d(c64, c64, 1),
        "conv2/3x3": nn.Conv2d(c64, c192, 3, padding=1),
    }
    in_channels = c192
    for name, full_channels in INCEPTIONS.items():
        one, reduce3, three, reduce5, five, pool = (scaled(c, width) for c in full_channels)
        layers |= {
            f"{name}/1x1": nn.Conv2d(in_channels, one, 1),
            f"{name}/3x3_reduce": nn.Conv2d(in_channels, reduce3, 1),
            f"{name}/3x3": nn.Conv2d(reduce3, three, 3, padding=1),
            f"{name}/5x5_reduce": nn.Conv2d(in_channels, reduce5, 1),
            f"{name}/5x5": nn.Conv2d(reduce5, five, 5, padding=2),
            f"{name}/pool_proj": nn.Conv2d(in_channels, pool, 1),
        }
        in_channels = channels(name, width)
    return layers


def run(layer: Layer, image_BCHW: Tensor, dropout: nn.Module) -> dict[str, Tensor]:
    """inception_5b, one value for 32 pixels; dropout before the scores."""

    def conv(name: str, x: Tensor) -> Tensor:
        return relu(layer(name)(x), inplace=True)

    def inception(name: str, x: Tensor) -> Tensor:
        return torch.cat(
            [
                conv(f"{name}/1x1", x),
                conv(f"{name}/3x3", conv(f"{name}/3x3_reduce", x)),
                conv(f"{name}/5x5", conv(f"{name}/5x5_reduce", x)),
                conv(f"{name}/pool_proj", max_pool(x, kernel=3, stride=1, padding=1)),
            ],
            dim=1,
        )

    x = lrn(max_pool(conv("conv1/7x7_s2", image_BCHW), kernel=3, stride=2))
    x = lrn(conv("conv2/3x3", conv("conv2/3x3_reduce", x)))
    x = max_pool(x, kernel=3, stride=2)
    for name in INCEPTIONS:
        x = inception(name, x)
        if name in POOLED:
            x = max_pool(x, kernel=3, stride=2)
    return {"inception_5b": dropout(x)}


def channels(name: str, width: float) -> int:
    """C of an inception module: the sum of its four branches."""
    one, _, three, _, five, pool = (scaled(c, width) for c in INCEPTIONS[name])
    return one + three + five + pool


GOOGLENET = Backbone(
    name="googlenet",
    first="conv1/7x7_s2",
    build=build,
    run=run,
    channels=channels,
    top="inception_5b",
    decoders={32: (Upsampling("upscore", kernel=63, stride=32, offset=98),)},
)
