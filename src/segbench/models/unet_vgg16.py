"""U-Net whose contracting path is VGG16's convolutions, so that it can start from their ImageNet weights.

The idea is TernausNet's (Iglovikov and Shvets, arXiv:1801.05746, with VGG11); the expanding path is U-Net's
(arXiv:1505.04597, figure 1).

Shape letters: B batch, C channels, K classes, H and W the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from segbench.errors import check, check_one_of
from segbench.models.layers import scaled
from segbench.models.streams import heads, inputs_by_stream, streams
from segbench.models.unet import UpPath, reach
from segbench.models.vgg16 import STAGES, VGG16
from segbench.spec import TileGeometry


class UNetVGG16(UpPath):
    """VGG16's thirteen convolutions, zero-padded by one pixel, and a U-Net's way back up from conv5_3.

    Skips are the maps before the four poolings, relu1_2 to relu4_3; pool5 and fc6 to fc8 are left out. At each level on
    the way up: a 2x2 up-convolution, its skip concatenated, and two 3x3 convolutions, all with the skip's channels.
    Trunk modules have VGG's names (`conv1_1`), the others U-Net's (`upconv_d4c_u3a`, `conv_u3b_c`; u counts levels up).

    Without loaded weights, convolutions are drawn from N(0, 2/N) as in `UNet`, and biases are zero. Given ImageNet
    weights, a one-channel image gets the sum of the three first filters, as if it were grey on all three channels.

    Args:
        in_channels: C of the image, or C by modality; several are concatenated.
        num_classes: K, or K by head.
        width: fraction of each layer's channels to build, for tests and small data.
        norm: `none`, or `batch` normalisation after the 3x3 convolutions of the way up, in place of their biases; the
            trunk's weights were trained without.
        dropout: probability after relu4_3 (also on the skip) and relu5_3, as in `UNet`.

    Attributes:
        geometry: sides are multiples of 16, and kept.
        streams: one.

    Raises:
        SegbenchError: an argument out of range.
    """

    backbone = VGG16
    unplaced = ("fc6", "fc7")
    """Backbone layers left out."""
    drawn = ("upconv_*", "conv_u*", "norm_u*")
    """Patterns of layers that the backbone lacks."""

    def __init__(
        self,
        in_channels: int | Mapping[str, int] = 3,
        num_classes: int | Mapping[str, int] = 2,
        width: float = 1.0,
        norm: Literal["none", "batch"] = "none",
        dropout: float = 0.5,
    ) -> None:
        check("model.width", width, 0 < width <= 1, "a fraction above 0, at most 1", 1.0)
        check("model.dropout", dropout, 0 <= dropout < 1, "a probability from 0 to below 1", 0.5)
        check_one_of("model.norm", norm, ("none", "batch"))
        super().__init__(padding=1, normalised=norm == "batch")
        self.streams = streams(in_channels, "early", VGG16.first)
        self.heads = heads(num_classes)
        self.geometry = TileGeometry(step=2 ** (len(STAGES) - 1), context=reach([len(names) for names, _, _ in STAGES]))
        self.dropout = nn.Dropout(dropout)

        channels = self.streams[0].channels
        skips = []
        for names, full_channels, _ in STAGES:
            for name in names:
                layer = nn.Conv2d(channels, scaled(full_channels, width), 3, padding=1)
                self.add_module(self._name(name), layer)
                channels = layer.out_channels
            skips.append(channels)
        self._add_levels(channels, skips[:-1])
        for head in self.heads.values():
            self.add_module(f"conv_u0d_score{head.suffix}", nn.Conv2d(skips[0], head.classes, 1))
        self.reset_parameters()

    def _name(self, layer: str) -> str:
        return self.streams[0].first if layer == VGG16.first else layer

    def forward(self, image: Tensor | Mapping[str, Tensor]) -> Tensor | dict[str, Tensor]:
        """Class scores of every pixel.

        Args:
            image: image_BCHW float, or one by modality, all of one size; H and W multiples of 16.

        Returns:
            logits_BKHW, or one by head where `num_classes` is by head.

        Raises:
            SegbenchError: invalid H or W, a missing modality, or wrong channels.
        """
        (down,) = inputs_by_stream(image, self.streams)
        for side in down.shape[-2:]:
            self.geometry.output_size(side)
        skips = []
        for level, (names, _, _) in enumerate(STAGES):
            if level > 0:
                down = max_pool2d(down, 2)
            for name in names:
                down = relu(self.get_submodule(self._name(name))(down), inplace=True)
            if level >= len(STAGES) - 2:
                down = self.dropout(down)
            skips.append(down)
        up = self._ascend(skips.pop(), skips)
        logits: dict[str, Tensor] = {
            name: self.get_submodule(f"conv_u0d_score{head.suffix}")(up) for name, head in self.heads.items()
        }
        return logits[""] if "" in logits else logits
