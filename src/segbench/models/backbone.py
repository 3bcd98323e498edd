"""What a classification net gives an FCN: its layers, its forward pass, and how its scores return to pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

Layer = Callable[[str], Callable[[Tensor], Tensor]]
"""`layer("conv1_1")` is that layer of the current stream."""


@dataclass(frozen=True)
class Upsampling:
    """One upsampling layer of an FCN and how its output is aligned.

    Attributes:
        name: as released, e.g. `upscore2`.
        kernel: its side in pixels.
        stride: its factor.
        offset: where Caffe's Crop layer cuts: the skip's scores to the size of the upsampled ones, or, in the last
            layer, the upsampled scores to that of the image.
        skip: the map whose scores are added, e.g. `pool4`; None for the last layer.
        skip_scale: multiplies the map before it is scored.
    """

    name: str
    kernel: int
    stride: int
    offset: int
    skip: str | None = None
    skip_scale: float = 1.0


@dataclass(frozen=True)
class Backbone:
    """A classification net made fully convolutional.

    Attributes:
        name: as in `FCN(backbone=...)`.
        first: the layer that sees the image.
        build: `build(in_channels, width)` gives its layers by the authors' names.
        run: `run(layer, image_BCHW, dropout)` gives the maps that are scored, by name.
        channels: `channels(map, width)` gives the C of each of those maps.
        top: the map that score_fr scores.
        decoders: the upsampling layers by prediction stride.
    """

    name: str
    first: str
    build: Callable[[int, float], dict[str, nn.Module]]
    run: Callable[[Layer, Tensor, nn.Module], dict[str, Tensor]]
    channels: Callable[[str, float], int]
    top: str
    decoders: Mapping[int, tuple[Upsampling, ...]]
