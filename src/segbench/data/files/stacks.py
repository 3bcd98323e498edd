"""Read and write multi-page TIFF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segbench.data.files.tiff_images import TiffImages
from segbench.errors import SegbenchError
from segbench.runtime.files import written_whole


def read_stack(path: Path, key: str) -> NDArray[np.generic]:
    """Read a TIFF of any number of pages.

    Args:
        path: the file.
        key: the config key that named it, for messages.

    Returns:
        NHW (one page gives N = 1) or NHWC, in the file's dtype, as `TiffImages` reads it; a palette by its indices.

    Raises:
        SegbenchError: the file is missing, not TIFF or truncated, or its pages differ in size.
    """
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*.tif*"))[:6] if path.parent.is_dir() else []
        beside = f"; beside it: {', '.join(near)}" if near else ""
        raise SegbenchError(f"no file {path}{beside}", "a TIFF stack", f"correct {key}")
    try:
        with TiffImages(path, cache_bytes=0, indexed=True) as images:
            pages = [images.read(index) for index in range(len(images))]
    except SegbenchError as error:
        raise SegbenchError(
            error.found, "a whole TIFF stack", "fetch the file again and compare its size with the published one"
        ) from error
    pages = [page[..., 0] if page.shape[2] == 1 else page for page in pages]
    declared = {page.shape for page in pages}
    if len(declared) != 1:
        raise SegbenchError(
            f"{path} has pages of sizes {sorted(declared)}", "pages of one size", "split the file by page size"
        )
    return np.stack(pages)


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
