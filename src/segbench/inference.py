"""Prediction of images of any size: overlap tiles with mirrored context (U-Net paper, section 2 and figure 2).

There is one path: windows are read, predicted and yielded one at a time (`predict_windows`); `predict_image` collects
them. One tile is one forward, so no result depends on how many images or tiles travel together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segbench.errors import SegbenchError
from segbench.spec import TileGeometry
from segbench.symmetries import Symmetry, symmetries

Read = Callable[[int, int, int, int], Mapping[str, Tensor | NDArray[Any]]]
"""`read(y0, y1, x0, x1)`: the rows y0 to y1 and columns x0 to x1 of each modality, CHW, as the network takes them."""

WHOLE_PIXELS = 2**21
"""Without `tile=`, an image whose network input has at most this many pixels goes through in one piece."""

DEFAULT_TILE = 1024
"""The output side for larger ones: the context then costs 40 % of the published U-Net's work."""


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in pixels of the image.

    Attributes:
        read_from: first input pixel; negative ones and those past the end are mirrored.
        read_size: input side, valid for the network.
        start: first pixel that this tile answers for.
        stop: one past the last.
    """

    read_from: int
    read_size: int
    start: int
    stop: int


def plan(size: int, geometry: TileGeometry, tile: int | None) -> list[Span]:
    """Cut one axis into tiles that answer for each pixel exactly once.

    Tiles start at multiples of `geometry.step`, so that every pooling sees the same grid whatever the tile size: the
    published U-Net keeps 384 of its 388 output pixels. An unpadded network reads its margin around each tile, mirrored
    beyond the image, and its result does not depend on the tile size. A padded one reads `geometry.context` more on
    each side, but never beyond the image (mirrored at the end up to a valid size): zeros are padded where they would be
    padded around the whole image, so its result is that of the whole image.

    Args:
        size: pixels of the image along the axis.
        geometry: of the network.
        tile: pixels of output wanted a tile, rounded up to a multiple of `geometry.step`; None for all in one.

    Raises:
        SegbenchError: a tile below 1, or tiles asked of a padded network that does not say how far it sees.
    """
    if tile is not None and tile < 1:
        raise SegbenchError(f"tile={tile}", "a positive number of pixels", "leave tile out, or set tile=512")
    padded = geometry.margin == 0
    whole = geometry.input_for(size)
    if tile is None:
        tile = size
    if padded and geometry.context == 0 and tile < size:
        raise SegbenchError(
            f"tile={tile} for a network that does not say how far it sees (geometry.context = 0)",
            "an image in one piece, or the context by which tiles overlap",
            "leave tile out, or give the network's TileGeometry its context",
        )
    stride = _round_up(tile, geometry.step)
    around = _round_up(geometry.context, geometry.step) if padded else geometry.margin
    read_size = geometry.input_for(stride + 2 * around if padded else stride)
    if stride >= size or read_size >= whole:
        return [Span(-geometry.margin, whole, 0, size)]
    starts = range(0, size, stride)
    if padded:
        return [
            Span(max(0, min(start - around, whole - read_size)), read_size, start, min(start + stride, size))
            for start in starts
        ]
    return [Span(start - around, read_size, start, min(start + stride, size)) for start in starts]


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def mirrored(start: int, stop: int, size: int) -> NDArray[np.int64]:
    """Indices of an axis continued by mirroring at its border pixels, as often as it takes: ... 2 1 0 1 2 ...

    Args:
        start: first position, may be negative.
        stop: one past the last, may exceed `size`.
        size: pixels there are.

    Returns:
        `stop - start` indices from 0 to size - 1, as `numpy.pad(mode="reflect")` takes them.
    """
    period = max(2 * (size - 1), 1)
    folded = np.arange(start, stop) % period
    return np.minimum(folded, period - folded) if size > 1 else folded


def as_heads(output: Tensor | Mapping[str, Tensor], heads: Sequence[str]) -> dict[str, Tensor]:
    """A model's output by head.

    Args:
        output: a tensor, of a model with one head, or a mapping with one tensor a head.
        heads: the names expected.

    Raises:
        SegbenchError: a tensor for several heads, or a mapping that lacks one.
    """
    if isinstance(output, Tensor):
        if len(heads) == 1:
            return {heads[0]: output}
        found = "one tensor"
    else:
        if all(head in output for head in heads):
            return {head: output[head] for head in heads}
        found = f"outputs for {', '.join(output) or 'no head'}"
    raise SegbenchError(
        f"the model gives {found}",
        f"one output for each head of the data set: {', '.join(heads)}",
        "choose a model with these heads (model=...), or data with the model's",
    )


def geometry_of(model: nn.Module) -> TileGeometry:
    """The input sizes a model takes; any, and as large an output, for a model that does not say."""
    for candidate in (model, getattr(model, "module", None)):
        geometry = getattr(candidate, "geometry", None)
        if isinstance(geometry, TileGeometry):
            return geometry
    return TileGeometry()


def predict_image(
    model: nn.Module,
    images: Mapping[str, Tensor],
    heads: Sequence[str],
    *,
    tile: int | None = None,
    tta: str = "none",
    channels_last: bool = False,
) -> dict[str, Tensor]:
    """Class probabilities of every pixel of an image.

    Args:
        model: in eval mode; takes BCHW, or a mapping of them where there are several modalities.
        images: CHW float by modality, all of one size, as the network takes them (normalised).
        heads: the names of the model's heads.
        tile: output side of a tile in pixels; None lets the image through in one piece up to `WHOLE_PIXELS`.
        tta: the symmetries averaged over, see `segbench.symmetries`.
        channels_last: hand the network its input in this memory format.

    Returns:
        KHW float32 by head, summing to 1 over K, on the model's device.

    Raises:
        SegbenchError: see `predict_windows`.
    """
    height, width = next(iter(images.values())).shape[-2:]

    def read(y0: int, y1: int, x0: int, x1: int) -> Mapping[str, Tensor]:
        return {name: image_CHW[:, y0:y1, x0:x1] for name, image_CHW in images.items()}

    whole: dict[str, Tensor] = {}
    for y, x, window in predict_windows(
        model, read, (height, width), heads, tile=tile, tta=tta, channels_last=channels_last
    ):
        for head, probabilities_Khw in window.items():
            if head not in whole:
                whole[head] = probabilities_Khw.new_empty(probabilities_Khw.shape[0], height, width)
            h, w = probabilities_Khw.shape[-2:]
            whole[head][:, y : y + h, x : x + w] = probabilities_Khw
    return whole


def predict_windows(
    model: nn.Module,
    read: Read,
    size: tuple[int, int],
    heads: Sequence[str],
    *,
    tile: int | None = None,
    tta: str = "none",
    channels_last: bool = False,
) -> Iterator[tuple[int, int, dict[str, Tensor]]]:
    """Class probabilities window by window; memory is bounded by the tile, not by the image.

    Args:
        model: as in `predict_image`.
        read: gives a part of the image; asked for no more than a tile with its context.
        size: (H, W) of the image.
        heads: the names of the model's heads.
        tile: as in `predict_image`.
        tta: as in `predict_image`.
        channels_last: as in `predict_image`.

    Yields:
        (y, x, {head: Khw float32}): the window whose upper left pixel is (y, x); windows cover every pixel once, row
        by row.

    Raises:
        SegbenchError: the model is in training mode; tta or tile is wrong; the model's output contradicts its heads or
            its geometry; memory does not suffice for a tile.
    """
    if model.training:
        raise SegbenchError("prediction by a model in training mode", "eval mode", "call model.eval() before")
    transforms = symmetries(tta)
    geometry = geometry_of(model)
    rows, columns = _tiles(size, geometry, tile)
    parameter = next(model.parameters(), None)
    for row in rows:
        for column in columns:
            tile_images = _read_mirrored(read, row, column, size)
            if parameter is not None:
                tile_images = {name: image.to(parameter.device) for name, image in tile_images.items()}
            try:
                window = _predict_tile(model, tile_images, heads, geometry, transforms, channels_last)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                half = max(1, min(row.stop - row.start, column.stop - column.start) // 2)
                raise SegbenchError(
                    f"no memory for a tile of {row.read_size} x {column.read_size} pixels",
                    "a tile that the network's feature maps fit into memory with",
                    f"set a smaller tile=, say tile={half}",
                ) from error
            top, left = row.start - row.read_from - geometry.margin, column.start - column.read_from - geometry.margin
            h, w = row.stop - row.start, column.stop - column.start
            yield (
                row.start,
                column.start,
                {head: maps_KHW[:, top : top + h, left : left + w] for head, maps_KHW in window.items()},
            )


def _tiles(size: tuple[int, int], geometry: TileGeometry, tile: int | None) -> tuple[list[Span], list[Span]]:
    height, width = size
    if tile is None and (geometry.margin or geometry.context):
        pixels = geometry.input_for(height) * geometry.input_for(width)
        tile = DEFAULT_TILE if pixels > WHOLE_PIXELS else None
    return plan(height, geometry, tile), plan(width, geometry, tile)


def _read_mirrored(read: Read, row: Span, column: Span, size: tuple[int, int]) -> dict[str, Tensor]:
    ys = mirrored(row.read_from, row.read_from + row.read_size, size[0])
    xs = mirrored(column.read_from, column.read_from + column.read_size, size[1])
    y0, x0 = int(ys.min()), int(xs.min())
    part = read(y0, int(ys.max()) + 1, x0, int(xs.max()) + 1)

    def continued(part_CHW: Tensor | NDArray[Any]) -> Tensor:
        tensor = torch.as_tensor(part_CHW)
        for dim, positions in ((-2, ys - y0), (-1, xs - x0)):
            if len(positions) != tensor.shape[dim] or np.any(np.diff(positions) != 1):
                tensor = tensor.index_select(dim, torch.from_numpy(positions).to(tensor.device))
        return tensor

    return {name: continued(part_CHW) for name, part_CHW in part.items()}


@torch.inference_mode()
def _predict_tile(
    model: nn.Module,
    images: Mapping[str, Tensor],
    heads: Sequence[str],
    geometry: TileGeometry,
    transforms: Sequence[Symmetry],
    channels_last: bool,
) -> dict[str, Tensor]:
    """Probabilities KHW of one tile, averaged over the symmetries in float32."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    mean: dict[str, Tensor] = {}
    for symmetry in transforms:
        batch = {
            name: symmetry.apply(image_CHW)[None].contiguous(memory_format=memory_format)
            for name, image_CHW in images.items()
        }
        output = model(next(iter(batch.values())) if len(batch) == 1 else batch)
        for head, logits_BKHW in as_heads(output, heads).items():
            probabilities_KHW = symmetry.undo(logits_BKHW[0].float().softmax(dim=0))
            _check_size(probabilities_KHW, images, geometry)
            mean[head] = mean[head].add_(probabilities_KHW) if head in mean else probabilities_KHW
    return {head: total_KHW.div_(len(transforms)) for head, total_KHW in mean.items()}


def _check_size(maps_KHW: Tensor, images: Mapping[str, Tensor], geometry: TileGeometry) -> None:
    given = next(iter(images.values())).shape[-2:]
    expected = tuple(side - 2 * geometry.margin for side in given)
    if tuple(maps_KHW.shape[-2:]) != expected:
        raise SegbenchError(
            f"the network makes {tuple(maps_KHW.shape[-2:])} of an input of {tuple(given)} pixels",
            f"{expected}, as its geometry says",
            "correct the geometry attribute of the model (segbench.spec.TileGeometry)",
        )


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an error tells of memory; the CPU's allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)
