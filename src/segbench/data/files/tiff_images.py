"""TIFF of any kind, image by image and part by part: stacks, hyperstacks, tiles, strips, pyramids.

A page is an image, unless ImageJ's, OME's or tifffile's metadata make several pages the channels of one.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections import ChainMap, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.data.files.complaints import complaints_raised
from segbench.errors import SegbenchError, reading
from segbench.runtime.limits import DEFLATE, LZW, PACKBITS, RATIO, refuse_bomb

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
        nodata: the value without data; None if the page declares none.
        alpha: whether the last sample is transparency.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    read: Callable[[int, int, int, int], NDArray[Any]]
    nodata: tuple[float, ...] | None = None
    alpha: bool = False


class TiffImages:
    """The images of a TIFF file, which stays open.

    Of a pyramid, only the largest level counts. Values are those of the file, with black as 0: where the file says that
    0 is white they are reversed. A palette that is not a grey ramp is replaced by its colours, as in a PNG; YCbCr and
    CMYK become R, G, B.

    Args:
        path: the file.
        cache_bytes: of decoded tiles and strips to keep, at least one; None: `CACHE_BYTES`.
        axes: as `Reading.axes`, for a file that does not name its axes.
        indexed: read the indices of a palette instead of its colours.

    Raises:
        SegbenchError: not TIFF, truncated, or of a kind that cannot be decoded; also from `read`.
    """

    def __init__(
        self, path: Path, cache_bytes: int | None = None, axes: str | None = None, indexed: bool = False
    ) -> None:
        import tifffile

        self.path, self.axes, self.indexed = path, axes, indexed
        self._room = CACHE_BYTES if cache_bytes is None else cache_bytes
        self._kept = 0
        self._cache: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()
        if not isinstance(tifffile.TIFF.DECOMPRESSORS, _Decompressors):
            tifffile.TIFF.DECOMPRESSORS = _Decompressors({_LZW: _decode_lzw}, tifffile.TIFF.DECOMPRESSORS)
        with self._reading(), contextlib.ExitStack() as opened:
            with complaints_raised():
                self._tiff = opened.enter_context(tifffile.TiffFile(path))
                _refuse_more_than_stored(self._tiff)
                self._images = list(_images(self))
                self._first_turn, self._placement = _turn(self._tiff.pages[0]), _placement(self._tiff.pages[0])
            if not self._images:
                raise ValueError("it has no image")
            if len(self._images) > 1:
                # Many images may share the bytes of one, so that a few bytes would be decoded for hours.
                needed = sum(math.prod(plane.shape) * plane.dtype.itemsize for image in self._images for plane in image)
                refuse_bomb(path, needed, self._tiff.filehandle.size, in_parts=True)
            opened.pop_all()

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

    def nodata(self, index: int) -> tuple[float, ...] | None:
        """The value without data that an image declares (GDAL's tag), one for all channels or one each."""
        return self._images[index][0].nodata

    def alpha(self, index: int) -> bool:
        """Whether the last channel is transparency."""
        return self._images[index][-1].alpha

    def turn(self, index: int) -> int:
        """The orientation that a viewer applies, 1 to 8."""
        return self._first_turn

    @property
    def placement(self) -> dict[str, Any]:
        """The first page's position in the world: resolution and GeoTIFF tags, as arguments of tifffile's writer."""
        return self._placement

    def read(self, index: int, y0: int = 0, y1: int | None = None, x0: int = 0, x1: int | None = None) -> NDArray[Any]:
        """Rows y0 to y1 and columns x0 to x1 (exclusive) of an image, HWC in the file's dtype."""
        height, width, _ = self.shape(index)
        window = (y0, height if y1 is None else y1, x0, width if x1 is None else x1)
        pixels, size = (window[1] - window[0]) * (window[3] - window[2]), self._tiff.filehandle.size
        with self._reading(), complaints_raised():
            planes = self._images[index]
            refuse_bomb(self.path, sum(pixels * plane.shape[2] * plane.dtype.itemsize for plane in planes), size)
            parts = [plane.read(*window) for plane in planes]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

    def _reading(self) -> contextlib.AbstractContextManager[None]:
        return reading(self.path, "TIFF", action="fetch or write the file again")

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
        size = int(page.databytecounts[index])
        content = file.read(size) if size else None
        if content is not None:
            needed = math.prod(keyframe.chunks) * keyframe.dtype.itemsize
            refuse_bomb(self.path, needed, len(content), _RATIOS.get(int(keyframe.compression), RATIO))
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
_ORIENTATION, _GDAL_NODATA = 274, 42113
_GEO = (33550, 33922, 34264, 34735, 34736, 34737)
"""ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory, GeoDoubleParams, GeoAsciiParams (GeoTIFF)."""


_LZW = 5
_RATIOS = {1: 1, _LZW: LZW, 8: DEFLATE, 32946: DEFLATE, 32773: PACKBITS}
"""What a compression can make of a byte, by its number."""


def _decode_lzw(content: bytes, out: int) -> bytes:
    # Here, since numba takes long to import and most files need none of it.
    from segbench.data.files.lzw import decode_lzw

    return decode_lzw(content, out)


class _Decompressors(ChainMap[int, Callable[..., Any]]):
    """Those of tifffile, which its every way of decoding asks, with the first ones instead of some."""

    def __missing__(self, key: int) -> Callable[..., Any]:
        # Again, for its own error.
        return self.maps[1][key]


_SUBIFDS = 330


def _refuse_more_than_stored(tiff: Any) -> None:
    """Refuse directories in a circle, and more of them than the file has bytes for; tifffile would read them all."""
    form, file, offset = tiff.tiff, tiff.filehandle, tiff.pages.first.offset
    met, below = set[int](), 0
    while offset and offset < file.size:
        if offset in met:
            raise ValueError("its directories lead in a circle")
        met.add(offset)
        file.seek(offset)
        try:
            (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
            directory = file.read(tags * form.tagsize + form.offsetsize)
            (offset,) = struct.unpack(form.offsetformat, directory[-form.offsetsize :])
            for at in range(0, tags * form.tagsize, form.tagsize):
                if struct.unpack_from(form.tagformat1, directory, at)[0] == _SUBIFDS:
                    below += struct.unpack_from(form.tagformat2, directory, at + 4)[0]
        except struct.error:
            # tifffile says where it ends.
            break
    # A directory is a count, a tag and the place of the next one.
    if below + len(met) > file.size // (form.tagnosize + form.tagsize + form.offsetsize):
        raise ValueError(f"it states {below + len(met):,} directories")


def _images(file: TiffImages) -> Iterator[list[_Plane]]:
    tiff = file._tiff
    series = tiff.series
    if not series:
        return
    pyramid = series[0].is_pyramidal
    stated = pyramid or tiff.is_imagej or tiff.is_ome or tiff.is_shaped
    unnamed = all(axis in "QIYXS" for axis in series[0].axes) and not (tiff.is_imagej or tiff.is_ome)
    given = file.axes if unnamed and not pyramid else None
    if given is not None and ("S", "C") in zip(series[0].axes, given, strict=False):
        # Samples are the channels, as asked for; and they may be stored apart, which their pages know.
        given = None
    if given is not None and all(len(given) == len(each.shape) for each in series):
        first = 0
        for each in series:
            yield from _arranged(file, each, given, first)
            first += len(each)
        return
    if not stated:
        for key, page in enumerate(tiff.pages):
            if not page.keyframe.is_reduced:
                yield [_plane(file, page, key)]
        return
    first = 0
    for each in series[:1] if pyramid else series:
        level = each.levels[0]
        yield from _arranged(file, level, level.axes, first)
        first += len(level)


def _arranged(file: TiffImages, level: Any, axes: str, first: int = 0) -> Iterator[list[_Plane]]:
    """The images of a series by its axes, page by page, or array by array where pages are not Y by X."""
    if axes.replace("S", "").endswith("YX"):
        _at_most(math.prod(size for axis, size in zip(axes, level.shape, strict=True) if axis not in "YXS"), file)
        for numbers in _page_numbers(axes, level.shape):
            yield [_plane_of_series(file, level, number, first) for number in numbers]
        return
    if 262 in level.keyframe.tags and int(level.keyframe.photometric) not in (1, 2):
        raise _other_colours(level.keyframe, f"axes {axes} with the colours {level.keyframe.photometric.name}")
    whole = level.asarray() if level.dataoffset is None else None
    dtype = np.dtype(file._tiff.byteorder + level.dtype.char)
    kept = [axes.index(axis) for axis in "YXCS" if axis in axes]
    others = [place for place in range(len(axes)) if place not in kept]
    sizes = tuple(level.shape[place] for place in others)
    height, width, *channels = (level.shape[place] for place in kept)
    shape = height, width, math.prod(channels)

    def reader(places: Sequence[int]) -> Callable[[int, int, int, int], NDArray[Any]]:
        def read(y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
            array = whole if whole is not None else np.memmap(file.path, dtype, "r", level.dataoffset, level.shape)
            image = array.transpose(*others, *kept)[tuple(places)][y0:y1, x0:x1]
            return np.ascontiguousarray(image.reshape(*image.shape[:2], -1), level.dtype)

        return read

    empty = _nodata(level.keyframe)
    for number in range(_at_most(math.prod(sizes), file)):
        read = reader([int(place) for place in np.unravel_index(number, sizes or (1,))][: len(sizes)])
        yield [_Plane(shape, np.dtype(level.dtype), read, None if empty is None else (empty,))]


def _at_most(images: int, file: TiffImages) -> int:
    """The number of images that a description states; each has a byte at least."""
    if images > file._tiff.filehandle.size:
        raise ValueError(f"its description states {images:,} images")
    return images


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
    return _mapped(file, keyframe, level.dataoffset + number * math.prod(keyframe.shaped) * keyframe.dtype.itemsize)


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

    return _coloured(file, keyframe, read)


def _mapped(file: TiffImages, keyframe: Any, offset: int) -> _Plane:
    dtype = np.dtype(file._tiff.byteorder + keyframe.dtype.char)
    if offset + math.prod(keyframe.shaped) * dtype.itemsize > file._tiff.filehandle.size:
        raise ValueError("its end is missing")

    def read(y0: int, y1: int, x0: int, x1: int) -> NDArray[Any]:
        # A new map for each part: memory pages once read count as this process's as long as the map exists.
        mapped = np.memmap(file.path, dtype, "r", offset, keyframe.shaped)
        return _samples_last(mapped)[y0:y1, x0:x1].astype(keyframe.dtype, copy=True)

    return _coloured(file, keyframe, read)


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


def _coloured(file: TiffImages, keyframe: Any, read: Callable[[int, int, int, int], NDArray[Any]]) -> _Plane:
    """A page as grey levels or R, G, B, whatever its photometric interpretation."""
    separate, _, height, width, samples = keyframe.shaped
    channels, dtype, nodata = separate * samples, keyframe.dtype, _nodata(keyframe)
    alpha = channels in (2, 4) and any(extra in _ALPHA for extra in keyframe.extrasamples)
    palette = None if file.indexed else _palette(keyframe)
    if palette is not None:
        known = nodata is not None and 0 <= nodata < len(palette)
        empty = tuple(map(float, palette[int(nodata)])) if known else None  # type: ignore[arg-type]
        return _Plane((height, width, 3), palette.dtype, lambda *window: palette[read(*window)[..., 0]], empty)
    # Without the tag, libraries and this one read 0 as black.
    photometric = int(keyframe.photometric) if 262 in keyframe.tags else 1
    empty = None if nodata is None else (nodata,)
    if photometric == _WHITE_IS_ZERO:
        top = _largest(keyframe)
        reverse = np.logical_not if dtype.kind == "b" else partial(np.subtract, dtype.type(top))
        empty = None if nodata is None else (top - nodata,)
        return _Plane((height, width, channels), dtype, lambda *window: reverse(read(*window)), empty, alpha)
    if photometric == _CMYK or (photometric == _YCBCR and keyframe.compression not in _JPEG):
        convert = _rgb_of_cmyk if photometric == _CMYK else _rgb_of_ycbcr
        _refuse_unlike(keyframe, photometric, channels)
        return _Plane((height, width, 3), dtype, lambda *window: convert(read(*window)))
    if photometric in _FOREIGN:
        raise _other_colours(keyframe, _FOREIGN[photometric])
    return _Plane((height, width, channels), dtype, read, empty, alpha)


_WHITE_IS_ZERO, _CMYK, _YCBCR = 0, 5, 6
_FOREIGN = {
    8: "CIELab",
    9: "ICCLab",
    10: "ITULab",
    32803: "a colour filter array",
    32844: "LogL",
    32845: "LogLuv",
}
_ALPHA = (1, 2)
"""Extra samples: associated and unassociated alpha."""


def _nodata(keyframe: Any) -> float | None:
    # GDAL's tag is a number as text.
    tag = keyframe.tags.get(_GDAL_NODATA)
    try:
        return None if tag is None else float(str(tag.value).strip("\0 "))
    except ValueError:
        return None


def _turn(page: Any) -> int:
    tag = page.tags.get(_ORIENTATION)
    turn = 1 if tag is None else int(tag.value)
    return turn if 1 <= turn <= 8 else 1


def _placement(page: Any) -> dict[str, Any]:
    found = dict[str, Any]()
    tags = {code: page.tags[code] for code in (*_RESOLUTION, *_GEO) if code in page.tags}
    if all(code in tags and tags[code].value[1] for code in _RESOLUTION[:2]):
        found["resolution"] = tuple(tags[code].value for code in _RESOLUTION[:2])
        found["resolutionunit"] = int(tags[296].value) if 296 in tags else 2
    geo = [(code, tag.dtype, tag.count, tag.value, False) for code, tag in tags.items() if code in _GEO]
    return found | ({"extratags": geo} if geo else {})


def _largest(keyframe: Any) -> int:
    if keyframe.dtype.kind not in "bu":
        raise _other_colours(keyframe, f"0 as white with values of type {keyframe.dtype}")
    return 1 if keyframe.dtype.kind == "b" else 2 ** int(keyframe.bitspersample) - 1


def _refuse_unlike(keyframe: Any, photometric: int, channels: int) -> None:
    """CMYK of four inks and YCbCr in the full range, the standard's defaults, are known how to convert."""
    if photometric == _CMYK:
        fine = channels == 4 and keyframe.dtype in (np.uint8, np.uint16)
    else:
        ranges = keyframe.tags.get(532)
        whole = (0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1)
        weights = keyframe.tags.get(529)
        fine = channels == 3 and keyframe.dtype == np.uint8 and (ranges is None or tuple(ranges.value) == whole)
        fine &= weights is None or abs(weights.value[0] / weights.value[1] - 0.299) < 1e-3
    if not fine:
        raise _other_colours(keyframe, f"{'CMYK' if photometric == _CMYK else 'YCbCr'} of a special kind")


def _other_colours(keyframe: Any, what: str) -> SegbenchError:
    return SegbenchError(
        f"{keyframe.parent.filehandle.path} holds {what}",
        "grey levels, a palette, RGB, YCbCr or CMYK",
        "convert it to RGB first",
    )


def _rgb_of_cmyk(cmyk_HW4: NDArray[Any]) -> NDArray[Any]:
    """Ink-free light: (top - ink)(top - black) / top, without a colour profile, as viewers without one show it."""
    top = np.iinfo(cmyk_HW4.dtype).max
    light_HW4 = top - cmyk_HW4.astype(np.uint64)
    rgb_HW3: NDArray[Any] = ((light_HW4[..., :3] * light_HW4[..., 3:] + top // 2) // top).astype(cmyk_HW4.dtype)
    return rgb_HW3


def _rgb_of_ycbcr(ycc_HW3: NDArray[Any]) -> NDArray[Any]:
    """BT.601 in the full range, as JPEG's (JFIF)."""
    y, cb, cr = (ycc_HW3[..., channel].astype(np.float32) - (128 if channel else 0) for channel in range(3))
    rgb_HW3 = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1)
    rounded: NDArray[Any] = np.rint(rgb_HW3).clip(0, 255).astype(np.uint8)
    return rounded


def _palette(keyframe: Any) -> NDArray[Any] | None:
    """The colours of a palette image, K3 uint8; None if it has no palette or its colours are the grey levels."""
    if keyframe.photometric != 3 or keyframe.colormap is None:
        return None
    colours: NDArray[np.uint8] = (keyframe.colormap.T >> 8).astype(np.uint8)
    ramp = np.arange(len(colours))[:, None]
    return None if len(colours) == 256 and np.array_equal(colours, np.repeat(ramp, 3, axis=1)) else colours
