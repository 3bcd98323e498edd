"""Compressed chunks of zarr, checked before they are decoded: a few bytes can state, or give, any length."""

from __future__ import annotations

import asyncio
import bz2
import contextlib
import gzip
import io
import lzma
import math
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from segbench.runtime.limits import FREE

_BLOSC = struct.Struct("<4B3I")
"""Version, version of the compressor, flags, size of a value; bytes decoded, of a block, and of the chunk."""
_WIDEST = 8
"""Bytes of a value in a chunk, which filters may widen."""


def bytes_of_chunk(shape: Sequence[int], dtype: np.dtype[Any]) -> int:
    """The most that a chunk of an array may be decoded to; beside its values there are check sums."""
    return math.prod(shape) * max(dtype.itemsize, _WIDEST) + 1024


@contextlib.contextmanager
def checked_chunks() -> Iterator[None]:
    """Arrays of zarr that are opened within the block check each chunk.

    A chunk of blosc whose header states another length than its own ended the process, where it is now a ValueError; so
    is a chunk that gives more than the array's chunks hold, which took any memory. Arrays of format 2 check it from
    then on, wherever they are opened, as their codecs are found when they are opened.
    """
    import zarr

    codecs = _codecs()
    with zarr.config.set({f"codecs.{name}": f"{codec.__module__}.{codec.__qualname__}" for name, codec in codecs}):
        yield


def limit_chunks(array: Any) -> None:
    """Let the chunks of an opened array of format 2 give as much as they hold; those of format 3 know it.

    Args:
        array: of zarr, opened within `checked_chunks`.
    """
    used = (getattr(array.metadata, "compressor", None), *(getattr(array.metadata, "filters", None) or ()))
    for codec in used:
        if hasattr(codec, "limit"):
            codec.limit(bytes_of_chunk(array.chunks, np.dtype(array.dtype)))


@cache
def _codecs() -> tuple[tuple[str, type], ...]:
    """Those of zarr's format 3 by name; registered, as are those of format 2."""
    import numcodecs
    import zarr

    for codec in (numcodecs.Blosc, numcodecs.Zlib, numcodecs.GZip, numcodecs.BZ2, numcodecs.LZMA, numcodecs.Zstd):
        numcodecs.register_codec(_of_format_2(codec))
    numcodecs.register_codec(_of_format_2(numcodecs.LZ4))
    third = {"blosc": zarr.codecs.BloscCodec, "gzip": zarr.codecs.GzipCodec, "zstd": zarr.codecs.ZstdCodec}
    checked = tuple((name, _of_format_3(codec, name)) for name, codec in third.items())
    for name, codec in checked:
        zarr.registry.register_codec(name, codec)
    return checked


def _of_format_2(codec: Any) -> Any:
    class Checked(codec):
        # What is not private is taken for a setting.
        _most = FREE

        def limit(self, most: int) -> None:
            self._most = most

        def decode(self, buf: Any, out: Any = None) -> Any:
            _refuse(codec.codec_id, bytes(memoryview(buf).cast("B")), self._most)
            return super().decode(buf, out)

    return _named(Checked, codec)


def _of_format_3(codec: Any, name: str) -> Any:
    class Checked(codec):
        async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
            most = bytes_of_chunk(chunk_spec.shape, chunk_spec.dtype.to_native_dtype())
            await asyncio.to_thread(_refuse, name, chunk_bytes.to_bytes(), most)
            return await super()._decode_single(chunk_bytes, chunk_spec)

    return _named(Checked, codec)


def _named(checked: type, codec: type) -> type:
    checked.__name__ = checked.__qualname__ = f"Checked{codec.__name__}"
    return checked


def _refuse(name: str, content: bytes, most: int) -> None:
    """Refuse a chunk that states or gives more than it may, without decoding more of it.

    Raises:
        ValueError: it does, or is not as long as its header says.
        Exception: whatever its library raises over a damaged one.
    """
    if name == "blosc" and (len(content) < _BLOSC.size or _BLOSC.unpack_from(content)[-1] != len(content)):
        raise ValueError("a chunk is not as long as its header says")
    if (given := _LENGTHS[name](content, most)) > most:
        raise ValueError(f"a chunk gives {given:,} bytes or more, of {most:,} that it may have")


def _zstd(content: bytes, most: int) -> int:
    """The length that the first frame of a chunk states; where it states none, less than its blocks may have, by one.

    RFC 8878, 3.1.1.
    """
    flags = content[4]
    alone = flags >> 5 & 1
    size = (alone, 2, 4, 8)[flags >> 6]
    at = 6 - alone + (0, 1, 2, 4)[flags & 3]
    if size:
        return int.from_bytes(content[at : at + size], "little") + 256 * (size == 2)
    base = 1 << 10 + (content[5] >> 3)
    of_block = min(base + base // 8 * (content[5] & 7), 2**17)
    length, last = -of_block, 0
    while not last and length <= most:
        header = int.from_bytes(content[at : at + 3], "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        if kind == _RESERVED or at + 3 > len(content):
            raise ValueError("a chunk of damaged blocks")
        length += of_block if kind == _COMPRESSED else size
        at += 3 + (1 if kind == _REPEATED else size)
    return length


_REPEATED, _COMPRESSED, _RESERVED = 1, 2, 3
"""Types of a block; the fourth is bytes as they are."""


def _unpacked(opened: Callable[[io.BytesIO], Any]) -> Callable[[bytes, int], int]:
    def length(content: bytes, most: int) -> int:
        with opened(io.BytesIO(content)) as file:
            return _read(file.read, most)

    return length


def _read(read: Callable[[int], bytes], most: int) -> int:
    length = 0
    while length <= most and (part := read(2**20)):
        length += len(part)
    return length


def _zlib(content: bytes, most: int) -> int:
    unpacking, left = zlib.decompressobj(), [content]

    def read(size: int) -> bytes:
        part = unpacking.decompress(left.pop(), size)
        left.append(unpacking.unconsumed_tail)
        return part

    return _read(read, most)


_LENGTHS: dict[str, Callable[[bytes, int], int]] = {
    "blosc": lambda content, most: int(_BLOSC.unpack_from(content)[4]),
    "lz4": lambda content, most: int.from_bytes(content[:4], "little"),
    "zstd": _zstd,
    "zlib": _zlib,
    "gzip": _unpacked(lambda file: gzip.GzipFile(fileobj=file)),
    "bz2": _unpacked(bz2.BZ2File),
    "lzma": _unpacked(lzma.LZMAFile),
}
