"""Masks of any coding, ids, palette indices or colours: one whole number a pixel, and how many pixels have which."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from segbench.data.image_files import images_of, read_image
from segbench.errors import SegbenchError

Kind = Literal["ids", "palette", "colours"]


@dataclass(frozen=True)
class Mask:
    """A mask as its file codes it.

    Attributes:
        codes_HW: whole numbers of any integer type: values (`ids`), palette indices, or colours as 0xRRGGBB.
        kind: which of the three.
        palette: of a palette PNG the colours by index, 0xRRGGBB; else empty.
    """

    codes_HW: NDArray[np.integer]
    kind: Kind
    palette: tuple[int, ...] = ()


def read_mask(path: Path, page: int | None = None) -> Mask:
    """Read a mask.

    Args:
        path: PNG, TIFF or BMP.
        page: of a TIFF stack, from 0; None for the only one.

    Raises:
        SegbenchError: unreadable, JPEG, transparent, or of values that are no whole numbers.
    """
    if path.suffix.lower() in (".jpg", ".jpeg"):
        raise SegbenchError(
            f"{path} is a JPEG, whose compression changes the values of a mask",
            "masks in a format without loss: PNG or TIFF",
            "export the masks anew as PNG; from JPEG they do not come back as they were",
        )
    palette = _read_palette_png(path) if path.suffix.lower() == ".png" else None
    return _coded(read_image(path, page), path) if palette is None else palette


def masks_of(path: Path) -> Iterator[Mask]:
    """Every page of a mask file, in order; raises as `read_mask`."""
    if path.suffix.lower() in (".tif", ".tiff"):
        for image_HWC in images_of(path):
            yield _coded(image_HWC, path)
    else:
        yield read_mask(path)


def _read_palette_png(path: Path) -> Mask | None:
    """The indices of a palette PNG, which OpenCV replaces by colours; None for any other file."""
    from PIL import Image

    try:
        with path.open("rb") as file:
            header = file.read(26)
            # The colour type stands behind signature, chunk head, width, height and bit depth; 3 is a palette.
            if header[:8] != b"\x89PNG\r\n\x1a\n" or header[25:] != b"\x03":
                return None
            with Image.open(file) as image:
                indices_HW = np.asarray(image)
                colours = np.array(image.getpalette("RGB"), np.int64).reshape(-1, 3)
    except (OSError, SyntaxError, ValueError) as error:
        raise SegbenchError(
            f"{path} cannot be decoded: {error}", "a whole palette PNG", "fetch or write it again"
        ) from error
    return Mask(indices_HW, "palette", tuple((colours @ (1 << 16, 1 << 8, 1)).tolist()))


def _coded(image_HWC: NDArray[Any], path: Path) -> Mask:
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
            "a mask without transparency, which says nothing of the class",
            "flatten it: write it again without its alpha channel",
        )
    colours_HW3 = image_HWC[..., :3]
    if image_HWC.dtype == np.uint16 and (colours_HW3 % 257 == 0).all():
        # Eight bits written as sixteen: v became 257 v.
        colours_HW3 = (colours_HW3 // 257).astype(np.uint8)
    if colours_HW3.dtype != np.uint8:
        raise SegbenchError(
            f"{path} has colours of type {image_HWC.dtype}", "colours of 8 bits", "write the mask as 8-bit PNG"
        )
    # B, G, R, 255 read as one little-endian number is 0xFFRRGGBB.
    bgra_HW4 = np.asarray(cv2.cvtColor(np.ascontiguousarray(colours_HW3), cv2.COLOR_RGB2BGRA))
    return Mask((bgra_HW4.view("<u4")[..., 0] & 0xFFFFFF).astype(np.int32), "colours")


def _whole(values_HW: NDArray[Any], path: Path) -> NDArray[np.integer]:
    if values_HW.dtype == bool:
        return values_HW.astype(np.uint8)
    if np.issubdtype(values_HW.dtype, np.integer):
        return values_HW
    # Not finite values are no whole numbers either.
    whole = np.isfinite(values_HW) & (values_HW == np.floor(values_HW)) & (np.abs(values_HW) < 2**53)
    if not whole.all():
        raise SegbenchError(
            f"{path} holds {int((~whole).sum())} values that are no whole numbers, as {values_HW[~whole][0]:g}",
            "a class id a pixel",
            "give masks, not probabilities or images, as data.masks",
        )
    return values_HW.astype(np.int64)


def count_codes(codes_HW: NDArray[np.integer]) -> tuple[list[int], list[int]]:
    """How many pixels have which code, exactly.

    Masks consist of regions, so runs of equal words of eight bytes are counted, several pixels at a time: a tenth of
    the time of counting the pixels.

    Returns:
        the codes in ascending order, and their pixels.
    """
    codes = np.ascontiguousarray(codes_HW).reshape(-1)
    in_word = 8 // codes.itemsize
    words = codes[: codes.size - codes.size % in_word].view(np.uint64)
    ends = np.append(np.flatnonzero(words[1:] != words[:-1]), words.size - 1)[: words.size]
    met = np.concatenate([words[ends].view(codes.dtype), codes[words.size * in_word :]])
    times = np.ones(met.size)
    times[: ends.size * in_word] = np.repeat(np.diff(ends, prepend=-1), in_word)
    # Sums of whole numbers in float64 are exact up to 2^53.
    if codes.dtype in (np.uint8, np.uint16):
        pixels = np.bincount(met, times)
        values = np.flatnonzero(pixels)
        return values.tolist(), pixels[values].astype(np.int64).tolist()
    values, places = np.unique(met, return_inverse=True)
    return values.tolist(), np.bincount(places, times).astype(np.int64).tolist()


def count_runs(codes_HW: NDArray[np.integer]) -> int:
    """Runs of equal pixels, row after row: few in a mask, nearly as many as pixels in a photograph."""
    codes = np.ascontiguousarray(codes_HW).reshape(-1)
    return int(np.count_nonzero(codes[1:] != codes[:-1])) + 1
