"""LZW as TIFF has it, decoded within bounds: the decoder that tifffile calls ends the process over damaged bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segbench.compiled import compiled

_CLEAR, _END, _FIRST = 256, 257, 258
_MOST = 4096
"""Codes have 9 to 12 bits."""


def decode_lzw(content: bytes, out: int) -> bytes:
    """Decode a tile or strip (TIFF 6.0, section 13), or one of libtiff before 1995, with its bits reversed.

    Args:
        content: the encoded bytes.
        out: the most bytes to decode; what follows them is not looked at.

    Returns:
        at most `out` bytes; fewer where the content ends before.

    Raises:
        ValueError: a code that stands for nothing.
    """
    encoded = np.frombuffer(content, np.uint8)
    # No byte gives more than a code's longest string.
    decoded = np.empty(min(out, len(encoded) * _MOST), np.uint8)
    old = len(encoded) > 1 and encoded[0] == 0 and encoded[1] & 1 == 1
    size = _decode(encoded, decoded, bool(old))
    if size < 0:
        raise ValueError("a code of its LZW compression stands for nothing")
    return decoded[:size].tobytes()


@compiled
def _decode(encoded: NDArray[np.uint8], decoded: NDArray[np.uint8], old: bool) -> int:
    """Bytes written, or -1. A string is a piece of what is decoded already: the one before and a byte more."""
    starts = np.zeros(_MOST, np.int64)
    sizes = np.zeros(_MOST, np.int64)
    bits = np.int64(0)
    held, at, width = 0, 0, 9
    following, size = _FIRST, 0
    before, before_size = 0, 0
    while size < len(decoded):
        while held < width and at < len(encoded):
            if old:
                bits |= np.int64(encoded[at]) << held
            else:
                bits = (bits << 8) | np.int64(encoded[at])
            held += 8
            at += 1
        if held < width:
            break
        if old:
            code = bits & ((1 << width) - 1)
            bits >>= width
        else:
            code = bits >> (held - width)
            bits &= (1 << (held - width)) - 1
        held -= width
        if code == _END:
            break
        if code == _CLEAR:
            following, width, before_size = _FIRST, 9, 0
            continue
        # The string that this code completes: it may be the code's own.
        if before_size and following < _MOST:
            starts[following], sizes[following] = before, before_size + 1
            following += 1
            if following + (0 if old else 1) >= 1 << width and width < 12:
                width += 1
        if code < _CLEAR:
            start, length = -1, 1
        elif code < following:
            start, length = starts[code], sizes[code]
        else:
            return -1
        length = min(length, len(decoded) - size)
        if start < 0:
            decoded[size] = code
        else:
            for step in range(length):
                decoded[size + step] = decoded[start + step]
        before, before_size = size, length
        size += length
    return size
