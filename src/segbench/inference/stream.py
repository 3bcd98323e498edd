"""Prediction of images of any size: overlap tiles with mirrored context (U-Net paper, section 2 and figure 2).

Tiles are read, predicted and yielded in turn (`predict_stream`); `predict_image` collects those of one image. A tile is
one forward pass unless a batch is set, so no result depends on how many images or tiles are predicted together.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import cycle, groupby, islice, product
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor, nn

from segbench.errors import SegbenchError, check
from segbench.inference.bands import banded
from segbench.inference.finishing import Finishing
from segbench.inference.forward import TilePredictor, geometry_of, is_large
from segbench.inference.in_turn import Answers, in_turn
from segbench.inference.multiscale import at_scales, averaged, resized_by
from segbench.inference.rowwise import NotRowwise
from segbench.inference.symmetries import symmetries
from segbench.inference.tiling import Span, overlapping, plan
from segbench.inference.windows import ReadableImage, Window, read_mirrored

log = logging.getLogger(__name__)

DEFAULT_TILE = 1024
"""The output side for images beyond `forward.WHOLE_PIXELS`; context is then 40 % of the published U-Net's work."""

OVERLAP_TILE = 512
"""The side of tiles that are blended."""

_IN_TILES: WeakSet[nn.Module] = WeakSet()
"""Networks that do not work in strips, so that it is told once."""


def predict_image(
    model: nn.Module,
    images: Mapping[str, Tensor],
    heads: Sequence[str],
    *,
    tile: int | None = None,
    tta: str = "none",
    scales: Sequence[float] | None = None,
    input_scale: float | None = None,
    channels_last: bool = False,
    overlap: float | None = None,
    finish: Finishing | None = None,
) -> dict[str, Tensor]:
    """Class probabilities of every pixel of an image.

    Args:
        model: in eval mode; takes BCHW, or a mapping of them where there are several modalities.
        images: CHW float32 by modality, all of one size, normalised.
        heads: the names of the model's heads.
        tile: the largest output side of a tile in pixels; None: one piece up to `forward.WHOLE_PIXELS`, beyond them
            strips without overlap on a CPU, see `bands`, and else tiles of `DEFAULT_TILE`: on another device, with
            symmetries or a batch, and, told once, for a network with an operation that `rowwise` lacks. The result
            does not depend on it, see `tiling.plan`.
        tta: the symmetries averaged over, `none`, `rot4`, `d4` or `multiscale`, see `symmetries`.
        scales: those that `multiscale` averages over, see `multiscale`; None: 0.5 to 1.75.
        input_scale: the network sees images resized by this factor, see `multiscale.resized_by`; None: 1.
        channels_last: give the network its input in this memory format.
        overlap: approximate: tiles of `tile`, or `OVERLAP_TILE`, are predicted without context and blended where they
            share pixels, see `tiling.overlapping`; None: exact.
        finish: what is done with the probabilities at the end.

    Returns:
        KHW float32 by head, summing to 1 over K, on the model's device.

    Raises:
        SegbenchError: as `predict_stream`.
    """
    height, width = next(iter(images.values())).shape[-2:]

    def read(y0: int, y1: int, x0: int, x1: int) -> Mapping[str, Tensor]:
        return {name: image_CHW[:, y0:y1, x0:x1] for name, image_CHW in images.items()}

    image = ReadableImage(None, (height, width), read)
    whole: dict[str, Tensor] = {}
    how: dict[str, Any] = {"tile": tile, "tta": tta, "scales": scales, "overlap": overlap, "finish": finish}
    how |= {"input_scale": input_scale, "channels_last": channels_last}
    for window in predict_stream(model, [image], heads, **how):
        for head, probabilities_Khw in window.probabilities.items():
            if head not in whole:
                whole[head] = probabilities_Khw.new_empty(probabilities_Khw.shape[0], height, width)
            h, w = probabilities_Khw.shape[-2:]
            whole[head][:, window.y : window.y + h, window.x : window.x + w] = probabilities_Khw
    return whole


