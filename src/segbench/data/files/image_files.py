"""Image files of any depth and number of channels: PNG, JPEG, GIF and the like, TIFF by tifffile, zarr.

Every path to pixels, of training, check, prediction and Python, goes through `ImageFile`: what a file states and what a
run decides (`Reading`) are applied there alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from segbench.data.files.encoded import decode, decode_gif, orientation, read_bytes
from segbench.data.files.plain_tiff import read_plain
from segbench.data.files.statements import (
    Decoded,
    Nodata,
    channels_as,
    empty_pixels,
    in_channels,
    kind_of,
    turned,
    turned_size,
    window_before,
)
from segbench.data.files.tiff_images import TiffImages
from segbench.data.files.volumes import VOLUME_SUFFIXES, VolumeImages, is_volume, split_name
from segbench.data.files.zarr_images import ZarrImages, is_zarr
from segbench.errors import SegbenchError
from segbench.spec import Reading

TIFF_SUFFIXES = (".tif", ".tiff")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".jp2", *TIFF_SUFFIXES, *VOLUME_SUFFIXES)
AS_STORED = Reading()


def is_tiff(path: Path) -> bool:
    """Whether the file's name is that of a TIFF."""
    return split_name(path.name)[1] in TIFF_SUFFIXES


def has_pages(path: Path) -> bool:
    """Whether the file may hold several images."""
    return is_tiff(path) or is_volume(path)


class Images(Protocol):
    """The images of one file as they are stored, read part by part.

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

    def nodata(self, index: int) -> Nodata | None:
        """The value that means no data, if the file declares one."""
        ...

    def alpha(self, index: int) -> bool:
        """Whether the last channel is transparency."""
        ...

    def turn(self, index: int) -> int:
        """The orientation that a viewer applies, EXIF's 1 to 8."""
        ...

    def read(self, index: int, y0: int = 0, y1: int | None = None, x0: int = 0, x1: int | None = None) -> NDArray[Any]:
        """Rows y0 to y1 and columns x0 to x1 (exclusive) of an image, HWC."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class DecodedImage:
    """A file of one image, decoded as a whole, as PNG, JPEG and the like cannot be read in parts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        content = read_bytes(path)
        self._image_HWC, self._turn = _decode(path, content), orientation(content)
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

    def nodata(self, index: int) -> Nodata | None:
        """None: these formats declare none."""
        return None

    def alpha(self, index: int) -> bool:
        """Whether there are four channels."""
        return bool(self._image_HWC.shape[2] == 4)

    def turn(self, index: int) -> int:
        """EXIF's orientation."""
        return self._turn

    def read(self, index: int, y0: int = 0, y1: int | None = None, x0: int = 0, x1: int | None = None) -> NDArray[Any]:
        """Rows y0 to y1 and columns x0 to x1 (exclusive), HWC."""
        return self._image_HWC[y0:y1, x0:x1]

    def close(self) -> None:
        """No-op, as no file is open."""


class ImageFile:
    """The images of one file as a run reads them: turned, in its channels, and where there is no data.

    Args:
        stored: the file.
        reading: how.
    """

    def __init__(self, stored: Images, reading: Reading = AS_STORED) -> None:
        self._stored, self._reading = stored, reading
        self.path = stored.path

    def __len__(self) -> int:
        return len(self._stored)

    def __enter__(self) -> ImageFile:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stored.close()

    @property
    def placement(self) -> dict[str, Any]:
        """Where the pixels lie in the world, as in `TiffImages`; empty for turned ones."""
        return self._stored.placement if self._turn(0) == 1 else {}

    def shape(self, index: int) -> tuple[int, int, int]:
        """H, W and C of an image."""
        height, width, channels = self._stored.shape(index)
        return *turned_size(height, width, self._turn(index)), channels_as(
            self._reading, channels, self._stored.alpha(index)
        )

    def dtype(self, index: int) -> np.dtype[Any]:
        """The type of an image's values."""
        return self._stored.dtype(index)

    def kind(self, index: int) -> str:
        """What the stored channels are: `kind_of`."""
        return kind_of(self._stored.shape(index)[2], self._stored.alpha(index))

    def stated_turn(self, index: int) -> int:
        """The orientation that a viewer applies to the stored image, EXIF's 1 to 8."""
        return self._stored.turn(index)

    def _turn(self, index: int) -> int:
        return self._stored.turn(index) if self._reading.exif == "turn" else 1

    def nodata(self, index: int) -> tuple[Nodata, ...]:
        """The values that mean no data, as stored, beside NaN."""
        own = self._stored.nodata(index)
        given = () if self._reading.nodata is None else ((self._reading.nodata,),)
        return given if own is None else (own, *given)

    def may_lack_data(self, index: int) -> bool:
        """Whether pixels without data are possible."""
        return bool(self.nodata(index)) or self.dtype(index).kind == "f"

    def decoded(self, index: int, y0: int = 0, y1: int | None = None, x0: int = 0, x1: int | None = None) -> Decoded:
        """Rows y0 to y1 and columns x0 to x1 (exclusive) of an image."""
        turn = self._turn(index)
        if turn == 1:
            part_HWC = self._stored.read(index, y0, y1, x0, x1)
        else:
            height, width, _ = self.shape(index)
            window = (y0, height if y1 is None else y1, x0, width if x1 is None else x1)
            before = window_before(turn, window, (height, width))
            part_HWC = np.ascontiguousarray(turned(self._stored.read(index, *before), turn))
        empty_HW = empty_pixels(part_HWC, self.nodata(index)) if self.may_lack_data(index) else None
        return Decoded(
            in_channels(part_HWC, self._reading, self._stored.alpha(index)), empty_HW, self._stored.nodata(index)
        )

    def read(self, index: int, y0: int = 0, y1: int | None = None, x0: int = 0, x1: int | None = None) -> NDArray[Any]:
        """The values of `decoded`, HWC."""
        return self.decoded(index, y0, y1, x0, x1).image_HWC


