"""Bands of a large image that go through a network from top to bottom, strip by strip (`rowwise`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import product, zip_longest
from typing import Any

import torch
from torch import Tensor

from segbench.inference.forward import TilePredictor
from segbench.inference.in_turn import in_turn
from segbench.inference.memory import free_bytes, least_bytes_per_pixel
from segbench.inference.tiling import Span, plan
from segbench.inference.windows import ReadableImage, Window, read_mirrored

BAND = 4096
"""Columns that go through the network together from top to bottom, at most, where it works so (`rowwise`)."""

STRIP_PIXELS = 2**18
"""Of a band at a time: the feature maps of a narrow network then stay in a processor's cache."""

SEAMS = 1.125
"""How many times the pixels of one band those side by side may have: what two have in common is computed twice."""

MAPS_AT_ONCE = 8
"""Feature maps that a band has in memory at a time, in sizes of the largest layer's input and output."""

WINDOW_PIXELS = 2**20
"""Of a band's windows, at most: strips are collected."""


def banded(predictor: TilePredictor, image: ReadableImage) -> Iterator[Window]:
    """The windows of an image, in bands.

    Raises:
        NotRowwise: the network does not work in strips, which its first strip shows; after the first window, its
            operations change.
    """
    for bands in _side_by_side(predictor, image):
        yield from _band_windows(predictor, image, bands)


def _side_by_side(predictor: TilePredictor, image: ReadableImage) -> list[list[tuple[Span, Span]]]:
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
    most = threads if threads == 1 else min(threads, _in_memory(predictor, image))
    for count in range(most, 1, -1):
        if threads % count == 0:
            ways = [cut(count // across, across) for across in range(1, count + 1) if count % across == 0]
            bands = min((bands for bands in ways if len(bands) % count == 0), key=pixels, default=alone)
            if len(bands) % count == 0 and pixels(bands) <= SEAMS * pixels(alone):
                return [bands[first : first + count] for first in range(0, len(bands), count)]
    return [[band] for band in alone]


def _in_memory(predictor: TilePredictor, image: ReadableImage) -> int:
    """How many bands may be in memory at a time, at least one."""
    probe = predictor.probe(partial(image.read, 0, 1, 0, 1))
    pixel = least_bytes_per_pixel(predictor.model, probe(predictor.geometry.input_for(1)))
    return max(int(min(free_bytes(), 2**62) / (MAPS_AT_ONCE * STRIP_PIXELS * pixel)), 1)


def _band_windows(
    predictor: TilePredictor, image: ReadableImage, bands: Sequence[tuple[Span, Span]]
) -> Iterator[Window]:
    """Windows of bands that are predicted at the same time."""
    step, widest = predictor.geometry.step, max(column.read_size for _, column in bands)
    height = max(STRIP_PIXELS // widest // step, 1) * step

    def strips(place: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
        row, column = bands[place]
        for start in range(0, row.read_size, height):
            span = Span(row.read_from + start, min(height, row.read_size - start), 0, 0)
            yield place, read_mirrored(image.read, span, column, image.size)

    following = (strip for together in zip_longest(*map(strips, range(len(bands)))) for strip in together if strip)
    workers = [_Band(predictor, image.key, row, column, WINDOW_PIXELS // len(bands)) for row, column in bands]
    if len(bands) == 1:
        for _, strip in following:
            yield from workers[0](strip)
        return
    with closing(in_turn(workers, following, [predictor.device] * len(bands), len(bands))) as answered:
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

    def __init__(self, predictor: TilePredictor, key: Any, row: Span, column: Span, collected: int) -> None:
        self._key, self._row, self._column = key, row, column
        self._rows, self._columns = (span.answer(predictor.geometry.margin) for span in (row, column))
        self._height = max(collected // (column.stop - column.start), 1)
        self._forward = predictor.forward_rowwise((row.read_size, column.read_size))
        self._ahead: dict[str, Tensor] = {}
        self._windows: dict[str, Tensor] = {}
        self._given, self._y, self._filled = 0, row.start, 0

    @torch.no_grad()
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
