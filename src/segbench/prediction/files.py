"""Files of predictions: PNG, TIFF in pages and tiles, zarr; each gets its final name when complete."""

from __future__ import annotations

import contextlib
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from segbench.data.files.statements import turned
from segbench.data.files.zarr_images import import_zarr, is_zarr
from segbench.errors import SegbenchError
from segbench.prediction.canvas import Canvas
from segbench.runtime.files import partial_name

Palette = Sequence[tuple[int, int, int]]

CANVAS_BYTES = 2**29
"""The most memory for pages being filled, over all files of an output."""

TILED_PIXELS = 2**24
"""TIFF pages with more pixels are written in tiles, which can be read in part."""

TILE = 512
CHUNK = 1024
_CLASSIC_TIFF = 2**32 - 2**25
_GDAL_NODATA = 42113


class OutputFile(ABC):
    """A file filled page by page and window by window; nothing is on disk before the first page.

    Args:
        path: its final name; its folder is created.

    Attributes:
        nodata: the value of pixels without data, once there is one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nodata: float | None = None
        self._partial = partial_name(path)

    @abstractmethod
    def begin(self, page: int, size: tuple[int, int]) -> None:
        """Start a page of H x W pixels; pages come in order."""

    @abstractmethod
    def put(self, y: int, x: int, block: NDArray[Any]) -> None:
        """Write a block whose upper left pixel is at row y and column x."""

    @abstractmethod
    def end(self) -> None:
        """The page is complete."""

    def finish(self) -> None:
        """Take the final name.

        Raises:
            OSError: a folder that is no zarr array has it.
        """
        if is_zarr(self.path):
            shutil.rmtree(self.path)
        os.replace(self._partial, self.path)

    def discard(self) -> None:
        """Delete the unfinished file."""
        if self._partial.is_dir():
            shutil.rmtree(self._partial)
        self._partial.unlink(missing_ok=True)


class _CanvasFile(OutputFile):
    """A file whose pages are assembled before they are written.

    Args:
        path: its final name.
        dtype: of the values.
        samples: values per pixel, 1 or 3.
        limit: the most bytes of a page held in memory.
    """

    def __init__(self, path: Path, dtype: Any, samples: int = 1, limit: int = CANVAS_BYTES) -> None:
        super().__init__(path)
        self._dtype, self._samples, self._limit = np.dtype(dtype), samples, limit
        self._canvas: Canvas | None = None

    def begin(self, page: int, size: tuple[int, int]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        shape = size if self._samples == 1 else (*size, self._samples)
        self._canvas = Canvas(shape, self._dtype, self._limit, self.path.parent)

    def put(self, y: int, x: int, block: NDArray[Any]) -> None:
        assert self._canvas is not None
        self._canvas.put(y, x, block)

    def end(self) -> None:
        assert self._canvas is not None
        self._write(self._canvas)
        self._canvas.close()
        self._canvas = None

    @abstractmethod
    def _write(self, canvas: Canvas) -> None:
        """Write the page."""

    def discard(self) -> None:
        if self._canvas is not None:
            self._canvas.close()
        super().discard()


class PngFile(_CanvasFile):
    """A PNG of one page: class values, with or without a palette, or RGB.

    Args:
        path: its final name.
        palette: RGB by value; None: the pixels are grey values or RGB.
        dtype: uint8, or uint16 for grey values.
        samples: 3 for RGB.
        turn: EXIF's orientation by which the picture is turned when it is written.
    """

    def __init__(
        self, path: Path, palette: Palette | None, dtype: Any = np.uint8, samples: int | None = None, turn: int = 1
    ) -> None:
        super().__init__(path, dtype, (3 if palette is None else 1) if samples is None else samples, limit=2**62)
        self._palette, self._turn = palette, turn

    def _write(self, canvas: Canvas) -> None:
        pixels = np.ascontiguousarray(turned(canvas.rows(0, canvas.shape[0]), self._turn))
        if self._palette is None:
            from segbench.display.panels import write_png

            write_png(self._partial, pixels)
        else:
            from segbench.data.files.labelled import write_indices

            write_indices(self._partial, pixels, tuple(self._palette))


class TiffFile(_CanvasFile):
    """A TIFF with a page per input page; large pages in tiles.

    Args:
        path: its final name.
        dtype: of the values.
        sizes: H and W of every page.
        samples: 3 for RGB.
        palette: RGB by index, of uint8.
        compressed: lossless; labels shrink to a hundredth, probabilities hardly.
        limit: the most bytes of a page held in memory.
        placement: georeferencing tags of the input, arguments of tifffile's writer.
        description: the text of the first page's tag ImageDescription.
    """

    def __init__(
        self,
        path: Path,
        dtype: Any,
        sizes: Sequence[tuple[int, int]],
        *,
        samples: int = 1,
        palette: Palette | None = None,
        compressed: bool = False,
        limit: int = CANVAS_BYTES,
        placement: Mapping[str, Any] | None = None,
        description: str | None = None,
    ) -> None:
        super().__init__(path, dtype, samples, limit)
        self._compressed, self._description = compressed, description
        self._options: dict[str, Any] = {"photometric": "rgb" if samples == 3 else "minisblack", "metadata": None}
        self._options |= dict(placement or {})
        if palette is not None:
            colormap = np.zeros((3, 256), np.uint16)
            colormap[:, : len(palette)] = np.array(palette, np.uint16).T * 257
            self._options |= {"photometric": "palette", "colormap": colormap}
        total = sum(height * width for height, width in sizes) * samples * self._dtype.itemsize
        self._big, self._writer = total > _CLASSIC_TIFF, cast(Any, None)

    def begin(self, page: int, size: tuple[int, int]) -> None:
        """Start a page; the first one opens the file."""
        super().begin(page, size)
        if self._writer is None:
            import tifffile

            self._writer = tifffile.TiffWriter(self._partial, bigtiff=self._big)

    def _write(self, canvas: Canvas) -> None:
        height, width = canvas.shape[:2]
        options = self._options | ({"compression": "zlib"} if self._compressed else {})
        if self._description is not None:
            # Of the first page alone.
            options["description"], self._description = self._description, None
        if self.nodata is not None:
            tag = (_GDAL_NODATA, "s", 0, f"{self.nodata:.17g}", False)
            options["extratags"] = [*options.get("extratags", ()), tag]
        if height * width > TILED_PIXELS or not canvas.in_memory:
            shape = {"shape": canvas.shape, "dtype": self._dtype, "tile": (TILE, TILE)}
            self._writer.write(_tiles(canvas), **shape, **options)
        else:
            # As one block of data, for ImageJ and memory maps.
            self._writer.write(canvas.rows(0, height), contiguous=not self._compressed, **options)

    def complete(self) -> None:
        """Write what is not on the disk yet, and close the file."""
        self._writer.close()

    def finish(self) -> None:
        """Close the file and rename it."""
        self.complete()
        super().finish()

    def discard(self) -> None:
        """Close and delete the file."""
        if self._writer is not None:
            # On a full disk, closing fails too.
            with contextlib.suppress(OSError, ValueError):
                self._writer.close()
        super().discard()


def _tiles(canvas: Canvas) -> Iterator[NDArray[Any]]:
    for y in range(0, canvas.shape[0], TILE):
        band = canvas.rows(y, y + TILE)
        for x in range(0, canvas.shape[1], TILE):
            tile = np.zeros((TILE, TILE, *canvas.shape[2:]), canvas.dtype)
            part = band[:, x : x + TILE]
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile


class ZarrFile(OutputFile):
    """A zarr array with the axes page (if several), class (if several), y and x.

    Args:
        path: its final name, a folder.
        dtype: of the values.
        sizes: H and W of every page.
        classes: values per pixel; 1 omits the axis.
        axis: what the values per pixel are.
        attributes: metadata of the array.

    Raises:
        SegbenchError: zarr is not installed, or the pages have different sizes.
    """

    def __init__(
        self,
        path: Path,
        dtype: Any,
        sizes: Sequence[tuple[int, int]],
        classes: int = 1,
        attributes: Mapping[str, Any] | None = None,
        axis: str = "class",
    ) -> None:
        self._zarr = import_zarr()
        if len(set(sizes)) > 1:
            raise SegbenchError(
                f"pages of {len(set(sizes))} sizes for {path}", "pages of one size in a zarr array", "set store=tiff"
            )
        super().__init__(path)
        self._dtype, self._size, self._attributes = np.dtype(dtype), sizes[0], dict(attributes or {})
        self._axes = {name: count for name, count in (("page", len(sizes)), (axis, classes)) if count > 1}
        self._page, self._array = 0, cast(Any, None)

    def begin(self, page: int, size: tuple[int, int]) -> None:
        """Start a page; all have one size."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._page = page

    def put(self, y: int, x: int, block: NDArray[Any]) -> None:
        """Write a block HW, or KHW if there are several classes."""
        height, width = block.shape[-2:]
        if self._array is None:
            self._array = self._create((height, width))
        page = (self._page,) if "page" in self._axes else ()
        self._array[(*page, ..., slice(y, y + height), slice(x, x + width))] = block

    def _create(self, window: tuple[int, int]) -> Any:
        # The first window is as large as all but the last ones, so each fills whole chunks, written once.
        chunks = [-(-side // -(-side // CHUNK)) for side in window]
        return self._zarr.create_array(
            str(self._partial),
            shape=(*self._axes.values(), *self._size),
            chunks=(*(1 for _ in self._axes), *chunks),
            dtype=self._dtype,
            dimension_names=(*self._axes, "y", "x"),
            attributes=self._attributes,
        )

    def end(self) -> None:
        """No-op: windows are written immediately."""