def predict_stream(
    model: nn.Module,
    images: Iterable[ReadableImage],
    heads: Sequence[str],
    *,
    tile: int | None = None,
    tta: str = "none",
    scales: Sequence[float] | None = None,
    input_scale: float | None = None,
    channels_last: bool = False,
    batch: int = 1,
    devices: Sequence[torch.device] = (),
    overlap: float | None = None,
    finish: Finishing | None = None,
) -> Iterator[Window]:
    """Class probabilities of one image after the other, window by window; at most `batch` tiles are in memory.

    On GPUs and on several devices, `in_turn.AHEAD` batches more a device are read and predicted while the caller
    writes; on a CPU of several threads, as many strips of each of the bands that a large image is divided into, see
    `bands.SEAMS`. Runs under `torch.no_grad()` and the caller's autocast; softmax is in float32.

    Args:
        model: this and what is not listed as in `predict_image`.
        images: taken one by one when needed.
        heads: the names of the model's heads.
        tile: the largest output side of a tile in pixels.
        tta: the symmetries averaged over; `multiscale` reads each image whole and gives it in one window.
        scales: those that `multiscale` averages over.
        input_scale: the factor that images are resized by; other than 1, as for `multiscale`.
        channels_last: give the network its input in this memory format.
        batch: consecutive tiles of one size, of one or several images, that are predicted together. More than 1 is
            faster on a GPU, and may change the last bits of a result.
        devices: on which copies of the model predict tiles in turn, each in a thread; the first is the model's own.
            Empty: the model alone, where it is.
        overlap: blends tiles, approximately.
        finish: what is done with the probabilities at the end; with a step across tiles a window is a whole image.

    Returns:
        An iterator of windows: those of each image cover each pixel once.

    Raises:
        SegbenchError: the model is in training mode; wrong tta, scales, batch or overlap; and, while iterating, a tile
            that is wrong or does not fit into memory, or an output that contradicts the model's heads or geometry.
    """
    if model.training:
        raise SegbenchError("prediction by a model in training mode", "eval mode", "call model.eval() first")
    check("batch_size", batch, batch >= 1, "a positive number of tiles", 1)
    models = [model, *(deepcopy(model).to(device) for device in devices[1:])]
    geometry, transforms = geometry_of(model), symmetries(tta)
    predictors = [TilePredictor(each, tuple(heads), geometry, transforms, channels_last) for each in models]
    if overlap is not None:
        tile = OVERLAP_TILE if tile is None else tile
        overlapping(1, geometry, tile, overlap)
    chosen, sizes = resized_by(tta, scales, input_scale), dict[Any, tuple[int, int]]()

    def sized() -> Iterator[ReadableImage]:
        for image in images:
            sizes[image.key] = image.size
            yield image

    given = sized() if finish is not None and finish.across else images
    if chosen:
        stream = averaged(_stream(predictors, at_scales(given, chosen), tile, batch, overlap))
    else:
        stream = _stream(predictors, given, tile, batch, overlap)
    return stream if finish is None else finish.windows(stream, sizes)


@dataclass(frozen=True)
class _Tile:
    key: Any
    row: Span
    column: Span
    images: dict[str, Tensor]
    width: int


def _stream(
    predictors: Sequence[TilePredictor],
    images: Iterable[ReadableImage],
    tile: int | None,
    batch: int,
    overlap: float | None,
) -> Iterator[Window]:
    predictor = predictors[0]
    in_one = len(predictor.transforms) == 1 and not predictor.on_gpu
    if tile is not None or batch > 1 or len(predictors) > 1 or not in_one:
        yield from _tiled(predictors, images, tile, batch, overlap)
        return
    for image in images:
        bands = predictor.model not in _IN_TILES and is_large(predictor.geometry, image)
        yield from _bands_or_tiles(predictor, image) if bands else _tiled([predictor], [image], None, 1)


def _bands_or_tiles(predictor: TilePredictor, image: ReadableImage) -> Iterator[Window]:
    """Bands, each from top to bottom; tiles where the network cannot do it, which its first strip shows."""
    begun = False
    try:
        for window in banded(predictor, image):
            begun = True
            yield window
    except NotRowwise as error:
        if begun:
            raise SegbenchError(
                f"a network whose operations change within an image: {error}",
                "the same operations for each strip of rows",
                f"set tile=, say tile={DEFAULT_TILE}",
            ) from error
        log.warning(f"large images are predicted in overlapping tiles, not in strips of rows: the network has {error}")
        _IN_TILES.add(predictor.model)
        yield from _tiled([predictor], [image], None, 1)


