"""Prediction of images of any size: overlap tiles with mirrored context (U-Net paper, section 2 and figure 2).

Tiles are read, predicted and yielded in turn (`predict_stream`); `predict_image` collects those of one image. A tile is
one forward pass unless a batch is set, so no result depends on how many images or tiles are predicted together.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import cycle, groupby, islice, product, zip_longest
from typing import Any, TypeVar
from weakref import WeakSet

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segbench.errors import SegbenchError, check
from segbench.inference.memory import extrapolated_bytes, free_bytes, least_bytes_per_pixel
from segbench.inference.outputs import as_heads
from segbench.inference.rowwise import NotRowwise, RowwiseForward
from segbench.inference.symmetries import Symmetry, symmetries
from segbench.inference.tiling import Span, mirrored, overlapping, plan
from segbench.spec import TileGeometry

log = logging.getLogger(__name__)

Read = Callable[[int, int, int, int], Mapping[str, Tensor | NDArray[Any]]]
"""`read(y0, y1, x0, x1)`: rows y0 to y1 and columns x0 to x1 (exclusive) of each modality, CHW, normalised."""

WHOLE_PIXELS = 2**21
"""Without `tile=`, an image whose network input has at most this many pixels is predicted in one piece."""

DEFAULT_TILE = 1024
"""The output side for larger ones; context is then 40 % of the published U-Net's work."""

OVERLAP_TILE = 512
"""The side of tiles that are blended."""

AHEAD = 2
"""Batches a device that are read or predicted while the caller has the one before."""

BAND = 4096
"""Columns that go through the network together from top to bottom, at most, where it works so (`rowwise`)."""

STRIP_PIXELS = 2**18
"""Of a band at a time: the feature maps of a narrow network then stay in a processor's cache."""

SEAMS = 1.125
"""How many times the pixels of one band those side by side may have: what two have in common is computed twice."""

MAPS_AT_ONCE = 8
"""Feature maps that a band has in memory at a time, in sizes of the largest layer's input and output."""

_IN_TILES: WeakSet[nn.Module] = WeakSet()
"""Networks that do not work in strips, so that it is told once."""

WINDOW_PIXELS = 2**20
"""Of a band's windows, at most: strips are collected."""