def open_images(
    path: Path, channels: int | None = None, reading: Reading = AS_STORED, cache_bytes: int | None = None
) -> ImageFile:
    """The images of a file or of a zarr folder, as `read_image` gives them.

    Args:
        path: a file whose name ends in one of `IMAGE_SUFFIXES`, or a zarr folder.
        channels: the expected C, to identify the axes of a zarr array without axis names.
        reading: how the run reads its files.
        cache_bytes: as in `TiffImages`.

    Raises:
        SegbenchError: as `read_image`; `read` raises it too.
    """
    stored: Images
    if is_zarr(path):
        stored = ZarrImages(path, channels, reading.axes)
    else:
        _check(path)
        if is_tiff(path):
            stored = TiffImages(path, cache_bytes, reading.axes)
        else:
            stored = VolumeImages(path) if is_volume(path) else DecodedImage(path)
    return ImageFile(stored, reading)


def read_decoded(path: Path, page: int | None = None, reading: Reading = AS_STORED) -> Decoded:
    """Decode an image, as `read_image`, with the pixels that have no data."""
    _check(path)
    plain_HWC = read_plain(path) if is_tiff(path) and page in (None, 0) else None
    if plain_HWC is not None:
        return _of_plain(plain_HWC, reading)
    with open_images(path, None, reading) as images:
        return images.decoded(_one_of(path, page, len(images)))


def _of_plain(plain_HWC: NDArray[Any], reading: Reading) -> Decoded:
    """A TIFF that states nothing beside its values."""
    nodata = () if reading.nodata is None else ((reading.nodata,),)
    possible = nodata or plain_HWC.dtype.kind == "f"
    empty_HW = empty_pixels(plain_HWC, nodata) if possible else None
    return Decoded(in_channels(plain_HWC, reading, alpha=False), empty_HW)


def read_image(path: Path, page: int | None = None, reading: Reading = AS_STORED) -> NDArray[Any]:
    """Decode an image.

    Args:
        path: a file whose name ends in one of `IMAGE_SUFFIXES`.
        page: the image's number in the file, from 0; None for the only one.
        reading: how the run reads its files; by default the values are those of the file, never turned.

    Returns:
        HWC in the file's dtype (bool for TIFF of one bit per pixel), black as 0; C is 1 for grey, colours are in the
        order R, G, B (A); a palette is replaced by its colours.

    Raises:
        SegbenchError: missing, of another format, truncated, damaged, without that page, or with several pages and none
            chosen.
    """
    return read_decoded(path, page, reading).image_HWC


def pages_of(path: Path, reading: Reading = AS_STORED) -> Iterator[tuple[Decoded, int, str]]:
    """Every image of a file in order, the orientation that viewers apply to it, and `kind_of` what is stored.

    The file is opened once.

    Raises:
        SegbenchError: as `read_image`.
    """
    _check(path)
    if is_tiff(path) and (plain_HWC := read_plain(path)) is not None:
        yield _of_plain(plain_HWC, reading), 1, kind_of(plain_HWC.shape[2], alpha=False)
        return
    with open_images(path, None, reading, cache_bytes=0) as images:
        for page in range(len(images)):
            yield images.decoded(page), images.stated_turn(page), images.kind(page)


def images_of(path: Path, reading: Reading = AS_STORED) -> Iterator[NDArray[Any]]:
    """Every image of a file in order, as `read_image` gives them; the file is opened once.

    Raises:
        SegbenchError: as `read_image`.
    """
    for page, _, _ in pages_of(path, reading):
        yield page.image_HWC


def _check(path: Path) -> None:
    if split_name(path.name)[1] not in IMAGE_SUFFIXES:
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


def _decode(path: Path, content: bytes) -> NDArray[Any]:
    if content[:4] == b"GIF8":
        indices_HW, colours_K3 = decode_gif(path, content)
        shown_HW3 = colours_K3[indices_HW]
        # A grey picture in a GIF has a palette too.
        grey = bool((shown_HW3 == shown_HW3[..., :1]).all())
        return shown_HW3[..., :1] if grey else shown_HW3
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
