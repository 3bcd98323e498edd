"""U-Net (Ronneberger, Fischer, Brox: MICCAI 2015, arXiv:1505.04597), as published and as released.

Shape letters: B batch, C channels, K classes, H and W the input size, h and w the output size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad, relu

from segbench.errors import check, check_one_of
from segbench.spec import TileGeometry

Padding = Literal["valid", "same"]
Norm = Literal["none", "batch"]
Variant = Literal["paper", "phseg_v5"]


def tile_geometry(depth: int = 4, padding: Padding = "valid") -> TileGeometry:
    """Which input sizes a U-Net takes, and their output sizes.

    Unpadded, a bottom map of b pixels after its two convolutions comes from an input of 2^d (b + 8) - 4 pixels (each
    level on the way down loses 4 pixels, then halves) and leads to an output of 2^d (b - 4) + 4. With k = b + 4 the
    input has 4 (2^d - 1) + 2^d k pixels, of which the output lacks 6 * 2^d - 4 on each side: for d = 4, 16 k + 60
    pixels less 92 on each side.

    Args:
        depth: d, the number of poolings; the paper's net has 4.
        padding: of the 3x3 convolutions.

    Returns:
        The sizes; `context` is the margin of an unpadded net, or the reach of one output pixel of a padded one.

    Raises:
        SegbenchError: depth below 1, or an unknown padding.
    """
    check("model.depth", depth, depth >= 1, "at least one pooling", 4)
    check_one_of("model.padding", padding, ("valid", "same"))
    step = 2**depth
    if padding == "same":
        return TileGeometry(step=step, context=reach([2] * (depth + 1)))
    margin = 6 * step - 4
    smallest_bottom = (4 * step - 4) // step + 1
    return TileGeometry(step, offset=4 * (step - 1), margin=margin, minimum=smallest_bottom + 4, context=margin)


def reach(convolutions: Sequence[int]) -> int:
    """The largest distance at which an input pixel can affect an output pixel, over all positions in the grid.

    Args:
        convolutions: 3x3 ones on the way down, by level; two follow at each level on the way up.
    """
    *levels, bottom = convolutions
    farthest = 0
    for pixel in range(2 ** len(levels)):
        first = last = pixel
        for count in levels:
            first, last = (first - count) // 2, (last + count) // 2
        first, last = first - bottom, last + bottom
        for _ in levels:
            first, last = 2 * first - 2, 2 * last + 1 + 2
        farthest = max(farthest, pixel - first, last - pixel)
    return farthest


class UpPath(nn.Module):
    """The expanding path of U-Nets: a level is a 2x2 up-convolution, its skip concatenated, and two 3x3 convolutions.

    Args:
        padding: of the 3x3 convolutions, in pixels.
        normalised: batch normalisation after each 3x3 convolution, in place of its bias.
        wide: a ReLU follows every up-convolution, and the last one has twice the channels.
    """

    def __init__(self, padding: int, normalised: bool, wide: bool = False) -> None:
        super().__init__()
        self.padding, self.normalised, self.relu_after_up = padding, normalised, wide

    def _add_conv3x3(self, level: str, source: str, target: str, channels: int, out_channels: int) -> None:
        conv = nn.Conv2d(channels, out_channels, 3, padding=self.padding, bias=not self.normalised)
        self.add_module(f"conv_{level}{source}_{target}", conv)
        if self.normalised:
            self.add_module(f"norm_{level}{target}", nn.BatchNorm2d(out_channels))

    def _add_levels(self, channels: int, skips: Sequence[int]) -> None:
        below = f"d{len(skips)}c"
        for level in reversed(range(len(skips))):
            skip = skips[level]
            up = 2 * skip if self.relu_after_up and level == 0 else skip
            self.add_module(f"upconv_{below}_u{level}a", nn.ConvTranspose2d(channels, up, 2, stride=2))
            self._add_conv3x3(f"u{level}", "b", "c", up + skip, skip)
            self._add_conv3x3(f"u{level}", "c", "d", skip, skip)
            below, channels = f"u{level}d", skip

    def _two_convs(self, level: str, letters: str, features: Tensor) -> Tensor:
        for source, target in pairwise(letters):
            features = self.get_submodule(f"conv_{level}{source}_{target}")(features)
            if self.normalised:
                features = self.get_submodule(f"norm_{level}{target}")(features)
            features = relu(features, inplace=True)
        return features

    def _ascend(self, up: Tensor, skips: list[Tensor]) -> Tensor:
        # Empties `skips`, so that each is freed once it is used.
        below = f"d{len(skips)}c"
        for level in reversed(range(len(skips))):
            up = self.get_submodule(f"upconv_{below}_u{level}a")(up)
            if self.relu_after_up:
                up = relu(up, inplace=True)
            up = self._two_convs(f"u{level}", "bcd", torch.cat([up, _centre_crop(skips.pop(), up)], dim=1))
            below = f"u{level}d"
        return up

    def reset_parameters(self) -> None:
        """Redraw all convolutions from N(0, 2/N), N the inputs of one neuron; zero their biases."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                # Of an up-convolution of stride 2, one tap meets each output pixel.
                taps = 1 if isinstance(layer, nn.ConvTranspose2d) else math.prod(layer.kernel_size)
                nn.init.normal_(layer.weight, std=math.sqrt(2 / (taps * layer.in_channels)))
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


