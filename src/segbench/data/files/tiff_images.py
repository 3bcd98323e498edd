"""TIFF of any kind, image by image and part by part: stacks, hyperstacks, tiles, strips, pyramids.

A page is an image, unless ImageJ's, OME's or tifffile's metadata make several pages the channels of one.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.data.files.stacks import complaints_raised
from segbench.errors import SegbenchError

CACHE_BYTES = 2**28
"""Decoded tiles and strips that are kept: windows overlap, and a strip crosses all windows of a row."""

LARGEST_SEGMENT = 2**30
"""Bytes; a compressed tile or strip is decoded as a whole, however small the requested part."""


@dataclass(frozen=True)
class _Plane:
    """One page.

    Attributes:
        shape: H, W and samples per pixel.
        dtype: of the values.
        read: `read(y0, y1, x0, x1)` returns HWC.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    read: Callable[[int, int, int, int], NDArray[Any]]


class TiffImages:
    """The images of a TIFF file, which stays open.

    Of a pyramid, only the largest level counts. Values are those of the file; a palette that is not a grey ramp is
    replaced by its colours, as in a PNG.

    Args:
        path: the file.
        cache_bytes: of decoded tiles and strips to keep, at least one; None: `CACHE_BYTES`.

    Raises:
        SegbenchError: not TIFF, truncated, or of a kind that cannot be decoded; also from `read`.
    """

    def __init__(self, path: Path, cache_bytes: int | None = None) -> None:
        import tifffile

        self.path = path
        self._room = CACHE_BYTES if cache_bytes is None else cache_bytes
        self._kept = 0
        self._cache: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()
        try:
            with contextlib.ExitStack() as opened:
                with complaints_raised():
                    self._tiff = opened.enter_context(tifffile.TiffFile(path))
                    self._images = list(_images(self))
                if not self._images:
                    raise ValueError("it has no image")
                opened.pop_all()
        except _errors() as error:
            raise self._damaged(error) from error

    def __len__(self) -> int:
        return len(self._images)

    def __enter__(self) -> TiffImages:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._tiff.close()
        self._cache.clear()

    def shape(self, index: int) -> tuple[int, int, int]:
        """H, W and C of an image."""
        planes = self._images[index]
        height, width, _ = planes[0].shape
        return height, width, sum(plane.shape[2] for plane in planes)

    def dtype(self, index: int) -> np.dtype[Any]:
        """The type of an image's values."""
        return self._images[index][0].dtype

    @property
    def placement(self) -> dict[str, Any]:
        """The first page's position in the world: resolution and GeoTIFF tags, as arguments of tifffile's writer."""
        page, found = self._tiff.pages[0], dict[str, Any]()
        tags = {code: page.tags[code] for code in (*_RESOLUTION, *_GEO) if code in page.tags}
        if all(code in tags and tags[code].value[1] for code in _RESOLUTION[:2]):
            found["resolution"] = tuple(tags[code].value for code in _RESOLUTION[:2])
            found["resolutionunit"] = int(tags[296].value) if 296 in tags else 2
        geo = [(code, tag.dtype, tag.count, tag.value, False) for code, tag in tags.items() if code in _GEO]
        return found | ({"extratags": geo} if geo else {})

    def read(self, index: int, y0: int = 0, y1: int | None = None, x0: int = 0, x1: int | None = None) -> NDArray[Any]:
        """Rows y0 to y1 and columns x0 to x1 (exclusive) of an image, HWC in the file's dtype."""
        height, width, _ = self.shape(index)
        window = (y0, height if y1 is None else y1, x0, width if x1 is None else x1)
        try:
            with complaints_raised():
                parts = [plane.read(*window) for plane in self._images[index]]
        except _errors() as error:
            raise self._damaged(error) from error
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

    def _damaged(self, error: object) -> SegbenchError:
        size = self.path.stat().st_size if self.path.is_file() else 0
        return SegbenchError(
            f"{self.path} ({size} bytes) cannot be read as TIFF: {error}",
            "a whole TIFF file",
            "fetch or write the file again",
        )

    def segment(self, page: Any, key: int, index: int) -> NDArray[Any]:
        """A decoded tile or strip, HWC with H and W cut at the image's border; kept for the next window.

        Args:
            page: tifffile's.
            key: the page's number.
            index: of the segment in the page.
        """
        if (key, index) in self._cache:
            self._cache.move_to_end((key, index))
            return self._cache[key, index]
        keyframe, file = page.keyframe, page.parent.filehandle
        given: dict[str, Any] = {}
        if keyframe.compression in _JPEG:
            given = {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader}
        file.seek(page.dataoffsets[index])
        content = file.read(page.databytecounts[index]) if page.databytecounts[index] else None
        decoded, _, shape = keyframe.decode(content, index, _fullsize=False, **given)
        if decoded is None:
            # Sparse files omit empty tiles.
            decoded = np.full(shape, keyframe.nodata, keyframe.dtype)
        segment_HWC: NDArray[Any] = decoded[0, : shape[1], : shape[2]]
        self._cache[key, index] = segment_HWC
        self._kept += segment_HWC.nbytes
        while len(self._cache) > 1 and self._kept > self._room:
            self._kept -= self._cache.popitem(last=False)[1].nbytes
        return segment_HWC


