"""ResNet-50 and 101 (He and others, arXiv:1512.03385, table 1) with maps at an eighth of the image, as torchvision's.

As in its segmentation networks, the stride of a block lies in its 3x3 convolution, and the last two stages are dilated
in place of their strides. Modules have torchvision's names, so that its weights map one to one.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from segbench.models.layers import scaled

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Blocks by stage."""
STRIDE = 8
EXPANSION = 4
"""Channels that leave a block over those of its 3x3 convolution."""


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3 and 1x1, each normalised, added to the block's input.

    Args:
        in_channels: C of the input.
        channels: of the 3x3 convolution; the block gives `EXPANSION` times as many.
        stride: of the 3x3 convolution.
        dilation: of the 3x3 convolution.
        projected: the input is brought to the output's size and channels by a 1x1 convolution.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, dilation: int, projected: bool) -> None:
        super().__init__()
        out_channels = EXPANSION * channels
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = (
            nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))
            if projected
            else None
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """BCHW to BChw, h = ceil(H / stride)."""
        x = relu(self.bn1(self.conv1(x_BCHW)), inplace=True)
        x = relu(self.bn2(self.conv2(x)), inplace=True)
        kept = x_BCHW if self.downsample is None else self.downsample(x_BCHW)
        return relu(self.bn3(self.conv3(x)) + kept, inplace=True)


class ResNet(nn.Module):
    """The trunk: a 7x7 convolution, a pooling and four stages of blocks; no classification.

    Convolutions are drawn from N(0, 2 / (k k O)), O the output channels (arXiv:1502.01852, fan-out).

    Args:
        depth: 50 or 101.
        in_channels: C of the image.
        width: fraction of each layer's channels to build.

    Attributes:
        channels: of the last stage's map.
        context: pixels on each side of a map's pixel that can affect it, at most.
    """

    def __init__(self, depth: int, in_channels: int, width: float) -> None:
        super().__init__()
        channels = scaled(64, width)
        self.conv1 = nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        # The pooling after the 7x7 convolution reaches 2 pixels of its map, each 2 of the image.
        step, dilation, self.context = 4, 1, 3 + 2
        for stage, blocks in enumerate(BLOCKS[depth]):
            planes = scaled(64, width) * 2**stage
            # torchvision dilates from a stage's second block on: its first still has the dilation before it.
            stride, first = 1, dilation
            if stage == 1:
                stride = 2
            elif stage > 1:
                dilation *= 2
            layers: list[nn.Module] = []
            for block in range(blocks):
                options: dict[str, Any] = {"stride": 1, "dilation": dilation, "projected": False}
                if block == 0:
                    options = {"stride": stride, "dilation": first, "projected": True}
                layers.append(Bottleneck(channels, planes, **options))
                self.context += step * options["dilation"]
                step *= options["stride"]
                channels = EXPANSION * planes
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.channels = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """The last stage's map BChw, h = ceil(H / 8)."""
        x = relu(self.bn1(self.conv1(image_BCHW)), inplace=True)
        x = max_pool2d(x, 3, stride=2, padding=1)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return x