def predict_image(
    model: nn.Module,
    images: Mapping[str, Tensor],
    heads: Sequence[str],
    *,
    tile: int | None = None,
    tta: str = "none",
    channels_last: bool = False,
    overlap: float | None = None,
) -> dict[str, Tensor]:
    """Class probabilities of every pixel of an image.

    Args:
        model: in eval mode; takes BCHW, or a mapping of them where there are several modalities.
        images: CHW float32 by modality, all of one size, normalised.
        heads: the names of the model's heads.
        tile: the largest output side of a tile in pixels; None: one piece up to `WHOLE_PIXELS`, beyond them strips
            without overlap on a CPU, see `rowwise`, and else tiles of `DEFAULT_TILE`: on another device, with
            symmetries or a batch, and, told once, for a network with an operation that `rowwise` lacks. The result
            does not depend on it, see `tiling.plan`.
        tta: the symmetries averaged over, `none`, `rot4` or `d4`, see `symmetries`.
        channels_last: give the network its input in this memory format.
        overlap: approximate: tiles of `tile`, or `OVERLAP_TILE`, are predicted without context and blended where they
            share pixels, see `tiling.overlapping`; None: exact.

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
    for window in predict_stream(
        model, [image], heads, tile=tile, tta=tta, channels_last=channels_last, overlap=overlap
    ):
        for head, probabilities_Khw in window.probabilities.items():
            if head not in whole:
                whole[head] = probabilities_Khw.new_empty(probabilities_Khw.shape[0], height, width)
            h, w = probabilities_Khw.shape[-2:]
            whole[head][:, window.y : window.y + h, window.x : window.x + w] = probabilities_Khw
    return whole


@dataclass(frozen=True)
class ReadableImage:
    """An image that is read part by part.

    Attributes:
        key: identifies it in its windows.
        size: H and W.
        read: reads a part; never more than a tile with its context.
    """

    key: Any
    size: tuple[int, int]
    read: Read


@dataclass(frozen=True)
class Window:
    """Class probabilities of a part of an image.

    Attributes:
        key: of the image.
        y: its first row.
        x: its first column.
        probabilities: Khw float32 by head.
    """

    key: Any
    y: int
    x: int
    probabilities: dict[str, Tensor]


def predict_stream(
    model: nn.Module,
    images: Iterable[ReadableImage],
    heads: Sequence[str],
    *,
    tile: int | None = None,
    tta: str = "none",
    channels_last: bool = False,
    batch: int = 1,
    devices: Sequence[torch.device] = (),
    overlap: float | None = None,
) -> Iterator[Window]:
    """Class probabilities of one image after the other, window by window; at most `batch` tiles are in memory.

    On GPUs and on several devices, `AHEAD` batches more a device are read and predicted while the caller writes; on a
    CPU of several threads, `AHEAD` strips of each of the bands that a large image is divided into, see `SEAMS`. Runs
    under `torch.inference_mode()` and the caller's autocast; softmax is in float32.

    Args:
        model: this and what is not listed as in `predict_image`.
        images: taken one by one when needed.
        heads: the names of the model's heads.
        tile: the largest output side of a tile in pixels.
        tta: the symmetries averaged over.
        channels_last: give the network its input in this memory format.
        batch: consecutive tiles of one size, of one or several images, that are predicted together. More than 1 is
            faster on a GPU, and may change the last bits of a result.
        devices: on which copies of the model predict tiles in turn, each in a thread; the first is the model's own.
            Empty: the model alone, where it is.
        overlap: blends tiles, approximately.

    Returns:
        An iterator of windows: those of each image cover each pixel once.

    Raises:
        SegbenchError: the model is in training mode; wrong tta, batch or overlap; and, while iterating, a tile that is
            wrong or does not fit into memory, or an output that contradicts the model's heads or geometry.
    """
    if model.training:
        raise SegbenchError("prediction by a model in training mode", "eval mode", "call model.eval() first")
    check("batch_size", batch, batch >= 1, "a positive number of tiles", 1)
    models = [model, *(deepcopy(model).to(device) for device in devices[1:])]
    geometry, transforms = geometry_of(model), symmetries(tta)
    predictors = [_TilePredictor(each, tuple(heads), geometry, transforms, channels_last) for each in models]
    if overlap is not None:
        tile = OVERLAP_TILE if tile is None else tile
        overlapping(1, geometry, tile, overlap)
    return _stream(predictors, images, tile, batch, overlap)


@dataclass(frozen=True)
class _Tile:
    key: Any
    row: Span
    column: Span
    images: dict[str, Tensor]
    width: int


Given = TypeVar("Given")
Answer = TypeVar("Answer")

_Answers = Generator[tuple[Given, Answer], None, None]


def _stream(
    predictors: Sequence[_TilePredictor],
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
        bands = predictor.model not in _IN_TILES and _is_large(predictor.geometry, image)
        yield from _banded(predictor, image) if bands else _tiled([predictor], [image], None, 1)


def _is_large(geometry: TileGeometry, image: ReadableImage) -> bool:
    """Whether it is cut without being asked."""
    if geometry == TileGeometry() or min(image.size) < 1:
        return False
    return math.prod(geometry.input_for(side) for side in image.size) > WHOLE_PIXELS


def _banded(predictor: _TilePredictor, image: ReadableImage) -> Iterator[Window]:
    """Bands, each from top to bottom; tiles where the network cannot do it, which its first strip shows."""
    begun = False
    try:
        for bands in _side_by_side(predictor, image):
            for window in _band_windows(predictor, image, bands):
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


def _side_by_side(predictor: _TilePredictor, image: ReadableImage) -> list[list[tuple[Span, Span]]]:
    """Rows and columns of bands, in groups that go through the network at the same time, each on its share of threads.

    One thread on a band of its own waits for no other, which those that share an operation do many times a strip. So
    there are as many bands as threads, as far as `SEAMS` and the memory allow.
    """
    (height, width), geometry, threads = image.size, predictor.geometry, torch.get_num_threads()

    def cut(down: int, across: int) -> list[tuple[Span, Span]]:
        count = math.ceil(width / BAND / across) * across
        rows, columns = (
            plan(side, geometry, math.ceil(side / parts / geometry.step) * geometry.step, alike=False)
            for side, parts in ((height, down), (width, count))
        )
        return [*product(rows, columns)]

    def pixels(bands: Sequence[tuple[Span, Span]]) -> int:
        return sum(row.read_size * column.read_size for row, column in bands)

    alone = cut(1, 1)
    most = threads if threads == 1 else min(threads, predictor.bands_in_memory(partial(image.read, 0, 1, 0, 1)))
    for count in range(most, 1, -1):
        if threads % count == 0:
            ways = [cut(count // across, across) for across in range(1, count + 1) if count % across == 0]
            bands = min((bands for bands in ways if len(bands) % count == 0), key=pixels, default=alone)
            if len(bands) % count == 0 and pixels(bands) <= SEAMS * pixels(alone):
                return [bands[first : first + count] for first in range(0, len(bands), count)]
    return [[band] for band in alone]


def _band_windows(
    predictor: _TilePredictor, image: ReadableImage, bands: Sequence[tuple[Span, Span]]
) -> Iterator[Window]:
    """Windows of bands that are predicted at the same time."""
    step, widest = predictor.geometry.step, max(column.read_size for _, column in bands)
    height = max(STRIP_PIXELS // widest // step, 1) * step

    def strips(place: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
        row, column = bands[place]
        for start in range(0, row.read_size, height):
            span = Span(row.read_from + start, min(height, row.read_size - start), 0, 0)
            yield place, _read_mirrored(image.read, span, column, image.size)

    in_turn = (strip for together in zip_longest(*map(strips, range(len(bands)))) for strip in together if strip)
    workers = [_Band(predictor, image.key, row, column, WINDOW_PIXELS // len(bands)) for row, column in bands]
    if len(bands) == 1:
        for _, strip in in_turn:
            yield from workers[0](strip)
        return
    with closing(_in_turn(workers, in_turn, [predictor.device] * len(bands), len(bands))) as answered:
        for _, windows in answered:
            yield from windows


class _Band:
    """A part of an image on its way through the network from top to bottom.

    Args:
        predictor: of its network.
        key: of the image.
        row: from its first row to its last.
        column: the same of columns.
        collected: pixels of a window, at most.
    """

    def __init__(self, predictor: _TilePredictor, key: Any, row: Span, column: Span, collected: int) -> None:
        self._key, self._row, self._column = key, row, column
        self._rows, self._columns = (span.answer(predictor.geometry.margin) for span in (row, column))
        self._height = max(collected // (column.stop - column.start), 1)
        self._forward = predictor.forward_rowwise((row.read_size, column.read_size))
        self._ahead: dict[str, Tensor] = {}
        self._windows: dict[str, Tensor] = {}
        self._given, self._y, self._filled = 0, row.start, 0

    @torch.inference_mode()
    def __call__(self, strip: Mapping[str, Tensor]) -> list[Window]:
        """The windows that are complete with this strip, CHW by modality."""
        maps, complete = self._forward(strip), []
        if self._ahead:
            maps = {head: torch.cat([self._ahead[head], logits_Krw], 1) for head, logits_Krw in maps.items()}
        # A head of fewer layers is ahead of the others.
        given = min(logits_Krw.shape[1] for logits_Krw in maps.values())
        unlike = any(logits_Krw.shape[1] > given for logits_Krw in maps.values())
        self._ahead = {head: logits_Krw[:, given:] for head, logits_Krw in maps.items()} if unlike else {}
        taken = min(max(self._rows.start - self._given, 0), given)
        self._given += given
        while taken < given and self._y < self._row.stop:
            height = min(self._height, self._row.stop - self._y)
            part = min(given - taken, height - self._filled)
            for head, logits_Krw in maps.items():
                if self._filled == 0:
                    self._windows[head] = torch.empty(len(logits_Krw), height, self._column.stop - self._column.start)
                probabilities_Krw = logits_Krw[:, taken : taken + part, self._columns].float().softmax(dim=0)
                self._windows[head][:, self._filled : self._filled + part] = probabilities_Krw
            taken, self._filled = taken + part, self._filled + part
            if self._filled == height:
                complete.append(Window(self._key, self._y, self._column.start, self._windows))
                self._windows, self._y, self._filled = {}, self._y + height, 0
        return complete


def _tiled(
    predictors: Sequence[_TilePredictor],
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
        answered: _Answers[list[_Tile], list[dict[str, Tensor]]] = ((tiles, workers[0](tiles)) for tiles in batches)
    else:
        answered = _in_turn(workers, zip(cycle(range(len(workers))), batches), [each.device for each in predictors])
    with closing(answered):
        for tiles, all_maps in answered:
            for cut, maps in zip(tiles, all_maps, strict=True):
                inside = (slice(None), cut.row.answer(margin), cut.column.answer(margin))
                answers = {head: maps_KHW[inside] for head, maps_KHW in maps.items()}
                if overlap is None:
                    yield Window(cut.key, cut.row.start, cut.column.start, answers)
                else:
                    yield from blended.added(cut, answers)


def _tile_maps(predictor: _TilePredictor, tiles: Sequence[_Tile]) -> list[dict[str, Tensor]]:
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


def _in_turn(
    workers: Sequence[Callable[[Given], Answer]],
    given: Iterator[tuple[int, Given]],
    devices: Sequence[torch.device | None],
    shares: int = 1,
) -> _Answers[Given, Answer]:
    """Each worker in a thread of its own; answers in the order of what is given to them.

    Args:
        workers: whose answers are wanted.
        given: the place of a worker, and what it is given.
        devices: of the workers.
        shares: into how many parts the threads of a CPU are divided.
    """
    contexts = [_same_precision(device) for device in devices]

    def answer(place: int, one: Given) -> Answer:
        with contexts[place]():
            return workers[place](one)

    threads = [ThreadPoolExecutor(1, "segbench-device") for _ in workers]
    waiting: deque[tuple[Given, Future[Answer]]] = deque()
    try:
        if shares > 1:
            _divide_threads(threads, shares)
        while True:
            unreadable: Exception | None = None
            following: tuple[int, Given] | None = None
            try:
                following = next(given, None)
            except Exception as error:
                # What was read before it is still predicted.
                unreadable = error
            if following is not None:
                place, one = following
                waiting.append((one, threads[place].submit(answer, place, one)))
            while waiting and (following is None or len(waiting) > AHEAD * len(workers)):
                done, future = waiting.popleft()
                yield done, future.result()
            if unreadable is not None:
                raise unreadable
            if following is None:
                return
    finally:
        for thread in threads:
            thread.shutdown(wait=True, cancel_futures=True)


def _divide_threads(threads: Sequence[ThreadPoolExecutor], shares: int) -> None:
    """Each of these threads computes on its share of torch's."""
    count = torch.get_num_threads()

    def settle() -> None:
        torch.set_num_threads(count // shares)
        # A thread takes the number of the last one that set it, when it first asks.
        torch.get_num_threads()

    try:
        for thread in threads:
            thread.submit(settle).result()
    finally:
        torch.set_num_threads(count)


def _same_precision(device: torch.device | None) -> Callable[[], torch.autocast]:
    """The caller's autocast, for another thread."""
    kind = "cpu" if device is None else device.type
    dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
    return lambda: torch.autocast(kind, dtype, enabled=enabled)


def _tiles(
    predictor: _TilePredictor, images: Iterable[ReadableImage], tile: int | None, overlap: float | None
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
        side = DEFAULT_TILE if tile is None and _is_large(geometry, image) else tile
        for row, column in product(cut(height, side), cut(width, side)):
            # Before the tile is read: a whole image may be too large even for that.
            predictor.refuse_too_large(partial(image.read, 0, 1, 0, 1), (row.read_size, column.read_size))
            yield _Tile(image.key, row, column, _read_mirrored(image.read, row, column, image.size), width)


def _batches(tiles: Iterable[_Tile], batch: int) -> Iterator[list[_Tile]]:
    for _, alike in groupby(tiles, lambda cut: [image_CHW.shape for image_CHW in cut.images.values()]):
        while together := list(islice(alike, batch)):
            yield together


def _read_mirrored(read: Read, row: Span, column: Span, size: tuple[int, int]) -> dict[str, Tensor]:
    ys = mirrored(row.read_from, row.read_from + row.read_size, size[0])
    xs = mirrored(column.read_from, column.read_from + column.read_size, size[1])
    y0, x0 = int(ys.min()), int(xs.min())
    part = read(y0, int(ys.max()) + 1, x0, int(xs.max()) + 1)

    def continued(part_CHW: Tensor | NDArray[Any]) -> Tensor:
        image_CHW = torch.as_tensor(part_CHW)
        for dim, indices in ((-2, ys - y0), (-1, xs - x0)):
            if not np.array_equal(indices, np.arange(image_CHW.shape[dim])):
                image_CHW = image_CHW.index_select(dim, torch.from_numpy(indices).to(image_CHW.device))
        return image_CHW

    return {name: continued(part_CHW) for name, part_CHW in part.items()}


class _TilePredictor:
    """Probabilities of tiles of one size, averaged over symmetries."""

    def __init__(
        self,
        model: nn.Module,
        heads: tuple[str, ...],
        geometry: TileGeometry,
        transforms: Sequence[Symmetry],
        channels_last: bool,
    ) -> None:
        self.model, self.heads, self.geometry, self.transforms = model, heads, geometry, transforms
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        parameter = next(model.parameters(), None)
        self.device = None if parameter is None else parameter.device
        self.dtype = torch.float32 if parameter is None else parameter.dtype
        self.on_gpu = self.device is not None and self.device.type != "cpu"
        self._weighed: set[tuple[int, ...]] = set()

    @torch.inference_mode()
    def __call__(self, tiles: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
        """KHW float32 by head of each tile, CHW by modality; one forward a symmetry."""
        tiles = [{name: image_CHW.to(self.device, self.dtype) for name, image_CHW in tile.items()} for tile in tiles]
        height, width = next(iter(tiles[0].values())).shape[-2:]
        given = (int(height), int(width))
        self.refuse_too_large(lambda: tiles[0], given, len(tiles))
        expected = tuple(side - 2 * self.geometry.margin for side in given)
        mean: dict[str, Tensor] = {}
        try:
            for symmetry in self.transforms:
                output = self.model(self._input(tiles, symmetry))
                for head, logits_BKHW in as_heads(output, self.heads, given).items():
                    probabilities_BKHW = symmetry.undo(logits_BKHW.float().softmax(dim=1))
                    if tuple(probabilities_BKHW.shape[-2:]) != expected:
                        raise SegbenchError(
                            f"the network makes {tuple(probabilities_BKHW.shape[-2:])} of {given} pixels",
                            f"{expected}, as its geometry says",
                            "correct the model's attribute geometry (segbench.spec.TileGeometry)",
                        )
                    mean[head] = mean[head].add_(probabilities_BKHW) if head in mean else probabilities_BKHW
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            raise self._no_memory(given, len(tiles), "its memory ran out") from error
        for sum_BKHW in mean.values():
            sum_BKHW.div_(len(self.transforms))
        return [{head: mean_BKHW[place] for head, mean_BKHW in mean.items()} for place in range(len(tiles))]

    def forward_rowwise(self, sides: tuple[int, int]) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
        """The forward pass of an image of these sides in strips, CHW by modality: rows of logits KHW by head."""
        expected = tuple(side - 2 * self.geometry.margin for side in sides)
        forward = RowwiseForward(self.model, sides[0])

        def heads(output: Any) -> dict[str, Tensor]:
            by_head = as_heads(output, self.heads, sides)
            if any(tuple(logits_BKHW.shape[-2:]) != expected for logits_BKHW in by_head.values()):
                raise NotRowwise("an output that contradicts the geometry")
            return by_head

        @torch.inference_mode()
        def strip(images: Mapping[str, Tensor]) -> dict[str, Tensor]:
            batch = {
                name: image_CHW[None].to(self.device, self.dtype).contiguous(memory_format=self.memory_format)
                for name, image_CHW in images.items()
            }
            return {head: logits_BKHW[0] for head, logits_BKHW in forward(batch, heads).items()}

        return strip

    def _input(self, tiles: Sequence[Mapping[str, Tensor]], symmetry: Symmetry) -> Tensor | dict[str, Tensor]:
        batch = {
            name: symmetry.apply(torch.stack([tile[name] for tile in tiles])).contiguous(
                memory_format=self.memory_format
            )
            for name in tiles[0]
        }
        return next(iter(batch.values())) if len(batch) == 1 else batch

    def bands_in_memory(self, part: Callable[[], Mapping[str, Tensor | NDArray[Any]]]) -> int:
        """How many bands may be in memory at a time, at least one; `part` as in `refuse_too_large`."""
        pixel = least_bytes_per_pixel(self.model, self._probe(part)(self.geometry.input_for(1)))
        return max(int(min(free_bytes(), 2**62) / (MAPS_AT_ONCE * STRIP_PIXELS * pixel)), 1)

    def _probe(
        self, part: Callable[[], Mapping[str, Tensor | NDArray[Any]]]
    ) -> Callable[[int], Tensor | dict[str, Tensor]]:
        """Makes an empty input of a given side."""
        channels = {name: len(part_CHW) for name, part_CHW in part().items()}

        def probe(side: int) -> Tensor | dict[str, Tensor]:
            corner = {
                name: torch.zeros(C, side, side, device=self.device, dtype=self.dtype) for name, C in channels.items()
            }
            return self._input([corner], self.transforms[0])

        return probe

    def refuse_too_large(
        self, part: Callable[[], Mapping[str, Tensor | NDArray[Any]]], sides: tuple[int, int], count: int = 1
    ) -> None:
        """Refuse what main memory cannot hold: allocation would succeed and the system kill the process.

        Args:
            part: gives a part of the image, CHW by modality.
            sides: H and W of a tile.
            count: tiles predicted together.
        """
        height, width = sides
        if self.on_gpu or count * height * width <= WHOLE_PIXELS or (count, height, width) in self._weighed:
            return
        self._weighed.add((count, height, width))
        probe = self._probe(part)
        if self.geometry == TileGeometry():
            needed = extrapolated_bytes(self.model, probe, height, width)
        else:
            needed = least_bytes_per_pixel(self.model, probe(self.geometry.input_for(1))) * height * width
        needed *= count
        if needed > (free := free_bytes()):
            raise self._no_memory(sides, count, f"{needed / 2**30:.1f} GiB needed at least, {free / 2**30:.1f} free")

    def _no_memory(self, sides: tuple[int, int], count: int, how: str) -> SegbenchError:
        half = max(self.geometry.step, (min(sides) - 2 * self.geometry.context) // 2)
        if count > 1:
            action = f"set a smaller batch_size=, say {count // 2}"
        elif self.geometry == TileGeometry():
            action = (
                "cut or shrink the image: this network takes it whole; or predict it with overlap=0.25, approximately"
            )
        else:
            action = f"set a smaller tile=, say tile={half}"
        size = f"{sides[0]} x {sides[1]} pixels"
        tiles = f"{count} tiles of {size} do" if count > 1 else f"a tile of {size} does"
        return SegbenchError(
            f"{tiles} not fit into memory: {how}", "room for the feature maps of all that is predicted together", action
        )


def geometry_of(model: nn.Module) -> TileGeometry:
    """The input sizes of a model, or of a wrapper's `module`; without `geometry`, any, with an output of that size."""
    for candidate in (model, getattr(model, "module", None)):
        geometry = getattr(candidate, "geometry", None)
        if isinstance(geometry, TileGeometry):
            return geometry
    return TileGeometry()


def _is_out_of_memory(error: Exception) -> bool:
    # The CPU's allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)
