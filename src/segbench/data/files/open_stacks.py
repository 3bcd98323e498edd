"""Stacks that stay open between reads: in a long one, finding a page takes longer than decoding it."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from segbench.data.files.image_files import is_tiff, read_image
from segbench.data.files.tiff_images import TiffImages

MOST_OPEN = 32


class OpenStacks:
    """Reads images as `read_image` does, and keeps the stacks among their files open, the last `MOST_OPEN` of them.

    Each process opens its own: a handle inherited by a fork shares its position with the parent's.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._stacks: OrderedDict[Path, TiffImages] = OrderedDict()

    def read(self, path: Path, page: int | None = None) -> NDArray[Any]:
        """HWC, as `read_image`; a page of a TIFF from the open file."""
        return read_image(path, page) if page is None or not is_tiff(path) else self._opened(path).read(page)

    def _opened(self, path: Path) -> TiffImages:
        if os.getpid() != self._process:
            self.close()
            self._process = os.getpid()
        if path not in self._stacks:
            self._stacks[path] = TiffImages(path, cache_bytes=0)
            if len(self._stacks) > MOST_OPEN:
                self._stacks.popitem(last=False)[1].close()
        self._stacks.move_to_end(path)
        return self._stacks[path]

    def close(self) -> None:
        """Close all stacks; the next read opens its own again."""
        while self._stacks:
            self._stacks.popitem()[1].close()

    def __getstate__(self) -> dict[str, Any]:
        """Empty: each process opens its files itself."""
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]

    def __del__(self) -> None:
        self.close()
