"""Read and write multi-page TIFF."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segbench.errors import SegbenchError
from segbench.runtime.files import written_whole


def read_stack(path: Path, key: str) -> NDArray[np.generic]:
    """Read a TIFF of any number of pages.

    Args:
        path: the file.
        key: the config key that named it, for messages.

    Returns:
        NHW (one page gives N = 1) or NHWC, in the file's dtype.

    Raises:
        SegbenchError: the file is missing, not TIFF or truncated, or its pages differ in size.
    """
    import tifffile

    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*.tif*"))[:6] if path.parent.is_dir() else []
        beside = f"; beside it: {', '.join(near)}" if near else ""
        raise SegbenchError(f"no file {path}{beside}", "a TIFF stack", f"correct {key}")
    try:
        with complaints_raised(), tifffile.TiffFile(path) as tiff:
            pages = [page.asarray() for page in tiff.pages] if len(tiff.pages) > 1 else [*_planes(tiff.asarray())]
        declared = {page.shape for page in pages}
    except (tifffile.TiffFileError, ValueError, OSError, RuntimeError, IndexError, KeyError, TypeError) as error:
        raise SegbenchError(
            f"{path} ({path.stat().st_size} bytes) cannot be read as TIFF: {error}",
            "a whole TIFF stack",
            "fetch the file again and compare its size with the published one",
        ) from error
    if len(declared) != 1 or not pages:
        raise SegbenchError(
            f"{path} has pages of sizes {sorted(declared)}", "pages of one size", "split the file by page size"
        )
    return np.stack(pages)


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


def _planes(array: NDArray[np.generic]) -> NDArray[np.generic]:
    # One page is HW or HWC; ImageJ writes a whole stack (NHW) after a single page header.
    return array if array.ndim == 3 and array.shape[-1] > 4 else array[np.newaxis]


def write_stack(path: Path, stack: NDArray[np.generic]) -> None:
    """Write NHW as a TIFF of N pages, under a temporary name that is renamed when it is complete.

    Args:
        path: the file; its folder is created.
        stack: NHW, uint8, uint16 or float32.
    """
    import tifffile

    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        tifffile.imwrite(partial, stack, photometric="minisblack", metadata=None)
