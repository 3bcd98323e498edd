"""The one decoder of PNG, JPEG and BMP: OpenCV on the file's bytes, whole or refused.

OpenCV decodes without blocking other threads, unlike Pillow.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segbench.errors import SegbenchError


def read_bytes(path: Path, name: str | None = None) -> bytes:
    """The content of a file.

    Args:
        path: the file.
        name: the image's id in a data set, for messages; None for a file that is in no data set.

    Raises:
        SegbenchError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        expected, action = (
            ("a file that this user may read", "restore it")
            if name is None
            else (
                "the file, as it is in the data set's lists",
                "restore it, or check the whole data set with segbench data check",
            )
        )
        raise SegbenchError(f"{_called(path, name)} cannot be read: {error.strerror}", expected, action) from error


def damaged(path: Path, size: int, why: str, name: str | None = None) -> SegbenchError:
    """The error for a file whose content is damaged.

    Args:
        path: the file.
        size: bytes.
        why: what is wrong with it.
        name: as in `read_bytes`.
    """
    expected, action = (
        ("a whole image file", "fetch or write it again")
        if name is None
        else ("a whole file", "unpack or fetch it again; segbench data check lists every such file")
    )
    return SegbenchError(f"{_called(path, name)} cannot be decoded ({size} bytes): {why}", expected, action)


def _called(path: Path, name: str | None) -> str:
    return str(path) if name is None else f"{path}, of image {name},"


def is_cut(content: bytes) -> bool:
    """Whether the end of a JPEG or PNG file is missing."""
    # OpenCV silently fills the missing part of a truncated file with grey. The end marker must follow the last scan;
    # inside a scan neither marker can occur.
    if content.startswith(b"\xff\xd8") and not content.endswith(b"\xff\xd9"):
        return content.rfind(b"\xff\xd9") <= content.rfind(b"\xff\xda")
    return content.startswith(b"\x89PNG") and b"IEND" not in content[-64:]


def decode(path: Path, content: bytes, flags: int, name: str | None = None) -> NDArray[Any]:
    """Decode an image.

    Args:
        path: of the file, for messages.
        content: of the whole file.
        flags: of `cv2.imdecode`.
        name: as in `read_bytes`.

    Returns:
        HW or HWC as OpenCV returns it.

    Raises:
        SegbenchError: not an image, truncated or damaged.
    """
    if is_cut(content):
        raise damaged(path, len(content), "its end is missing", name)
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    except cv2.error as error:
        raise damaged(path, len(content), str(error.err), name) from error
    if image is None:
        raise damaged(path, len(content), "no image, or damaged inside", name)
    decoded: NDArray[Any] = image
    return decoded


_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def decode_palette(
    path: Path, content: bytes, name: str | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """The indices and colours of a palette PNG; OpenCV alone returns only colours.

    Without its colour table a palette PNG is a grey one, whose levels are the indices scaled to eight bits.

    Args:
        path: as in `decode`.
        content: as in `decode`.
        name: as in `read_bytes`.

    Returns:
        HW indices and the R, G, B of each index, K3; None for any other file.

    Raises:
        SegbenchError: as `decode`.
    """
    # Signature, chunk head, width and height, bit depth, colour type; 3 is a palette.
    if content[:8] != _SIGNATURE or content[25:26] != b"\x03":
        return None
    if is_cut(content):
        raise damaged(path, len(content), "its end is missing", name)
    bits, colours = content[24], b""
    head = b"IHDR" + content[16:25] + b"\0" + content[26:29]
    grey = [_SIGNATURE, struct.pack(">I", 13), head, struct.pack(">I", zlib.crc32(head))]
    for chunk_name, chunk, body in _chunks(content):
        if chunk_name == b"PLTE":
            colours = body
        elif chunk_name in (b"IDAT", b"IEND"):
            grey.append(chunk)
    if not colours or len(colours) % 3:
        raise damaged(path, len(content), "a palette without colours, or damaged inside", name)
    levels_HW = decode(path, b"".join(grey), cv2.IMREAD_UNCHANGED, name)
    if bits < 8:
        levels_HW //= 255 // (2**bits - 1)
    return levels_HW, np.frombuffer(colours, np.uint8).reshape(-1, 3)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Name, whole chunk and body of each chunk of a PNG."""
    at = len(_SIGNATURE)
    while at + 8 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4])
        yield content[at + 4 : at + 8], content[at:end], content[at + 8 : end - 4]
        at = end
