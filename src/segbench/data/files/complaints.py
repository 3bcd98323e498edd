"""What tifffile only logs, as errors."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

_hearing = threading.local()


def _hear(record: logging.LogRecord) -> bool:
    complaints: list[str] | None = getattr(_hearing, "complaints", None)
    if complaints is None or record.levelno < logging.ERROR:
        return True
    complaints.append(record.getMessage())
    return False


@contextlib.contextmanager
def complaints_raised() -> Iterator[None]:
    """Raise what tifffile only logs: from a truncated file it returns the pages before the cut.

    Raises:
        ValueError: with the complaints of this thread; others may be reading other files.
    """
    logger = logging.getLogger("tifffile")
    if _hear not in logger.filters:
        # It stays: filters must not be removed from a logger while other threads write to it.
        logger.addFilter(_hear)
    before: list[str] | None = getattr(_hearing, "complaints", None)
    complaints: list[str] = []
    _hearing.complaints = complaints
    try:
        yield
    finally:
        _hearing.complaints = before
    if complaints:
        raise ValueError("; ".join(complaints))
