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

from segbench.errors import SegbenchError
from segbench.spec import TileGeometry

Padding = Literal["valid", "same"]
Norm = Literal["none", "batch"]
Variant = Literal["paper", "phseg_v5"]


def tile_geometry(depth: int = 4, padding: Padding = "valid") -> TileGeometry:
    """Which input sizes a U-Net takes, and what it makes of them.

    Unpadded, a bottom map of b pixels after its two convolutions comes from an input of 2^d (b + 8) - 4 pixels (each
    level on the way down costs 4 pixels, then halves) and leads to an output of 2^d (b - 4) + 4. With k = b + 4 that is
    an input of 4 (2^d - 1) + 2^d k, smaller at the output by 6 * 2^d - 4 on each side: for d = 4, 16 k + 60 pixels, of
    which 92 are lost on each side.

    Args:
        depth: d, the number of poolings; the paper's net has 4.
        padding: of the 3x3 convolutions.

    Returns:
        The sizes; `context` is the margin of an unpadded net, and the reach of one output pixel of a padded one.

    Raises:
        SegbenchError: depth below 1, or an unknown padding.
    """
    if depth < 1:
        raise SegbenchError(f"a U-Net of depth {depth}", "at least one pooling", "set model.depth to 1 or more")
    step = 2**depth
    if _one_of("padding", padding, ("valid", "same")) == "same":
        return TileGeometry(step=step, context=reach([2] * (depth + 1)))
    margin = 6 * step - 4
    smallest_bottom = (4 * step - 4) // step + 1
    return TileGeometry(step, offset=4 * (step - 1), margin=margin, minimum=smallest_bottom + 4, context=margin)


def reach(convolutions: Sequence[int]) -> int:
    """The largest distance from which an input pixel can act on an output pixel, over all positions in the grid.

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


def _one_of(key: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise SegbenchError(f"model.{key}={value}", " or ".join(known), f"set model.{key}={known[0]}")
    return value


class UNet(nn.Module):
    """U-Net: two 3x3 convolutions a level, 2x2 pooling down, 2x2 up-convolutions up, skips cropped and concatenated.

    The paper's net (section 2, figure 1) has 23 convolutional layers and 31,030,658 parameters at one input channel
    and two classes, and turns 572x572 pixels into 388x388. Modules bear the names of the authors' released layers
    ('-' written '_'): `conv_d0a_b` makes map d0b of map d0a; d counts levels down, u levels up.

    Weights are drawn from N(0, 2/N), N the incoming nodes of one neuron (section 3): 9 C for a 3x3 convolution, C for
    a 2x2 up-convolution of stride 2, of which one tap meets each output pixel. Biases start at zero.

    Args:
        in_channels: C of the image.
        num_classes: K.
        width: channels of the first level; they double at each level down.
        depth: number of poolings.
        padding: `valid` loses a border (as published), `same` keeps the size by zeros around every map.
        norm: `none` (as published), or `batch`: batch normalisation after each 3x3 convolution, in place of its bias.
        dropout: probability at the end of the contracting path: after the last ReLU of the two deepest levels. The
            skip of the upper one carries it too, as in the authors' release.
        variant: `paper`, or `phseg_v5`, the authors' release, which differs from figure 1: a ReLU follows every
            up-convolution, and the last one has twice the channels (128).

    Attributes:
        geometry: the valid input sizes.

    Raises:
        SegbenchError: an argument outside its range.
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
        super().__init__()
        for key, value in (("in_channels", in_channels), ("num_classes", num_classes), ("width", width)):
            if value < 1:
                raise SegbenchError(f"a U-Net with {key}={value}", "at least 1", f"give {key} a positive number")
        if not 0 <= dropout < 1:
            raise SegbenchError(f"model.dropout={dropout}", "a probability from 0 to below 1", "set model.dropout=0.5")
        self.geometry = tile_geometry(depth, padding)
        self.depth = depth
        self.relu_after_up = _one_of("variant", variant, ("paper", "phseg_v5")) == "phseg_v5"
        self.normalised = _one_of("norm", norm, ("none", "batch")) == "batch"
        self.dropout = nn.Dropout(dropout)
        margin = 1 if padding == "same" else 0

        def conv3x3(name: str, out_name: str, channels: int, out_channels: int) -> None:
            conv = nn.Conv2d(channels, out_channels, 3, padding=margin, bias=not self.normalised)
            self.add_module(f"conv_{name}_{out_name[-1]}", conv)
            if self.normalised:
                self.add_module(f"norm_{out_name}", nn.BatchNorm2d(out_channels))

        channels = in_channels
        for level in range(depth + 1):
            conv3x3(f"d{level}a", f"d{level}b", channels, width * 2**level)
            conv3x3(f"d{level}b", f"d{level}c", width * 2**level, width * 2**level)
            channels = width * 2**level
        below = f"d{depth}c"
        for level in reversed(range(depth)):
            skip_channels = width * 2**level
            up_channels = 2 * width if self.relu_after_up and level == 0 else skip_channels
            self.add_module(f"upconv_{below}_u{level}a", nn.ConvTranspose2d(channels, up_channels, 2, stride=2))
            conv3x3(f"u{level}b", f"u{level}c", up_channels + skip_channels, skip_channels)
            conv3x3(f"u{level}c", f"u{level}d", skip_channels, skip_channels)
            below, channels = f"u{level}d", skip_channels
        self.conv_u0d_score = nn.Conv2d(width, num_classes, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew from N(0, 2/N), zero the biases."""
        draw(self)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Class scores of every pixel that keeps its full context.

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
        up = self.dropout(self._two_convs(f"d{self.depth}", "abc", down))
        below = f"d{self.depth}c"
        for level in reversed(range(self.depth)):
            up = self.get_submodule(f"upconv_{below}_u{level}a")(up)
            if self.relu_after_up:
                up = relu(up, inplace=True)
            up = self._two_convs(f"u{level}", "bcd", torch.cat([up, _centre_crop(skips.pop(), up)], dim=1))
            below = f"u{level}d"
        logits_BKhw: Tensor = self.conv_u0d_score(up)
        return logits_BKhw

    def _two_convs(self, level: str, letters: str, features: Tensor) -> Tensor:
        for source, target in pairwise(letters):
            features = self.get_submodule(f"conv_{level}{source}_{target}")(features)
            if self.normalised:
                features = self.get_submodule(f"norm_{level}{target}")(features)
            features = relu(features, inplace=True)
        return features


def draw(module: nn.Module) -> None:
    """Draw all convolutions anew from N(0, 2/N), N the incoming nodes of one neuron; zero their biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            # Of an up-convolution of stride 2, one tap meets each output pixel.
            taps = 1 if isinstance(layer, nn.ConvTranspose2d) else math.prod(layer.kernel_size)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / (taps * layer.in_channels)))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _centre_crop(skip_BCHW: Tensor, like_BChw: Tensor) -> Tensor:
    top, left = ((skip_BCHW.shape[dim] - like_BChw.shape[dim]) // 2 for dim in (-2, -1))
    if top == left == 0:
        return skip_BCHW
    if skip_BCHW.requires_grad:
        # The gradient of a view is laid out NCHW whatever its input; that of negative padding stays channels_last,
        # which is worth the copy: 8 % of a training step on a CPU.
        return pad(skip_BCHW, (-left, -left, -top, -top))
    return skip_BCHW[..., top:-top, left:-left]