class UNet(UpPath):
    """U-Net: two 3x3 convolutions a level, 2x2 pooling down, 2x2 up-convolutions up, skips cropped and concatenated.

    The paper's net (section 2, figure 1) has 23 convolutional layers and 31,030,658 parameters at one input channel
    and two classes, and turns 572x572 pixels into 388x388. Modules have the names of the released layers
    ('-' written '_'): `conv_d0a_b` makes map d0b from map d0a; d counts levels down, u levels up.

    Weights are drawn from N(0, 2/N), N the inputs of one neuron (section 3): 9 C for a 3x3 convolution, C for a 2x2
    up-convolution of stride 2, of which one tap meets each output pixel. Biases start at zero.

    Args:
        in_channels: C of the image.
        num_classes: K.
        width: channels of the first level; they double at each level down.
        depth: number of poolings.
        padding: `valid` loses a border (as published), `same` keeps the size by zero padding.
        norm: `none` (as published), or `batch` normalisation after each 3x3 convolution, in place of its bias.
        dropout: probability after the last ReLU of the two deepest levels of the contracting path, the skip of the
            upper one included, as released.
        variant: `paper`, or `phseg_v5`, the release, which differs from figure 1: a ReLU follows every up-convolution,
            and the last one has twice the channels (128).

    Attributes:
        geometry: the valid input sizes.

    Raises:
        SegbenchError: an argument out of range.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 2,
        width: int = 64,
        depth: int = 4,
        padding: Padding = "valid",
        norm: Norm = "none",
        dropout: float = 0.5,
        variant: Variant = "paper",
    ) -> None:
        for key, value, usual in (
            ("in_channels", in_channels, 1),
            ("num_classes", num_classes, 2),
            ("width", width, 64),
        ):
            check(f"model.{key}", value, value >= 1, "at least 1", usual)
        check("model.dropout", dropout, 0 <= dropout < 1, "a probability from 0 to below 1", 0.5)
        check_one_of("model.variant", variant, ("paper", "phseg_v5"))
        check_one_of("model.norm", norm, ("none", "batch"))
        geometry = tile_geometry(depth, padding)
        super().__init__(int(padding == "same"), norm == "batch", wide=variant == "phseg_v5")
        self.geometry, self.depth = geometry, depth
        self.dropout = nn.Dropout(dropout)
        widths = [width * 2**level for level in range(depth + 1)]
        for level, (above, channels) in enumerate(pairwise([in_channels, *widths])):
            self._add_conv3x3(f"d{level}", "a", "b", above, channels)
            self._add_conv3x3(f"d{level}", "b", "c", channels, channels)
        self._add_levels(widths[-1], widths[:-1])
        self.conv_u0d_score = nn.Conv2d(width, num_classes, 1)
        self.reset_parameters()

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Class scores of every pixel with full context.

        Args:
            image_BCHW: float; H and W valid for `geometry`.

        Returns:
            logits_BKhw; h = H - 2 * geometry.margin, and w likewise.

        Raises:
            SegbenchError: H or W is not valid; the nearest valid sizes are named.
        """
        for side in image_BCHW.shape[-2:]:
            self.geometry.output_size(side)
        down = image_BCHW
        skips = []
        for level in range(self.depth):
            down = self._two_convs(f"d{level}", "abc", down)
            if level == self.depth - 1:
                down = self.dropout(down)
            skips.append(down)
            down = max_pool2d(down, 2)
        up = self._ascend(self.dropout(self._two_convs(f"d{self.depth}", "abc", down)), skips)
        logits_BKhw: Tensor = self.conv_u0d_score(up)
        return logits_BKhw


def _centre_crop(skip_BCHW: Tensor, like_BChw: Tensor) -> Tensor:
    top, left = ((skip_BCHW.shape[dim] - like_BChw.shape[dim]) // 2 for dim in (-2, -1))
    if top == left == 0:
        return skip_BCHW
    if skip_BCHW.requires_grad:
        # A view's gradient is always NCHW; that of negative padding stays channels_last, which is worth the copy:
        # 8 % of a training step on a CPU.
        return pad(skip_BCHW, (-left, -left, -top, -top))
    return skip_BCHW[..., top:-top, left:-left]
