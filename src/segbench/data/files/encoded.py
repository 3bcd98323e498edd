"""The one decoder of PNG, JPEG, BMP, WebP, JPEG 2000 and GIF: whole, or refused.

OpenCV decodes without blocking other threads, unlike Pillow. JPEG is decoded by simplejpeg, to the same values: OpenCV
fills in what it cannot read, and its libraries print that to the terminal.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segbench.data.files.plain_tiff import plain_shape
from segbench.errors import SegbenchError, memory_ran_out, no_room, refuse_no_file
from segbench.runtime.limits import DEFLATE, refuse_bomb


def read_bytes(path: Path, name: str | None = None) -> bytes:
    """The content of a file.

    Args:
        path: the file.
        name: the image's id in a data set, for messages; None for a file that is in no data set.

    Raises:
        SegbenchError: it cannot be read.
    """
    try:
        refuse_no_file(path)
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
    """Whether the end of a JPEG, PNG, WebP or JPEG 2000 file is missing; bytes after the end do not matter."""
    # OpenCV silently fills the missing part of a truncated file with grey. The end marker must follow the last scan;
    # inside a scan neither marker can occur.
    if content.startswith(b"\xff\xd8") and not content.endswith(b"\xff\xd9"):
        return content.rfind(b"\xff\xd9") <= content.rfind(b"\xff\xda")
    if content.startswith(b"\x89PNG"):
        return _PNG_END not in content[-64:] and content.rfind(_PNG_END) < 0
    if content.startswith(b"RIFF"):
        return len(content) < 8 + int.from_bytes(content[4:8], "little")
    return content.startswith(_JPEG_2000) and content.rfind(b"\xff\xd9") < 0


_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_JPEG_2000 = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
"""A file with boxes, and a bare codestream."""


def frames_of(content: bytes) -> int:
    """The frames of an animated PNG or WebP, of which decoders return the first; 1 for any other file."""
    if content.startswith(_SIGNATURE):
        # The chunk stands before the pixels, where it may be a byte sequence by chance.
        at = content.find(b"acTL", 0, content.find(b"IDAT"))
        return int.from_bytes(content[at + 4 : at + 8]) if at >= 0 else 1
    if content.startswith(b"RIFF") and content[8:16] == b"WEBPVP8X" and content[20] & 2:
        return max(content.count(b"ANMF"), 1)
    return 1


def animated(path: Path, frames: int, name: str | None = None) -> SegbenchError:
    """The error for an animation, whose frames may differ."""
    found = f"{_called(path, name)} is an animation of {frames} frames"
    return SegbenchError(found, "one picture", "write a TIFF stack")


def loses_values(content: bytes) -> str | None:
    """The name of a compression that changes values, as a mask must not be written with; None for any other."""
    if content.startswith(b"\xff\xd8"):
        return "JPEG"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return None if b"VP8L" in content[12:128] else "lossy WebP"
    if content.startswith(_JPEG_2000):
        # The wavelet stands last among the settings of the first marker COD: 1 is the reversible one.
        cod = content.find(b"\xff\x52")
        return None if cod >= 0 and content[cod + 13 : cod + 14] == b"\x01" else "lossy JPEG 2000"
    return None


def orientation(content: bytes) -> int:
    """The turn that viewers apply to a photograph, EXIF's 1 to 8; 1 for none or an invalid one."""
    if content.startswith(b"\xff\xd8"):
        return _turn_in(_jpeg_exif(content))
    if content.startswith(_SIGNATURE):
        # By chunks: a search through the bytes of the pixels takes ten times as long.
        return _turn_in(next((content[at + 8 : end - 4] for name, at, end in _chunks(content) if name == b"eXIf"), b""))
    if content.startswith(b"RIFF") and (place := content.rfind(b"EXIF")) >= 0:
        return _turn_in(content[place + 8 :].removeprefix(b"Exif\0\0"))
    return 1


def _jpeg_exif(content: bytes) -> bytes:
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] not in (0xDA, 0xC0, 0xC2):
        size = int.from_bytes(content[at + 2 : at + 4])
        if content[at + 1] == 0xE1 and content[at + 4 : at + 10] == b"Exif\0\0":
            return content[at + 10 : at + 2 + size]
        at += 2 + size
    return b""


