"""Chunks of zarr compressed by blosc, whose length is checked first: the decoder trusts the one in their header."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from functools import cache, cached_property
from typing import Any

_HEADER = struct.Struct("<4B3I")
"""Version, version of the compressor, flags, size of a value; bytes decoded, of a block, and of the chunk."""


@contextlib.contextmanager
def checked_blosc() -> Iterator[None]:
    """Arrays of zarr that are opened within the block check each chunk.

    A chunk whose header states another length than its own ended the process, where it is now a ValueError. Arrays of
    format 2 check it from then on, wherever they are opened, as their codec is found when a chunk is read.
    """
    import zarr

    codec = _codec()
    with zarr.config.set({"codecs.blosc": f"{codec.__module__}.{codec.__qualname__}"}):
        yield


@cache
def _codec() -> Any:
    """That of zarr's format 3; registered, as is that of format 2."""
    import zarr
    from numcodecs import Blosc, register_codec
    from zarr.codecs import BloscCodec

    class CheckedBlosc(Blosc):
        def decode(self, buf: Any, out: Any = None) -> Any:
            content = memoryview(buf).cast("B")
            if len(content) < _HEADER.size or _HEADER.unpack_from(content)[-1] != len(content):
                raise ValueError("a chunk is not as long as its header says")
            return super().decode(buf, out)

    class CheckedBloscCodec(BloscCodec):
        @cached_property
        def _blosc_codec(self) -> Any:
            settings = super()._blosc_codec.get_config()
            del settings["id"]
            return CheckedBlosc(**settings)

    register_codec(CheckedBlosc)
    zarr.registry.register_codec("blosc", CheckedBloscCodec)
    return CheckedBloscCodec
