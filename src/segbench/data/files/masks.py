"""Masks of any coding (ids, palette indices or colours) as one integer per pixel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from segbench.data.files.encoded import decode_gif, decode_palette, loses_values, orientation, read_bytes
from segbench.data.files.image_files import AS_STORED, has_pages, pages_of, read_decoded
from segbench.data.files.statements import Decoded, Nodata, turned
from segbench.errors import SegbenchError
from segbench.spec import Reading

Kind = Literal["ids", "palette", "colours"]


@dataclass(frozen=True)
class Mask:
    """A mask as its file codes it.

    Attributes:
        codes_HW: any integer type: values (`ids`), palette indices, or colours as 0xRRGGBB.
        kind: which of the three.
        palette: of a palette PNG the colours by index, 0xRRGGBB; else empty.
        nodata: the code that means no data, if the file declares one (GDAL_NODATA).
    """

    codes_HW: NDArray[np.integer]
    kind: Kind
    palette: tuple[int, ...] = ()
    nodata: int | None = None


LACKING = -(2**53)
"""The code of no data in a mask of floats that declares NaN, or the lowest float; no other number is as low."""


def read_mask(
    path: Path,
    page: int | None = None,
    read: Callable[[Path, int | None], Decoded] | None = None,
    reading: Reading = AS_STORED,
) -> Mask:
    """Read a mask.

    Args:
        path: PNG, TIFF, BMP, GIF, or WebP or JPEG 2000 without loss.
        page: of a TIFF stack, from 0; None for the only one.
        read: reads the image from the file, as `read_decoded` does by `reading`.
        reading: how; only the turn matters.

    Raises:
        SegbenchError: unreadable, of a compression with loss, transparent, or with values that are not integers.
    """
    if not has_pages(path):
        content = read_bytes(path)
        if (lossy := loses_values(content)) is not None:
            raise SegbenchError(
                f"{path} is a {lossy}, whose compression changes the values of a mask",
                "masks in a lossless format: PNG or TIFF",
                f"export the masks again as PNG; converting the {lossy} does not restore them",
            )
        if (indexed := _indexed(path, content)) is not None:
            turn = orientation(content) if reading.exif == "turn" else 1
            return indexed if turn == 1 else replace(indexed, codes_HW=turned(indexed.codes_HW, turn))
    return _of_page(read_decoded(path, page, reading) if read is None else read(path, page), path)


def masks_of(path: Path, reading: Reading = AS_STORED) -> Iterator[Mask]:
    """Every page of a mask file, in order; raises as `read_mask`."""
    if has_pages(path):
        for page, _, _ in pages_of(path, reading):
            yield _of_page(page, path)
    else:
        yield read_mask(path, reading=reading)


def _indexed(path: Path, content: bytes) -> Mask | None:
    """The indices of a palette PNG or a GIF; of a GIF of greys, which needs a palette too, the levels."""
    gif = content[:4] == b"GIF8"
    if (found := decode_gif(path, content) if gif else decode_palette(path, content)) is None:
        return None
    indices_HW, colours_K3 = found
    if gif and bool((colours_K3[indices_HW] == colours_K3[indices_HW][..., :1]).all()):
        return Mask(colours_K3[indices_HW][..., 0], "ids")
    packed = colours_K3.astype(np.int64) @ (1 << 16, 1 << 8, 1)
    return Mask(indices_HW, "palette", tuple(packed.tolist()))


def _of_page(page: Decoded, path: Path) -> Mask:
    """A decoded mask, with the code of what it declares as no data."""
    if page.declared is None:
        return coded(page.image_HWC, path)
    if page.image_HWC.dtype.kind == "f" and not _is_code(page.declared[0]):
        # NaN, or the lowest float.
        values_HWC, value = page.image_HWC.astype(np.float64), page.declared[0]
        stored = page.image_HWC.dtype.type(value)
        values_HWC[np.isnan(values_HWC) if math.isnan(value) else values_HWC == stored] = LACKING
        return replace(coded(values_HWC, path), nodata=LACKING)
    mask = coded(page.image_HWC, path)
    return replace(mask, nodata=_code(page.declared, mask.kind))


def _is_code(value: float) -> bool:
    return value.is_integer() and abs(value) < 2**53


def _code(nodata: Nodata, kind: Kind) -> int | None:
    """The code of a pixel of these values; None if no pixel can have them."""
    if not all(map(_is_code, nodata)):
        return None
    if kind == "ids":
        return int(nodata[0])
    channels = [int(value) for value in (nodata * 3)[:3]]
    if max(channels) > 255:
        # Eight bits saved as sixteen, as in `coded`.
        channels = [value // 257 for value in channels]
    red, green, blue = channels
    return (red << 16) + (green << 8) + blue if min(channels) >= 0 else None


def coded(image_HWC: NDArray[Any], path: Path) -> Mask:
    """Interpret a decoded image as a mask.

    Args:
        image_HWC: ids (C = 1), or colours with or without an opaque alpha channel, as `read_image` gives them.
        path: of the file, for messages.

    Raises:
        SegbenchError: transparent, of another number of channels, or with values that are not integers.
    """
    channels = image_HWC.shape[2]
    if channels == 1:
        return Mask(_whole(image_HWC[..., 0], path), "ids")
    if channels not in (3, 4):
        raise SegbenchError(
            f"{path} has {channels} channels",
            "a mask of one channel (ids), three (colours) or with a palette",
            "write the class of each pixel into one channel",
        )
    if channels == 4 and (image_HWC[..., 3] != np.iinfo(image_HWC.dtype).max).any():
        raise SegbenchError(
            f"{path} is transparent in places",
            "a mask without transparency, which has no meaning for classes",
            "flatten it: write it again without its alpha channel",
        )
    colours_HW3 = image_HWC[..., :3]
    if image_HWC.dtype == np.uint16 and (colours_HW3 % 257 == 0).all():
        # Eight bits saved as sixteen: v became 257 v.
        colours_HW3 = (colours_HW3 // 257).astype(np.uint8)
    if colours_HW3.dtype != np.uint8:
        raise SegbenchError(
            f"{path} has colours of type {image_HWC.dtype}", "colours of 8 bits", "write the mask as 8-bit PNG"
        )
    # B, G, R, 255 read as one little-endian number is 0xFFRRGGBB.
    bgra_HW4 = np.asarray(cv2.cvtColor(np.ascontiguousarray(colours_HW3), cv2.COLOR_RGB2BGRA))
    packed_HW = bgra_HW4.view("<i4")[..., 0]
    packed_HW &= 0xFFFFFF
    return Mask(packed_HW, "colours")


def _whole(values_HW: NDArray[Any], path: Path) -> NDArray[np.integer]:
    if values_HW.dtype == bool:
        return values_HW.astype(np.uint8)
    if np.issubdtype(values_HW.dtype, np.integer):
        return values_HW
    # Values that are not finite are not integers either.
    whole = np.isfinite(values_HW) & (values_HW == np.floor(values_HW)) & (np.abs(values_HW) <= 2**53)
    if not whole.all():
        raise SegbenchError(
            f"{path} has {int((~whole).sum())} values that are not integers, such as {values_HW[~whole][0]:g}",
            "a class id per pixel",
            "give masks, not probabilities or images",
        )
    return values_HW.astype(np.int64)
