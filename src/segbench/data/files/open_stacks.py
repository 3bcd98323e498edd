"""Stacks that stay open between reads: in a long one, finding a page takes longer than decoding it."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from segbench.data.files.image_files import AS_STORED, ImageFile, has_pages, open_images, read_decoded
from segbench.data.files.statements import Decoded
from segbench.spec import Reading

MOST_OPEN = 32


class OpenStacks:
    """Reads images as `read_image` does, and keeps the stacks among their files open, the last `MOST_OPEN` of them.

    Each process opens its own: a handle inherited by a fork shares its position with the parent's.

    Args:
        reading: how the files are read.
    """

    def __init__(self, reading: Reading = AS_STORED) -> None:
        self._process, self._reading = os.getpid(), reading
        self._stacks: OrderedDict[Path, ImageFile] = OrderedDict()

    def decoded(self, path: Path, page: int | None = None) -> Decoded:
        """As `read_decoded`; a page of a stack from the open file."""
        if page is None or not has_pages(path):
            return read_decoded(path, page, self._reading)
        return self._opened(path).decoded(page)

    def read(self, path: Path, page: int | None = None) -> NDArray[Any]:
        """HWC, as `read_image`."""
        return self.decoded(path, page).image_HWC

    def _opened(self, path: Path) -> ImageFile:
        if os.getpid() != self._process:
            self.close()
            self._process = os.getpid()
        if path not in self._stacks:
            self._stacks[path] = open_images(path, None, self._reading, cache_bytes=0)
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
        return {"reading": self._reading}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __del__(self) -> None:
        self.close()
