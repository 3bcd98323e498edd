"""Loops that numba compiles, and keeps on disk where it can."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from numba import njit

Loop = TypeVar("Loop", bound=Callable[..., Any])

log = logging.getLogger(__name__)


def compiled(loop: Loop) -> Loop:
    """Compile a loop at its first call, without the interpreter's lock, and keep the result for later processes.

    Where neither the source's folder nor a cache folder can be written, each process compiles it again, and says so
    once.
    """
    try:
        made: Loop = njit(cache=True, nogil=True)(loop)
    except (RuntimeError, OSError):
        _tell_of_no_cache()
        made = njit(nogil=True)(loop)
    return made


@cache
def _tell_of_no_cache() -> None:
    log.warning(
        "what numba compiles can be kept neither beside the source nor in a cache folder, so every command compiles it "
        "again, for some ten seconds; set NUMBA_CACHE_DIR to a folder that this user alone may write"
    )