_JPEG = (6, 7, 34892, 33007)
_RESOLUTION = (282, 283, 296)
_GEO = (33550, 33922, 34264, 34735, 34736, 34737)
"""ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory, GeoDoubleParams, GeoAsciiParams (GeoTIFF)."""


def _errors() -> tuple[type[Exception], ...]:
    import tifffile

    return tifffile.TiffFileError, ValueError, OSError, RuntimeError, LookupError, TypeError


def _images(file: TiffImages) -> Iterator[list[_Plane]]:
    tiff = file._tiff
    series = tiff.series
    if not series:
        return
    pyramid = series[0].is_pyramidal
    if not (pyramid or tiff.is_imagej or tiff.is_ome or tiff.is_shaped):
        for key, page in enumerate(tiff.pages):
            if not page.keyframe.is_reduced:
                yield [_plane(file, page, key)]
        return
    first = 0
    for each in series[:1] if pyramid else series:
        level = each.levels[0]
        for numbers in _page_numbers(level.axes, level.shape):
            yield [_plane_of_series(file, level, number, first) for number in numbers]
        first += len(level)


def _page_numbers(axes: str, shape: tuple[int, ...]) -> Iterator[list[int]]:
    """For each image the numbers of its pages: one per channel if `axes` has C outside the page, else one."""
    outside = [position for position, axis in enumerate(axes) if axis not in "YXS"]
    sizes = tuple(shape[position] for position in outside)
    numbers = np.arange(int(np.prod(sizes, dtype=np.int64))).reshape(sizes)
    channels = [place for place, position in enumerate(outside) if axes[position] == "C"]
    if channels:
        numbers = np.moveaxis(numbers, channels[0], -1)
        yield from numbers.reshape(-1, numbers.shape[-1]).tolist()
    else:
        yield from numbers.reshape(-1, 1).tolist()


def _plane_of_series(file: TiffImages, level: Any, number: int, first: int) -> _Plane:
    if level.dataoffset is None:
        return _plane(file, level.pages[number], first + number)
    # ImageJ writes large stacks after a single page header.
    keyframe = level.keyframe
    return _mapped(file, keyframe, level.dataoffset + number * int(np.prod(keyframe.shaped)) * keyframe.dtype.itemsize)


