"""An opened input: its pages with all modalities, in the units of the run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segbench.data.files.image_files import ImageFile, open_images
from segbench.data.files.statements import Decoded
from segbench.data.raw import RawImage, Source
from segbench.errors import SegbenchError
from segbench.prediction.values import check_kind, check_range, filled, in_unit
from segbench.spec import DatasetSpec, ModalitySpec

WHOLE_BYTES = 2**28
"""Pages of up to this size are decoded at once, larger ones read window by window."""

_SAMPLES, _SAMPLE_SIDE = 8, 64


@dataclass(frozen=True)
class Page:
    """An image of an input.

    Attributes:
        size: H and W.
        read: `read(y0, y1, x0, x1)` gives HW or HWC by modality, in its unit; the mean where there is no data.
        empty: `empty(y0, y1, x0, x1)` gives HW, true where a modality has no data, or None if all have it everywhere.
    """

    size: tuple[int, int]
    read: Callable[[int, int, int, int], dict[str, NDArray[Any]]]
    empty: Callable[[int, int, int, int], NDArray[np.bool_] | None] = lambda *window: None


class Opened(Protocol):
    """An input whose pages can be read.

    Attributes:
        sizes: H and W of each page.
        placement: its georeference, as `TiffImages.placement`.
        turn: EXIF's orientation, which viewers apply and which was not applied.
        notes: what was converted, of which the counts are told.
    """

    sizes: tuple[tuple[int, int], ...]
    placement: dict[str, Any]
    turn: int
    notes: tuple[str, ...]

    def page(self, index: int) -> Page:
        """A page."""
        ...

    def close(self) -> None:
        """Close the files."""
        ...


class OpenedFiles:
    """One file per modality, all with the same number of pages.

    Args:
        files: by modality.
        spec: of the run.

    Raises:
        SegbenchError: a file cannot be read, differs in kind from the run's images, or in pages or size from the
            others; `page` raises it too.
    """

    def __init__(self, files: Mapping[str, Path], spec: DatasetSpec) -> None:
        self._modalities, self._images = spec.modalities, {}
        with contextlib.ExitStack() as opened:
            for name, modality in spec.modalities.items():
                self._images[name] = open_images(files[name], modality.channels, modality.reading)
                opened.callback(self._images[name].close)
            self.sizes = tuple(self._sizes())
            first = next(iter(self._images.values()))
            reading = next(iter(spec.modalities.values())).reading
            self.placement = first.placement
            self.turn = first.stated_turn(0) if reading.exif == "ignore" else 1
            self.notes = tuple(self._notes())
            opened.pop_all()

    def _notes(self) -> Iterator[str]:
        for name, images in self._images.items():
            reading, kind = self._modalities[name].reading, images.kind(0)
            wanted = {"grey": "grey", "rgb": "RGB"}.get(str(reading.channels))
            if kind and wanted not in (None, kind):
                yield f"{kind}, read as {wanted}"
            if images.stated_turn(0) != 1:
                how = "as viewers show them" if reading.exif == "turn" else "as stored (data.exif=ignore)"
                yield f"with an EXIF turn, read {how}"

    def _sizes(self) -> Iterator[tuple[int, int]]:
        counts = {name: len(images) for name, images in self._images.items()}
        if len(set(counts.values())) > 1:
            raise SegbenchError(
                "; ".join(f"{self._images[name].path} has {count} pages" for name, count in counts.items()),
                "as many pages in the files of every modality",
                "give matching files",
            )
        for index in range(next(iter(counts.values()))):
            shapes = {name: images.shape(index) for name, images in self._images.items()}
            for name, images in self._images.items():
                check_kind(images.path, shapes[name][2], images.dtype(index), name, self._modalities[name], len(images))
            if len({shape[:2] for shape in shapes.values()}) > 1:
                raise SegbenchError(
                    "; ".join(f"{self._images[name].path} is {h} x {w}" for name, (h, w, _) in shapes.items()),
                    "one height and width for all modalities",
                    "give images that match pixel by pixel",
                )
            height, width, _ = next(iter(shapes.values()))
            yield height, width

    def page(self, index: int) -> Page:
        """A page, decoded at once unless it is large."""
        parts = {name: _reader(images, index, self._modalities[name]) for name, images in self._images.items()}

        def read(y0: int, y1: int, x0: int, x1: int) -> dict[str, NDArray[Any]]:
            return {name: part(y0, y1, x0, x1)[0] for name, part in parts.items()}

        def empty(y0: int, y1: int, x0: int, x1: int) -> NDArray[np.bool_] | None:
            masks_HW = [
                mask_HW
                for name, part in parts.items()
                if self._images[name].may_lack_data(index)
                if (mask_HW := part(y0, y1, x0, x1)[1]) is not None
            ]
            return np.logical_or.reduce(masks_HW) if masks_HW else None

        return Page(self.sizes[index], read, empty)

    def close(self) -> None:
        """Close the files."""
        for images in self._images.values():
            images.close()


_Part = tuple[NDArray[Any], NDArray[np.bool_] | None]
"""HW or HWC in the unit, and where it has no data."""


def _reader(images: ImageFile, index: int, spec: ModalitySpec) -> Callable[[int, int, int, int], _Part]:
    height, width, channels = images.shape(index)
    if height * width * channels * images.dtype(index).itemsize > WHOLE_BYTES:
        check_range(images.path, _sample(images, index, height, width), spec)
        return partial(_read_part, images, index, spec)
    decoded = images.decoded(index)
    check_range(images.path, decoded, spec)
    whole_HWC, empty_HW = filled(decoded, spec), decoded.empty_HW

    def part(y0: int, y1: int, x0: int, x1: int) -> _Part:
        return in_unit(whole_HWC[y0:y1, x0:x1], spec), _some(empty_HW, y0, y1, x0, x1)

    return part


def _some(empty_HW: NDArray[np.bool_] | None, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.bool_] | None:
    part_HW = None if empty_HW is None else empty_HW[y0:y1, x0:x1]
    return part_HW if part_HW is not None and part_HW.any() else None


def _read_part(images: ImageFile, index: int, spec: ModalitySpec, *window: int) -> _Part:
    decoded = images.decoded(index, *window)
    check_range(images.path, decoded, spec, whole=False)
    return in_unit(filled(decoded, spec), spec), decoded.empty_HW


def _sample(images: ImageFile, index: int, height: int, width: int) -> Decoded:
    """Small parts from all over a large image, side by side."""
    ys, xs = (np.linspace(0, max(0, side - _SAMPLE_SIDE), _SAMPLES).astype(int) for side in (height, width))
    parts = [
        images.decoded(index, y, min(y + _SAMPLE_SIDE, height), x, min(x + _SAMPLE_SIDE, width)) for y in ys for x in xs
    ]
    # One below the other: as rows of pixels, they need not be of one shape.
    pixels = [part.image_HWC.reshape(1, -1, part.image_HWC.shape[2]) for part in parts]
    lacking = [
        np.zeros((1, pixel.shape[1]), bool) if part.empty_HW is None else part.empty_HW.reshape(1, -1)
        for part, pixel in zip(parts, pixels, strict=True)
    ]
    return Decoded(np.hstack(pixels), np.hstack(lacking))


def page_of(raw: RawImage) -> Page:
    """An image of a data set as a page."""
    images, empty_HW = raw.images, raw.empty_HW
    height, width = next(iter(images.values())).shape[:2]
    return Page(
        (height, width),
        lambda y0, y1, x0, x1: {name: np.asarray(image[y0:y1, x0:x1]) for name, image in images.items()},
        lambda y0, y1, x0, x1: None if empty_HW is None else empty_HW[y0:y1, x0:x1],
    )


class OpenedSource:
    """Images of a data set's split, already in their units, as the pages of one input.

    Args:
        source: the split.
        indices: of the images.
    """

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        self._source, self._indices = source, tuple(indices)
        self._read = (-1, RawImage({}, {}, ""))
        self.placement: dict[str, Any] = {}
        self.turn = 1
        self.notes: tuple[str, ...] = ()
        # The first one's for all: a stack has one size.
        self.sizes: tuple[tuple[int, int], ...] = (self.page(0).size,) * len(self._indices)

    def page(self, index: int) -> Page:
        """An image."""
        if self._read[0] != index:
            self._read = (index, self._source.read(self._indices[index]))
        return page_of(self._read[1])

    def close(self) -> None:
        """No-op: no file is open."""