def _tiled(
    predictors: Sequence[TilePredictor],
    images: Iterable[ReadableImage],
    tile: int | None,
    batch: int,
    overlap: float | None = None,
) -> Iterator[Window]:
    margin = predictors[0].geometry.margin
    batches = _batches(_tiles(predictors[0], images, tile, overlap), batch)
    blended = _Blended()
    workers = [partial(_tile_maps, predictor) for predictor in predictors]
    if len(predictors) == 1 and not predictors[0].on_gpu:
        answered: Answers[list[_Tile], list[dict[str, Tensor]]] = ((tiles, workers[0](tiles)) for tiles in batches)
    else:
        answered = in_turn(workers, zip(cycle(range(len(workers))), batches), [each.device for each in predictors])
    with closing(answered):
        for tiles, all_maps in answered:
            for cut, maps in zip(tiles, all_maps, strict=True):
                inside = (slice(None), cut.row.answer(margin), cut.column.answer(margin))
                answers = {head: maps_KHW[inside] for head, maps_KHW in maps.items()}
                if overlap is None:
                    yield Window(cut.key, cut.row.start, cut.column.start, answers)
                else:
                    yield from blended.added(cut, answers)


def _tile_maps(predictor: TilePredictor, tiles: Sequence[_Tile]) -> list[dict[str, Tensor]]:
    return predictor([cut.images for cut in tiles])


class _Blended:
    """Tiles of an image added up by their weights, a row of tiles at a time."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def added(self, cut: _Tile, answers: Mapping[str, Tensor]) -> Iterator[Window]:
        """The rows that are complete with this tile; Khw by head."""
        row, column = cut.row, cut.column
        if column.start == 0:
            above = self._sums if row.fade_in else {}
            self._sums = {}
            for head, part_Khw in answers.items():
                K, height, _ = part_Khw.shape
                self._sums[head] = part_Khw.new_zeros(K, height, cut.width)
                if above:
                    self._sums[head][:, : row.fade_in] = above[head]
        weights_hw = torch.from_numpy(np.outer(row.weights(), column.weights()))
        for head, part_Khw in answers.items():
            self._sums[head][:, :, column.start : column.stop] += part_Khw * weights_hw.to(part_Khw.device)
        if column.stop == cut.width:
            complete = row.stop - row.start - row.fade_out
            given = {head: sum_Khw[:, :complete] for head, sum_Khw in self._sums.items()}
            self._sums = {head: sum_Khw[:, complete:].clone() for head, sum_Khw in self._sums.items()}
            yield Window(cut.key, row.start, 0, given)


def _tiles(
    predictor: TilePredictor, images: Iterable[ReadableImage], tile: int | None, overlap: float | None
) -> Iterator[_Tile]:
    geometry = predictor.geometry

    def cut(size: int, side: int | None) -> list[Span]:
        if overlap is None or side is None:
            return plan(size, geometry, side)
        return overlapping(size, geometry, side, overlap)

    for image in images:
        height, width = image.size
        if height < 1 or width < 1:
            raise SegbenchError(f"an image of {height} x {width} pixels", "at least one pixel", "check the image file")
        side = DEFAULT_TILE if tile is None and is_large(geometry, image) else tile
        for row, column in product(cut(height, side), cut(width, side)):
            # Before the tile is read: a whole image may be too large even for that.
            predictor.refuse_too_large(partial(image.read, 0, 1, 0, 1), (row.read_size, column.read_size))
            yield _Tile(image.key, row, column, read_mirrored(image.read, row, column, image.size), width)


def _batches(tiles: Iterable[_Tile], batch: int) -> Iterator[list[_Tile]]:
    for _, alike in groupby(tiles, lambda cut: [image_CHW.shape for image_CHW in cut.images.values()]):
        while together := list(islice(alike, batch)):
            yield together
