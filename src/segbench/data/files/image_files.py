"""Image files of any depth and number of channels: PNG, JPEG, BMP by OpenCV, TIFF by tifffile, zarr."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from segbench.data.files.encoded import decode, read_bytes
from segbench.data.files.plain_tiff import read_plain
from segbench.data.files.tiff_images import TiffImages
from segbench.data.files.zarr_images import ZarrImages, is_zarr
from segbench.errors import SegbenchError

TIFF_SUFFIXES = (".tif", ".tiff")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", *TIFF_SUFFIXES)


def is_tiff(path: Path) -> bool:
    """Whether the file's name is that of a TIFF."""
    return path.suffix.lower() in TIFF_SUFFIXES


class Images(Protocol):
    """The images of one file, read part by part.

    Attributes:
        path: of the file.
    """

    path: Path

    @property
    def placement(self) -> dict[str, Any]:
        """Where the pixels lie in the world, as in `TiffImages`; empty if the file does not say."""
        ...

    def __len__(self) -> int:
        """The number of images."""
        ...

    def shape(self, index: int) -> tuple[int, int, int]:
        """H, W and C of an image."""
        ...

    def dtype(self, index: int) -> np.dtype[Any]:
        """The type of an image's values."""
        ...

    def read(self, index: int, y0: int = 0, y1: int | None = None, x0: int = 0, x1: int | None = None) -> NDArray[Any]:
        """Rows y0 to y1 and columns x0 to x1 (exclusive) of an image, HWC."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class DecodedImage:
    """A file of one image, decoded as a whole, as PNG, JPEG and BMP cannot be read in parts."""

    def __init__(self, path: Path) -> None:
        self.path, self._image_HWC = path, _decode(path)
        self.placement: dict[str, Any] = {}

    def __len__(self) -> int:
        return 1

    def shape(self, index: int) -> tuple[int, int, int]:
        """H, W and C."""
        height, width, channels = self._image_HWC.shape
        return height, width, channels

    def dtype(self, index: int) -> np.dtype[Any]:
        """The type of its values."""
        return self._image_HWC.dtype

    def read(self, index: int, y0: int = 0, y1: int | None = None, x0: int = 0, x1: int | None = None) -> NDArray[Any]:
        """Rows y0 to y1 and columns x0 to x1 (exclusive), HWC."""
        return self._image_HWC[y0:y1, x0:x1]

    def close(self) -> None:
        """No-op, as no file is open."""


def open_images(path: Path, channels: int | None = None) -> Images:
    """The images of a file or of a zarr folder, as `read_image` gives them.

    Args:
        path: a file whose name ends in one of `IMAGE_SUFFIXES`, or a zarr folder.
        channels: the expected C, to identify the axes of a zarr array without axis names.

    Raises:
        SegbenchError: as `read_image`; `read` raises it too.
    """
    if is_zarr(path):
        return ZarrImages(path, channels)
    _check(path)
    return TiffImages(path) if is_tiff(path) else DecodedImage(path)


def read_image(path: Path, page: int | None = None) -> NDArray[Any]:
    """Decode an image without changing its values.

    Args:
        path: a file whose name ends in one of `IMAGE_SUFFIXES`.
        page: the image's number in the file, from 0; None for the only one.

    Returns:
        HWC in the file's dtype (bool for TIFF of one bit per pixel); C is 1 for grey, colours are in the order R, G, B
        (A); a palette is replaced by its colours. EXIF rotation is ignored, as labels have none.

    Raises:
        SegbenchError: missing, of another format, truncated, damaged, without that page, or with several pages and none
            chosen.
    """
    _check(path)
    if is_tiff(path):
        plain_HWC = read_plain(path) if page in (None, 0) else None
        if plain_HWC is not None:
            return plain_HWC
        with TiffImages(path) as images:
            return images.read(_one_of(path, page, len(images)))
    _one_of(path, page, 1)
    return _decode(path)


def images_of(path: Path) -> Iterator[NDArray[Any]]:
    """Every image of a file in order, as `read_image` gives them; the file is opened once.

    Raises:
        SegbenchError: as `read_image`.
    """
    _check(path)
    if not is_tiff(path):
        yield _decode(path)
        return
    if (plain_HWC := read_plain(path)) is not None:
        yield plain_HWC
        return
    with TiffImages(path, cache_bytes=0) as images:
        for page in range(len(images)):
            yield images.read(page)


def _check(path: Path) -> None:
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise SegbenchError(f"{path} ends in {path.suffix or 'nothing'}", " ".join(IMAGE_SUFFIXES), "convert it first")
    if not path.is_file():
        near = sorted(p.name for p in path.parent.iterdir())[:6] if path.parent.is_dir() else []
        beside = f"; beside it: {', '.join(near)}" if near else ""
        raise SegbenchError(f"no file {path}{beside}", "an image file", "correct the name")


def _one_of(path: Path, page: int | None, count: int) -> int:
    if page is None and count == 1:
        return 0
    if page is None or not 0 <= page < count:
        raise SegbenchError(
            f"{path} has {count} page{'s' * (count != 1)}, requested is {'the only one' if page is None else page}",
            "one page" if page is None else f"a page from 0 to {count - 1}",
            "choose a page, or split the file",
        )
    return page


def _decode(path: Path) -> NDArray[Any]:
    content = read_bytes(path)
    straight = _is_rgb(content)
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    image = decode(path, content, flags if straight else cv2.IMREAD_UNCHANGED)
    decoded_HWC: NDArray[Any] = image[..., np.newaxis] if image.ndim == 2 else image
    if straight:
        return decoded_HWC
    turned = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}.get(decoded_HWC.shape[2])
    return decoded_HWC if turned is None else np.asarray(cv2.cvtColor(decoded_HWC, turned))


_SOF = (0xC0, 0xC1, 0xC2)
"""Start-of-frame markers of JPEG: baseline, extended, progressive."""


def _is_rgb(content: bytes) -> bool:
    """Whether a file certainly has three channels: it is then decoded directly as R, G, B, not by way of B, G, R."""
    if content.startswith(b"\x89PNG"):
        # Colour type 2, and no colour that means transparency.
        return content[25:26] == b"\x02" and content.find(b"tRNS", 0, content.find(b"IDAT")) < 0
    at = 2 if content.startswith(b"\xff\xd8") else len(content)
    while at + 10 <= len(content) and content[at] == 0xFF:
        if content[at + 1] in _SOF:
            return content[at + 9] == 3
        at += 2 + int.from_bytes(content[at + 2 : at + 4])
    return False