def _plane(file: TiffImages, page: Any, key: int) -> _Plane:
    keyframe = page.keyframe
    if keyframe.is_memmappable:
        return _mapped(file, keyframe, page.dataoffsets[0])
    windowed = _can_be_cut(keyframe)

    def read(y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
        if windowed:
            return _from_segments(file, page, key, y0, y1, x0, x1)
        whole: NDArray[Any] = page.asarray().reshape(keyframe.shaped)
        return _samples_last(whole)[y0:y1, x0:x1]

    return _coloured(keyframe, read)


def _mapped(file: TiffImages, keyframe: Any, offset: int) -> _Plane:
    dtype = np.dtype(file._tiff.byteorder + keyframe.dtype.char)
    if offset + int(np.prod(keyframe.shaped)) * dtype.itemsize > file._tiff.filehandle.size:
        raise ValueError("its end is missing")

    def read(y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
        # A new map for each part: memory pages once read count as this process's as long as the map exists.
        mapped = np.memmap(file.path, dtype, "r", offset, keyframe.shaped)
        return _samples_last(mapped)[y0:y1, x0:x1].astype(keyframe.dtype, copy=True)

    return _coloured(keyframe, read)


def _samples_last(shaped: NDArray[Any]) -> NDArray[Any]:
    """From tifffile's shape of every page, (separate samples, depth 1, H, W, samples), to HWC."""
    separate, depth, height, width, samples = shaped.shape
    if depth != 1:
        raise ValueError(f"a page with {depth} depth planes")
    return np.moveaxis(shaped[:, 0], 0, 2).reshape(height, width, separate * samples)


def _can_be_cut(keyframe: Any) -> bool:
    height = keyframe.tilelength if keyframe.is_tiled else keyframe.rowsperstrip
    width = keyframe.tilewidth if keyframe.is_tiled else keyframe.imagewidth
    pixels = min(height, keyframe.imagelength) * width
    if pixels * keyframe.dtype.itemsize * keyframe.samplesperpixel > LARGEST_SEGMENT:
        raise ValueError(f"compressed parts of {pixels} pixels each, too large to decode one; write it in tiles of 512")
    # NDPI reports tiles inside one JPEG strip.
    return not (keyframe.imagedepth > 1 or keyframe.jpegheader is not None)


def _from_segments(file: TiffImages, page: Any, key: int, y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
    keyframe = page.keyframe
    separate, _, height, width, samples = keyframe.shaped
    rows, columns = (
        (keyframe.tilelength, keyframe.tilewidth) if keyframe.is_tiled else (min(keyframe.rowsperstrip, height), width)
    )
    down, across = -(-height // rows), -(-width // columns)
    part = np.empty((y1 - y0, x1 - x0, separate * samples), keyframe.dtype)
    for sample, row, column in product(
        range(separate), range(y0 // rows, -(-y1 // rows)), range(x0 // columns, -(-x1 // columns))
    ):
        segment_HWC = file.segment(page, key, (sample * down + row) * across + column)
        top, left = row * rows, column * columns
        inside = segment_HWC[max(y0 - top, 0) : y1 - top, max(x0 - left, 0) : x1 - left]
        y, x = max(top, y0) - y0, max(left, x0) - x0
        part[y : y + inside.shape[0], x : x + inside.shape[1], sample * samples : (sample + 1) * samples] = inside
    return part


def _coloured(keyframe: Any, read: Callable[[int, int, int, int], NDArray[Any]]) -> _Plane:
    separate, _, height, width, samples = keyframe.shaped
    palette = _palette(keyframe)
    if palette is None:
        return _Plane((height, width, separate * samples), keyframe.dtype, read)
    return _Plane((height, width, 3), palette.dtype, lambda *window: palette[read(*window)[..., 0]])


def _palette(keyframe: Any) -> NDArray[Any] | None:
    """The colours of a palette image, K3 uint8; None if it has no palette or its colours are the grey levels."""
    if keyframe.photometric != 3 or keyframe.colormap is None:
        return None
    colours: NDArray[np.uint8] = (keyframe.colormap.T >> 8).astype(np.uint8)
    ramp = np.arange(len(colours))[:, None]
    return None if len(colours) == 256 and np.array_equal(colours, np.repeat(ramp, 3, axis=1)) else colours