def _turn_in(exif: bytes) -> int:
    """The orientation in an EXIF block, which is laid out as a TIFF."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, at)
        for place in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, place)
            if (tag, kind) == (274, 3):
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _refuse_bomb(path: Path, content: bytes) -> None:
    height, width, channels = declared_shape(content)
    # Wider than eight bits are PNG, JPEG 2000 and TIFF alone, the first by its own bound.
    refuse_bomb(path, height * width * channels * (2 if content[:2] in (b"\0\0", b"\xff\x4f") else 1), len(content))


def declared_shape(content: bytes) -> tuple[int, int, int]:
    """H, W and C by the header of a PNG, JPEG, BMP, GIF, WebP, JPEG 2000 or TIFF.

    Raises:
        ValueError: it is none of these, or cut off in the header.
    """
    try:
        return _declared_shape(content)
    except struct.error as error:
        raise ValueError("it ends in its header") from error


def _declared_shape(content: bytes) -> tuple[int, int, int]:
    if content.startswith(_SIGNATURE):
        width, height, _, kind = struct.unpack_from(">IIBB", content, 16)
        return height, width, {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(kind, 4)
    if content.startswith(b"\xff\xd8"):
        at = 2
        while True:
            mark, kind, size = struct.unpack_from(">BBH", content, at)
            if mark != 0xFF:
                raise ValueError("no size in its header")
            if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
                height, width, channels = struct.unpack_from(">HHB", content, at + 5)
                return height, width, channels
            # Fill bytes may stand before a marker, and some markers have no length.
            at += 1 if kind == 0xFF else 2 if kind == 1 or 0xD0 <= kind <= 0xD8 else 2 + size
    if content.startswith(b"BM"):
        if struct.unpack_from("<I", content, 14)[0] == 12:
            width, height = struct.unpack_from("<HH", content, 18)
            return height, width, 3
        width, height = struct.unpack_from("<ii", content, 18)
        return abs(height), abs(width), 4
    if content.startswith(b"GIF8"):
        width, height = struct.unpack_from("<HH", content, 6)
        return height, width, 1
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return _webp_shape(content)
    if content.startswith(_JPEG_2000):
        # The size stands in the marker SIZ, first of the codestream.
        at = content.index(b"\xff\x4f\xff\x51")
        right, bottom, left, top = struct.unpack_from(">IIII", content, at + 8)
        (channels,) = struct.unpack_from(">H", content, at + 40)
        return max(bottom - top, 0), max(right - left, 0), channels
    if content[:4] in (b"II*\0", b"MM\0*"):
        return plain_shape(content)
    raise ValueError("no image of a known format")


def _webp_shape(content: bytes) -> tuple[int, int, int]:
    kind = content[12:16]
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", content, 21)
        return (packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1, 4
    if kind == b"VP8X":
        low = struct.unpack_from("<HBHB", content, 24)
        return (low[2] | low[3] << 16) + 1, (low[0] | low[1] << 16) + 1, 4
    width, height = struct.unpack_from("<HH", content, 26)
    return height & 0x3FFF, width & 0x3FFF, 3


def decode_gif(path: Path, content: bytes, name: str | None = None) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The indices of a GIF and their colours; of these OpenCV and others return only colours.

    Args:
        path: as in `decode`.
        content: as in `decode`.
        name: as in `read_bytes`.

    Returns:
        HW indices and the R, G, B of each index, K3.

    Raises:
        SegbenchError: damaged, or an animation.
    """
    import imagecodecs

    try:
        _refuse_bomb(path, content)
        indices = imagecodecs.gif_decode(content, asrgb=False)
        colours = np.frombuffer(_colour_table(content), np.uint8).reshape(-1, 3)
    except SegbenchError:
        raise
    except Exception as error:  # as in `decode`
        if memory_ran_out(error):
            raise no_room(path, error) from error
        raise damaged(path, len(content), str(error), name) from error
    if indices.ndim != 2:
        raise animated(path, len(indices), name)
    return indices, colours


