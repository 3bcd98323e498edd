"""Histogram matching: the grey values of an image become distributed as those that a network was trained on.

Each channel of each page is mapped by `G^-1(F(v))`, where F and G are the distributions of the page and of the
reference (Gonzalez and Woods, Digital Image Processing: histogram specification). The share of a value v counts half of
the pixels that have it, `F(v) = (pixels below v + half of those at v) / pixels`, so that inverting both images inverts
the result, and a constant page becomes the reference's median. Between the reference's values G^-1 is linear.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.data.files.zarr_images import is_zarr
from segbench.data.folder.listing import list_images
from segbench.data.raw import DataSet, RawImage, Source
from segbench.errors import SegbenchError
from segbench.prediction.pages import OpenedFiles, Page, page_of
from segbench.spec import DatasetSpec

_STRIP = 2**22
"""Pixels of the rows that are read together."""
_SAMPLE = 2**18
"""About how many pixels decide where values are no integers of 8 or 16 bits."""
_HELD = 2**22
"""Values of all channels that are held before they are joined: joining sorts them."""


@dataclass(frozen=True)
class Distribution:
    """How often each value occurs.

    Attributes:
        values: N ascending float64.
        counts: N positive int64.
    """

    values: NDArray[np.float64]
    counts: NDArray[np.int64]

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """N rising shares in (0, 1): of the pixels below a value and half of those at it."""
        shares: NDArray[np.float64] = (np.cumsum(self.counts) - self.counts / 2) / self.counts.sum()
        return shares


@dataclass(frozen=True)
class Reference:
    """The grey values of the images that others are matched to.

    Attributes:
        channels: a distribution for each.
        images: how many were read.
        where: the file or folder.
    """

    channels: tuple[Distribution, ...]
    images: int
    where: Path

    def __str__(self) -> str:
        return f"grey values of each page matched to those of {self.images} images in {self.where}"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the distributions."""
        digest = hashlib.sha256()
        for channel in self.channels:
            digest.update(channel.values.tobytes() + channel.shares.tobytes())
        return digest.hexdigest()


