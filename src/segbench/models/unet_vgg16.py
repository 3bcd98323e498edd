"""U-Net whose contracting path is VGG16's convolutions, so that it starts from their ImageNet weights.

The idea is TernausNet's (Iglovikov and Shvets, arXiv:1801.05746, with VGG11); the expanding path is that of U-Net
(arXiv:1505.04597, figure 1).

Shape letters: B batch, C channels, K classes, H and W the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from segbench.models.checks import check, check_one_of
from segbench.models.layers import scaled
from segbench.models.streams import heads, inputs_by_stream, streams
from segbench.models.unet import draw, reach
from segbench.models.vgg16 import STAGES, VGG16
from segbench.spec import TileGeometry


class UNetVGG16(nn.Module):
    """VGG16's thirteen convolutions, zero-padded by one pixel, and a U-Net's way back up from conv5_3.

    Skips are the maps before the four poolings, relu1_2 to relu4_3; pool5 and fc6 to fc8 are left out. At each level on
    the way up: a 2x2 up-convolution, its skip concatenated, and two 3x3 convolutions, all with the skip's channels.
    Trunk modules bear VGG's names (`conv1_1`), the others U-Net's (`upconv_d4c_u3a`, `conv_u3b_c`; u counts levels up).

    Without loaded weights, convolutions are drawn from N(0, 2/N) as in `UNet`, and biases are zero. An image of one
    channel meets, from ImageNet weights, the sum of the three first filters: what grey on all three channels meets.

    Args:
        in_channels: C of the image, or C by modality; several are concatenated.
        num_classes: K, or K by head.
        width: the fraction of each layer's channels that is built, for tests and small data.
        norm: `none`, or `batch`: batch normalisation after the 3x3 convolutions of the way up, in place of their
            biases; the trunk has none, since its weights were trained without.
        dropout: probability after relu4_3 (which the skip carries too) and relu5_3, where `UNet` has it.

    Attributes:
        geometry: sides are multiples of 16, and kept.
        streams: one.

    Raises:
        SegbenchError: an argument outside its range.
    """

    backbone = VGG16
    unplaced = ("fc6", "fc7")
    """Layers of the backbone that are left out."""
    drawn = ("upconv_*", "conv_u*", "norm_u*")
    """Patterns of the layers that the backbone lacks."""

    def __init__(
        self,
        in_channels: int | Mapping[str, int] = 3,
        num_classes: int | Mapping[str, int] = 2,
        width: float = 1.0,
        norm: Literal["none", "batch"] = "none",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check("width", width, 0 < width <= 1, "a fraction above 0, at most 1", 1.0)
        check("dropout", dropout, 0 <= dropout < 1, "a probability from 0 to below 1", 0.5)
        check_one_of("norm", norm, ("none", "batch"))
        self.normalised = norm == "batch"
        self.streams = streams(in_channels, "early", VGG16.first)
        self.heads = heads(num_classes)
        self.geometry = TileGeometry(step=2 ** (len(STAGES) - 1), context=reach([len(names) for names, _, _ in STAGES]))
        self.dropout = nn.Dropout(dropout)

        (stream,) = self.streams
        channels = stream.channels
        skips = []
        for names, full_channels, _ in STAGES:
            for name in names:
                layer = nn.Conv2d(channels, scaled(full_channels, width), 3, padding=1)
                self.add_module(stream.first if name == VGG16.first else name, layer)
                channels = scaled(full_channels, width)
            skips.append(channels)
        below = f"d{len(STAGES) - 1}c"
        for level in reversed(range(len(STAGES) - 1)):
            up = skips[level]
            self.add_module(f"upconv_{below}_u{level}a", nn.ConvTranspose2d(channels, up, 2, stride=2))
            for source, target, given in (("b", "c", 2 * up), ("c", "d", up)):
                conv = nn.Conv2d(given, up, 3, padding=1, bias=not self.normalised)
                self.add_module(f"conv_u{level}{source}_{target}", conv)
                if self.normalised:
                    self.add_module(f"norm_u{level}{target}", nn.BatchNorm2d(up))
            below, channels = f"u{level}d", up
        for head in self.heads.values():
            self.add_module(f"conv_u0d_score{head.suffix}", nn.Conv2d(channels, head.classes, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew from N(0, 2/N), N the incoming nodes of one neuron; zero the biases."""
        draw(self)

    def forward(self, image: Tensor | Mapping[str, Tensor]) -> Tensor | dict[str, Tensor]:
        """Class scores of every pixel.

        Args:
            image: image_BCHW float, or one by modality, all of one size; H and W multiples of 16.

        Returns:
            logits_BKHW, or one by head where `num_classes` was given by head.

        Raises:
            SegbenchError: H or W is not valid; a missing modality, or another number of channels.
        """
        (down,) = inputs_by_stream(image, self.streams)
        for side in down.shape[-2:]:
            self.geometry.output_size(side)
        skips = []
        for level, (names, _, _) in enumerate(STAGES):
            if level > 0:
                down = max_pool2d(down, 2)
            for name in names:
                layer = self.get_submodule(self.streams[0].first if name == VGG16.first else name)
                down = relu(layer(down), inplace=True)
            if level >= len(STAGES) - 2:
                down = self.dropout(down)
            skips.append(down)
        up, below = skips.pop(), f"d{len(STAGES) - 1}c"
        for level in reversed(range(len(STAGES) - 1)):
            up = torch.cat([self.get_submodule(f"upconv_{below}_u{level}a")(up), skips.pop()], dim=1)
            for source, target in ("bc", "cd"):
                up = self.get_submodule(f"conv_u{level}{source}_{target}")(up)
                if self.normalised:
                    up = self.get_submodule(f"norm_u{level}{target}")(up)
                up = relu(up, inplace=True)
            below = f"u{level}d"
        logits: dict[str, Tensor] = {
            name: self.get_submodule(f"conv_u0d_score{head.suffix}")(up) for name, head in self.heads.items()
        }
        return logits[""] if "" in logits else logits
