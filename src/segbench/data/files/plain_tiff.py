"""The commonest TIFF, one grey or RGB image and nothing else, decoded by libtiff in one call.

For small files, of which folders have thousands, tifffile takes longer to parse the file than to decode it.
"""

from __future__ import annotations

import io
import json
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from segbench.runtime.limits import DEFLATE, LZW, refuse_bomb

LARGEST = 2**26
"""Bytes of the largest file that is read as a whole; larger ones are read in parts elsewhere."""

SMALL = 2**22
"""Bytes of the largest file that is read before it is known to be plain; of larger ones only the directory is."""

_COMPRESSIONS = {1: 1, 5: LZW, 8: DEFLATE, 32946: DEFLATE}
"""None, LZW, and zlib under its two numbers, all lossless, and what they can make of a byte."""

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _DESCRIPTION = 256, 257, 258, 259, 262, 270
_ORIENTATION, _SAMPLES, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _SUBIFDS = 274, 277, 284, 322, 323, 330
_FORMAT, _GDAL_NODATA = 339, 42113
_WANTED = {
    *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _DESCRIPTION, _ORIENTATION),
    *(_SAMPLES, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _SUBIFDS, _FORMAT, _GDAL_NODATA),
}
_ASCII, _SHORT, _LONG = 2, 3, 4
_LETTERS = {_ASCII: "B", _SHORT: "H", _LONG: "I"}


def read_plain(path: Path) -> NDArray[Any] | None:
    """Decode the only image of an existing file.

    Returns:
        HWC in the file's dtype; None if the file is of another kind, or damaged, which a full reader then reports.
    """
    import imagecodecs

    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read() if size <= SMALL else None
            tags = _tags(file if content is None else io.BytesIO(content)) if size <= LARGEST else None
            if tags is None or not _is_plain(tags):
                return None
            if content is None:
                file.seek(0)
                content = file.read()
        refuse_bomb(path, _needed(tags), len(content), _COMPRESSIONS[_first(tags, _COMPRESSION)])
        image = imagecodecs.tiff_decode(content)
        decoded: NDArray[Any] = image.reshape(_first(tags, _HEIGHT), _first(tags, _WIDTH), -1)
    except Exception:  # a full reader says why
        return None
    return decoded


def plain_shape(content: bytes) -> tuple[int, int, int]:
    """H, W and C times the bytes of a value, by the directory of a TIFF's first page.

    Raises:
        ValueError: it has none.
    """
    try:
        tags = _tags(io.BytesIO(content), alone=False)
    except (struct.error, OverflowError) as error:
        raise ValueError("it ends in its header") from error
    if tags is None:
        raise ValueError("no directory of a TIFF")
    return _first(tags, _HEIGHT, 0), _first(tags, _WIDTH, 0), _first(tags, _SAMPLES) * -(-_first(tags, _BITS) // 8)


def _tags(file: BinaryIO, alone: bool = True) -> dict[int, Any] | None:
    """The first directory of a classic TIFF, if it is the only one or need not be `alone`."""
    head = file.read(8)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(head[:4])
    if order is None:
        return None
    file.seek(struct.unpack(f"{order}I", head[4:])[0])
    (count,) = struct.unpack(f"{order}H", file.read(2))
    directory = file.read(12 * count + 4)
    if struct.unpack_from(f"{order}I", directory, 12 * count)[0] and alone:
        return None
    tags: dict[int, Any] = {}
    for place in range(0, 12 * count, 12):
        tag, kind, length = struct.unpack_from(f"{order}HHI", directory, place)
        if tag not in _WANTED or kind not in _LETTERS:
            continue
        form = f"{order}{length if kind == _ASCII else min(length, 4)}{_LETTERS[kind]}"
        value = directory[place + 8 : place + 12]
        if struct.calcsize(f"{order}{length}{_LETTERS[kind]}") > 4:
            file.seek(struct.unpack(f"{order}I", value)[0])
            value = file.read(struct.calcsize(form))
        tags[tag] = value[:length] if kind == _ASCII else struct.unpack_from(form, value)
    return tags


def _first(tags: dict[int, Any], tag: int, default: int = 1) -> int:
    return int(tags[tag][0]) if tag in tags else default


def _needed(tags: dict[int, Any]) -> int:
    # The last tiles reach beyond the picture.
    height = _first(tags, _HEIGHT) + _first(tags, _TILE_HEIGHT, 0)
    width = _first(tags, _WIDTH) + _first(tags, _TILE_WIDTH, 0)
    return height * width * _first(tags, _SAMPLES) * _first(tags, _BITS) // 8


def _is_plain(tags: dict[int, Any]) -> bool:
    samples, bits = _first(tags, _SAMPLES), tags.get(_BITS, (1,))
    return (
        _first(tags, _COMPRESSION) in _COMPRESSIONS
        and _first(tags, _PLANAR) == 1
        and _SUBIFDS not in tags
        # Pixels without data, and a picture that viewers turn.
        and _GDAL_NODATA not in tags
        and _first(tags, _ORIENTATION) == 1
        and set(bits) <= ({32} if _first(tags, _FORMAT) == 3 else {8, 16})
        and len(set(bits)) == 1
        and _first(tags, _FORMAT) in (1, 3)
        # 1: black is 0; 2: RGB. Others invert, look up colours or convert.
        and (_first(tags, _PHOTOMETRIC, 0), samples) in ((1, 1), (2, 3))
        and _describes_one_image(tags)
    )


def _describes_one_image(tags: dict[int, Any]) -> bool:
    """Whether no description mentions more pages or channels than the one directory shows."""
    description = tags.get(_DESCRIPTION, b"").strip(b"\0 \n")
    # Versions of tifffile wrote its keys in another order, and no JSON before.
    if description.startswith(b"{") and b'"shape":' in description:
        shape = json.loads(description)["shape"]
        return [side for side in shape if side != 1] == [
            side for side in (_first(tags, _HEIGHT), _first(tags, _WIDTH), _first(tags, _SAMPLES)) if side != 1
        ]
    return not (description.startswith((b"ImageJ=", b"shape=")) or b"<OME" in description)
