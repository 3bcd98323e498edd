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

from segbench.data.files.image_files import Images, open_images
from segbench.data.raw import RawImage, Source
from segbench.errors import SegbenchError
from segbench.prediction.values import check_kind, check_range, in_unit
from segbench.spec import DatasetSpec, ModalitySpec

WHOLE_BYTES = 2**28
"""Pages of up to this size are decoded at once, larger ones read window by window."""

_SAMPLES, _SAMPLE_SIDE = 8, 64


@dataclass(frozen=True)
class Page:
    """An image of an input.

    Attributes:
        size: H and W.
        read: `read(y0, y1, x0, x1)` gives HW or HWC by modality, in its unit.
    """

    size: tuple[int, int]
    read: Callable[[int, int, int, int], dict[str, NDArray[Any]]]


class Opened(Protocol):
    """An input whose pages can be read.

    Attributes:
        sizes: H and W of each page.
        placement: its georeference, as `TiffImages.placement`.
    """

    sizes: tuple[tuple[int, int], ...]
    placement: dict[str, Any]

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
                self._images[name] = open_images(files[name], modality.channels)
                opened.callback(self._images[name].close)
            self.sizes = tuple(self._sizes())
            self.placement = next(iter(self._images.values())).placement
            opened.pop_all()

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
                check_kind(images.path, shapes[name][2], images.dtype(index), name, self._modalities[name])
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
            return {name: part(y0, y1, x0, x1) for name, part in parts.items()}

        return Page(self.sizes[index], read)

    def close(self) -> None:
        """Close the files."""
        for images in self._images.values():
            images.close()


def _reader(images: Images, index: int, spec: ModalitySpec) -> Callable[[int, int, int, int], NDArray[Any]]:
    height, width, channels = images.shape(index)
    if height * width * channels * images.dtype(index).itemsize > WHOLE_BYTES:
        check_range(images.path, _sample(images, index, height, width), spec)
        return partial(_read_part, images, index, spec)
    whole_HWC = images.read(index)
    check_range(images.path, whole_HWC, spec)
    return lambda y0, y1, x0, x1: in_unit(whole_HWC[y0:y1, x0:x1], spec)


def _read_part(images: Images, index: int, spec: ModalitySpec, *window: int) -> NDArray[Any]:
    part_HWC = images.read(index, *window)
    check_range(images.path, part_HWC, spec, whole=False)
    return in_unit(part_HWC, spec)


def _sample(images: Images, index: int, height: int, width: int) -> NDArray[Any]:
    """Small parts from all over a large image, side by side."""
    ys, xs = (np.linspace(0, max(0, side - _SAMPLE_SIDE), _SAMPLES).astype(int) for side in (height, width))
    rows = [
        np.hstack([images.read(index, y, min(y + _SAMPLE_SIDE, height), x, min(x + _SAMPLE_SIDE, width)) for x in xs])
        for y in ys
    ]
    return np.vstack(rows)


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
        # The first one's for all: a stack has one size.
        self.sizes: tuple[tuple[int, int], ...] = (self.page(0).size,) * len(self._indices)

    def page(self, index: int) -> Page:
        """An image."""
        if self._read[0] != index:
            self._read = (index, self._source.read(self._indices[index]))
        images = self._read[1].images
        height, width = next(iter(images.values())).shape[:2]
        return Page(
            (height, width),
            lambda y0, y1, x0, x1: {name: np.asarray(image[y0:y1, x0:x1]) for name, image in images.items()},
        )

    def close(self) -> None:
        """No-op: no file is open."""