def _colour_table(content: bytes) -> bytes:
    """Red, green and blue of each index of the first picture of a GIF."""
    at, table = 13, b""
    if content[10] & 0x80:
        table = content[at : at + 3 * 2 ** ((content[10] & 7) + 1)]
        at += len(table)
    while content[at] == 0x21:
        # An extension: its label and blocks, each with its length in front, up to an empty one.
        at += 2
        while content[at]:
            at += content[at] + 1
        at += 1
    flags = content[at + 9]
    return content[at + 10 : at + 10 + 3 * 2 ** ((flags & 7) + 1)] if flags & 0x80 else table


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
    if (frames := frames_of(content)) > 1:
        raise animated(path, frames, name)
    try:
        if content:
            _refuse_bomb(path, content)
        image = _decoded(path, content, flags) if content else None
    except SegbenchError:
        raise
    except Exception as error:  # its own errors, of memory, and of a header
        if memory_ran_out(error):
            raise no_room(path, error) from error
        why = error.err if isinstance(error, cv2.error) else f"no image, or damaged inside: {error}"
        raise damaged(path, len(content), why, name) from error
    if image is None:
        raise damaged(path, len(content), "no image, or damaged inside", name)
    decoded: NDArray[Any] = image
    return decoded


def _decoded(path: Path, content: bytes, flags: int) -> NDArray[Any] | None:
    if content.startswith(b"\xff\xd8") and (image := _decode_jpeg(content, flags)) is not None:
        return image
    if content.startswith(_SIGNATURE):
        content = _checked_png(path, content)
    return cv2.imdecode(np.frombuffer(content, np.uint8), flags)


def _decode_jpeg(content: bytes, flags: int) -> NDArray[np.uint8] | None:
    """As `cv2.imdecode`; None for other colours than grey and YCbCr, and for turns.

    Raises:
        ValueError: damaged inside.
    """
    colours = {1: "GRAY", 3: "BGR"}.get(declared_shape(content)[2])
    if colours is None or (flags != cv2.IMREAD_UNCHANGED and not flags & cv2.IMREAD_IGNORE_ORIENTATION):
        return None
    import simplejpeg

    if flags != cv2.IMREAD_UNCHANGED:
        colours = "RGB" if flags & cv2.IMREAD_COLOR_RGB else "BGR" if flags & cv2.IMREAD_COLOR else "GRAY"
    try:
        decoded_HWC: NDArray[np.uint8] = simplejpeg.decode_jpeg(content, colours)
    except ValueError as error:
        # Some cameras pad the end with equal bytes, where a damaged scan leaves coded ones.
        unused, end = _UNUSED.search(str(error)), content.rfind(b"\xff\xd9")
        if unused is None or len(set(content[end - int(unused[1]) : end])) != 1:
            raise
        decoded_HWC = simplejpeg.decode_jpeg(content, colours, strict=False)
    return decoded_HWC[..., 0] if colours == "GRAY" else decoded_HWC


_UNUSED = re.compile(r"(\d+) extraneous bytes before marker 0xd9")


def _checked_png(path: Path, content: bytes) -> bytes:
    """A PNG without what is not pixels, such as profiles and text, of which libpng prints its complaints.

    Raises:
        SegbenchError: it declares more than it can hold.
        ValueError: damaged inside, by the check sums.
    """
    view, kept, pixels = memoryview(content), [], 0
    others = False
    for name, at, end in _chunks(content):
        # OpenCV takes the memory that a chunk's length states before it reads on.
        if end > len(content):
            raise ValueError(f"its chunk {name!a} ends beyond the file")
        if name not in _PIXELS:
            others = True
            continue
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            raise ValueError(f"its chunk {name.decode()} is not what its check sum says")
        kept.append((at, end))
        pixels += end - at - 12 if name == b"IDAT" else 0
        if name == b"IEND":
            break
    height, width, channels = declared_shape(content)
    refuse_bomb(path, -(-height * width * channels * content[24] // 8), pixels, DEFLATE)
    return b"".join([_SIGNATURE, *(content[at:end] for at, end in kept)]) if others else content


_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
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
    for chunk, at, end in _chunks(content):
        if chunk == b"PLTE":
            colours = content[at + 8 : end - 4]
        elif chunk in (b"IDAT", b"IEND"):
            grey.append(content[at:end])
    if not colours or len(colours) % 3:
        raise damaged(path, len(content), "a palette without colours, or damaged inside", name)
    levels_HW = decode(path, b"".join(grey), cv2.IMREAD_UNCHANGED, name)
    if bits < 8:
        levels_HW //= 255 // (2**bits - 1)
    return levels_HW, np.frombuffer(colours, np.uint8).reshape(-1, 3)


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk of a PNG; its body begins 8 after the start and ends 4 before the end."""
    at = len(_SIGNATURE)
    while at + 8 <= len(content):
        length, name = _CHUNK.unpack_from(content, at)
        yield name, at, at + 12 + length
        at += 12 + length


_CHUNK = struct.Struct(">I4s")