def read_reference(where: Path, spec: DatasetSpec, tell: Callable[[str], None] = lambda sentence: None) -> Reference:
    """Read the grey values of images of the kind that a network was trained on.

    Args:
        where: a file, all of whose pages count, or a folder of files.
        spec: of the run, whose way of reading files is taken.
        tell: called with a sentence for each reason why files of a folder are not used.

    Raises:
        SegbenchError: several modalities, no images, images of another kind, or a channel of one value.
    """
    asked = f"match_histogram={where}"
    if len(spec.modalities) > 1:
        raise SegbenchError(
            f"{asked} for a run with the modalities {', '.join(spec.modalities)}",
            "a run with one modality",
            "leave match_histogram= out, and match the files first",
        )
    ((name, modality),) = spec.modalities.items()
    if not where.exists():
        raise SegbenchError(f"{asked}: no such file", "images that the network was trained on", "correct the path")
    files = [where]
    if where.is_dir() and not is_zarr(where):
        listing = list_images(where, arrays=True)
        for sentence in listing.sentences():
            tell(sentence)
        files = [where / image for image in listing.images]
    try:
        sizes = [size for file in files for size in _sizes(file, name, spec)]
        step = max(1, -(-sum(height * width for height, width in sizes) // _SAMPLE))
        pages = (page for file in files for page in _pages(file, name, spec))
        channels = _sum(_distributions(page, step) for page in pages)
    except SegbenchError as error:
        raise SegbenchError(f"{asked}: {error.found}", error.expected, error.action) from error
    if not channels or any(not channel.counts.sum() for channel in channels):
        raise SegbenchError(
            f"{asked}: {'no pixel with data' if sizes else 'no image'}",
            f"images of {name}, {modality.unit}",
            "name images that the network was trained on",
        )
    for number, channel in enumerate(channels):
        if len(channel.values) == 1:
            raise SegbenchError(
                f"{asked}: channel {number} is {channel.values[0]:g} everywhere",
                "at least two grey values",
                "name images that the network was trained on",
            )
    return Reference(channels, len(sizes), where)


def matched(page: Page, reference: Reference) -> Page:
    """A page of one modality with the reference's distribution of grey values, float32.

    Integers of 8 and 16 bits are counted, all of them; of other values a sample decides, on a grid that depends on the
    page's size alone. Either is done at the first read, in strips of rows. Pixels without data do not count and are not
    changed.
    """
    mapping = _Mapping(page, reference)
    return Page(page.size, mapping.read, page.empty)


@dataclass(frozen=True)
class Matched:
    """A data set of one modality whose images have the reference's distributions of grey values; labels are its own."""

    dataset: DataSet
    reference: Reference

    @property
    def spec(self) -> DatasetSpec:
        """The data set's own."""
        return self.dataset.spec

    def split(self, name: str) -> Source | None:
        """The split, with each image as `matched` gives it."""
        source = self.dataset.split(name)
        return None if source is None else _MatchedSource(source, self.reference)


class _MatchedSource(Source):
    def __init__(self, source: Source, reference: Reference) -> None:
        self.ids, self._source, self._reference = source.ids, source, reference

    def read(self, index: int) -> RawImage:
        raw = self._source.read(index)
        page = page_of(raw)
        height, width = page.size
        return replace(raw, images=matched(page, self._reference).read(0, height, 0, width))


class _Mapping:
    def __init__(self, page: Page, reference: Reference) -> None:
        self._page, self._reference = page, reference

    @cached_property
    def _tables(self) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Values and what they become, by channel."""
        height, width = self._page.size
        found = _distributions(self._page, max(1, -(-height * width // _SAMPLE)))
        return [
            (own.values, np.interp(own.shares, wanted.shares, wanted.values))
            for own, wanted in zip(found, self._reference.channels, strict=True)
        ]

    def read(self, y0: int, y1: int, x0: int, x1: int) -> dict[str, NDArray[Any]]:
        ((name, image),) = self._page.read(y0, y1, x0, x1).items()
        image_HWC = image.reshape(*image.shape[:2], -1)
        changed_HWC = image_HWC.astype(np.float32)
        for channel, (values, wanted) in enumerate(self._tables):
            # Empty where the whole page has no data.
            if len(values):
                changed_HWC[..., channel] = _mapped(image_HWC[..., channel], values, wanted)
        if (empty_HW := self._page.empty(y0, y1, x0, x1)) is not None:
            changed_HWC[empty_HW] = image_HWC[empty_HW]
        return {name: changed_HWC.reshape(image.shape)}


def _mapped(plane_HW: NDArray[Any], values: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[Any]:
    if not _is_counted(plane_HW.dtype):
        between: NDArray[Any] = np.interp(plane_HW, values, wanted)
        return between
    least = np.iinfo(plane_HW.dtype).min
    levels = np.arange(least, np.iinfo(plane_HW.dtype).max + 1)
    table: NDArray[Any] = np.interp(levels, values, wanted).astype(np.float32)
    return table[plane_HW.astype(np.int64) - least]


def _is_counted(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "ui" and dtype.itemsize <= 2


def _sizes(file: Path, name: str, spec: DatasetSpec) -> tuple[tuple[int, int], ...]:
    opened = OpenedFiles({name: file}, spec)
    opened.close()
    return opened.sizes


def _pages(file: Path, name: str, spec: DatasetSpec) -> Iterator[Page]:
    opened = OpenedFiles({name: file}, spec)
    try:
        yield from map(opened.page, range(len(opened.sizes)))
    finally:
        opened.close()


_ByChannel = tuple[Distribution, ...]


def _sum(parts: Iterable[_ByChannel]) -> _ByChannel:
    """That of all parts, a distribution for each channel; none if there is no part."""
    waiting: list[_ByChannel] = []
    held = 0
    for part in parts:
        waiting.append(part)
        held += sum(len(channel.values) for channel in part)
        if held > _HELD:
            waiting = [_joined(waiting)]
            held = sum(len(channel.values) for channel in waiting[0])
    return _joined(waiting)


def _joined(parts: Sequence[_ByChannel]) -> _ByChannel:
    return tuple(_together(of_channel) for of_channel in zip(*parts, strict=True))


def _together(parts: Sequence[Distribution]) -> Distribution:
    values, places = np.unique(np.concatenate([part.values for part in parts]), return_inverse=True)
    counts = np.zeros(len(values), np.int64)
    np.add.at(counts, places, np.concatenate([part.counts for part in parts]))
    return Distribution(values, counts)


def _distributions(page: Page, step: int) -> _ByChannel:
    """That of each channel; where values are not counted, of about every `step`-th pixel."""
    height, width = page.size
    while gcd(step, width) > 1:
        # Else it is of a few columns.
        step += 1
    rows = max(1, _STRIP // width)
    return _sum(_of_rows(page, y, min(y + rows, height), step) for y in range(0, height, rows))


def _of_rows(page: Page, y0: int, y1: int, step: int) -> _ByChannel:
    width = page.size[1]
    window = (y0, y1, 0, width)
    (image,) = page.read(*window).values()
    flat_NC, empty_HW = image.reshape((y1 - y0) * width, -1), page.empty(*window)
    chosen = slice(None) if _is_counted(image.dtype) else slice(-y0 * width % step, None, step)
    flat_NC = flat_NC[chosen] if empty_HW is None else flat_NC[chosen][~empty_HW.reshape(-1)[chosen]]
    return tuple(_distribution(flat_N) for flat_N in flat_NC.T)


def _distribution(flat_N: NDArray[Any]) -> Distribution:
    if not _is_counted(flat_N.dtype):
        values, counts = np.unique(flat_N, return_counts=True)
        return Distribution(values.astype(np.float64), counts)
    least = np.iinfo(flat_N.dtype).min
    counts = np.bincount(flat_N.astype(np.int64) - least)
    levels = np.flatnonzero(counts)
    return Distribution((levels + least).astype(np.float64), counts[levels])
