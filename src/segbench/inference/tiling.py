"""Where overlap tiles lie: each axis is cut separately, and mirrored beyond its ends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.errors import SegbenchError, check
from segbench.spec import TileGeometry


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in pixels of the image.

    Attributes:
        read_from: first input pixel; negative positions and those past the end are mirrored.
        read_size: input side, valid for the network.
        start: first output pixel that this tile provides.
        stop: one past the last.
        fade_in: the first of these pixels that the tile before provides too.
        fade_out: the last of them that the tile after provides too.
    """

    read_from: int
    read_size: int
    start: int
    stop: int
    fade_in: int = 0
    fade_out: int = 0

    def answer(self, margin: int) -> slice:
        """Where the pixels it provides are in the network's output."""
        first = self.start - self.read_from - margin
        return slice(first, first + self.stop - self.start)

    def weights(self) -> NDArray[np.float32]:
        """Of each pixel it provides, float32 in 0 to 1; those of all tiles sum to 1 at every pixel."""
        weights_L = np.ones(self.stop - self.start, np.float32)
        for count, along in ((self.fade_in, weights_L), (self.fade_out, weights_L[::-1])):
            along[:count] = (np.arange(count, dtype=np.float32) + 0.5) / max(count, 1)
        return weights_L


def plan(size: int, geometry: TileGeometry, tile: int | None = None, alike: bool = True) -> list[Span]:
    """Cut one axis into tiles of nearly equal size that provide each pixel exactly once.

    Tiles start at multiples of `geometry.step`, so every pooling sees the same grid for any tile size (of the 388
    output pixels of the published U-Net, 384 are kept). An unpadded network reads its margin around each tile, mirrored
    beyond the image, and its result does not depend on the tile size. A padded one reads `geometry.context` more on
    each side, but nothing beyond the image except to fill up to a valid size: zeros are padded where they would be
    around the whole image, so the result is that of the whole image.

    Args:
        size: pixels of the image along the axis.
        geometry: of the network.
        tile: the most output pixels per tile, rounded down to a multiple of `geometry.step` (at least one); None: the
            whole axis.
        alike: of a padded network, the first and the last tile read as much as the others, so that a batch may have
            them all; or no more than they need.

    Raises:
        SegbenchError: a tile below 1, or tiles for a padded network without a context.
    """
    check("tile", tile, tile is None or tile >= 1, "a positive number of pixels", 512)
    whole = [Span(-geometry.margin, geometry.input_for(size), 0, size)]
    if tile is None or tile >= size:
        return whole
    padded = geometry.margin == 0
    if padded and geometry.context == 0:
        raise SegbenchError(
            f"tile={tile} for a network of unknown receptive field (geometry.context = 0)",
            "an image in one piece, or a context by which tiles overlap",
            "leave tile out, or set context of the network's TileGeometry",
        )
    step = geometry.step
    count = -(-size // max(tile // step * step, step))
    stride = _round_up(-(-size // count), step)
    around = _round_up(geometry.context, step) if padded else geometry.margin
    read_size = geometry.input_for(stride + 2 * around if padded else stride)
    last_start = whole[0].read_size - read_size
    if last_start <= 0:
        return whole
    spans = []
    for start in range(0, size, stride):
        first, side = start - around, read_size
        if padded:
            if not alike:
                side = geometry.input_for(min(start + stride + around, whole[0].read_size) - max(first, 0))
            first = max(0, min(first, whole[0].read_size - side))
        spans.append(Span(first, side, start, min(start + stride, size)))
    return spans


def overlapping(size: int, geometry: TileGeometry, tile: int, overlap: float) -> list[Span]:
    """Cut one axis into tiles that a padded network takes without context, blended where they overlap.

    Between two tiles their weights change linearly in the middle of what both read, so at most two tiles give a pixel
    and none of it comes from a tile's border. What the network sees there is not what it sees in the whole image: the
    result is approximate.

    Args:
        size: pixels of the image along the axis.
        geometry: of the network.
        tile: the input side in pixels, rounded up to a valid one.
        overlap: the least share of a tile's side that the next one reads too, above 0 and at most 0.5.

    Raises:
        SegbenchError: a network without padding, whose tiles are exact and have no output in common, or another
            overlap.
    """
    check("overlap", overlap, 0 < overlap <= 0.5, "above 0 and at most 0.5", 0.25)
    if geometry.margin > 0:
        raise SegbenchError(
            f"overlap={overlap:g} for a network without padding",
            "one with padding: tiles of this one are exact already, and have no output in common",
            "leave overlap= out",
        )
    whole, side = geometry.input_for(size), geometry.input_for(max(tile, 2 * geometry.step))
    if side >= whole:
        return [Span(0, whole, 0, size)]
    # In steps, so that every pooling sees the grid of the whole image.
    steps = (whole - side) // geometry.step
    gaps = math.ceil(steps / max(int(side * (1 - overlap)) // geometry.step, 1))
    starts = [steps * place // gaps * geometry.step for place in range(gaps + 1)]
    strides = [after - before for before, after in pairwise(starts)]
    fade = min(*strides, side - max(strides), round(side * overlap))
    fades = [(before + after + side) // 2 - fade // 2 for before, after in pairwise(starts)]
    return [
        Span(start, side, first, last, fade if first else 0, fade if last < size else 0)
        for start, first, last in zip(starts, [0, *fades], [*(first + fade for first in fades), size], strict=True)
    ]


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def mirrored(start: int, stop: int, size: int) -> NDArray[np.int64]:
    """Indices of an axis mirrored at its border pixels as often as needed: ... 2 1 0 1 2 ...

    Args:
        start: first position, may be negative.
        stop: one past the last, may exceed `size`.
        size: of the axis.

    Returns:
        `stop - start` indices from 0 to size - 1, those of `numpy.pad(mode="reflect")`.
    """
    period = max(2 * (size - 1), 1)
    folded: NDArray[Any] = np.arange(start, stop) % period
    return np.minimum(folded, period - folded) if size > 1 else folded
