"""The one limit of what a file may take in memory: checked from its header, before memory is taken."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from segbench.errors import SegbenchError

VARIABLE = "SEGBENCH_LARGEST_FILE"
"""The environment variable that sets the bytes that any file may take."""

FREE = 3 * 2**28
"""Bytes that any file may take, however small it is: a mask of 15,000 x 15,000 in three channels."""

RATIO = 4096
"""Bytes in memory for each stored byte, where a file takes more than `FREE`."""

DEFLATE, LZW, PACKBITS = 1032, 2731, 64
"""The most that these codecs can make of a byte: three bytes give two codes of 258, of 4096, and 128 of 2."""


def refuse_bomb(
    path: Path, needed: int, stored: int | Callable[[], int], ratio: int = RATIO, in_parts: bool = False
) -> None:
    """Refuse a file that declares more than it can hold, or than this machine does.

    Args:
        path: the file.
        needed: bytes in memory by its header.
        stored: bytes of the file or of its part, or what counts them if they are needed.
        ratio: bytes in memory that one of them can give.
        in_parts: whether it is never in memory as a whole.

    Raises:
        SegbenchError: it needs over `FREE` bytes (`SEGBENCH_LARGEST_FILE`), and over `ratio` times those it has or over
            this machine's memory.
    """
    given = os.environ.get(VARIABLE, str(FREE))
    if not given.isdecimal():
        raise SegbenchError(f"{VARIABLE}={given}", "a number of bytes", f"set {VARIABLE}={FREE}")
    free = int(given)
    if needed <= free:
        return
    held = stored if isinstance(stored, int) else stored()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > held * ratio or (needed > memory and not in_parts):
        raise SegbenchError(
            f"{path} declares {needed:,} bytes in memory, stored in {held:,}",
            f"at most {free:,} bytes, or {ratio} for each that is stored and no more than this machine's {memory:,}",
            f"fetch or write it again; if it is whole and you trust it: {VARIABLE}={needed}",
        )
