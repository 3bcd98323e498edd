"""A page being filled: in memory, or in a scratch file if it is large."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Canvas:
    """An array H x W (x S), filled window by window and then read from the top.

    Args:
        shape: H, W and, for colours, S.
        dtype: of the values.
        limit: the most bytes held in memory.
        folder: of the scratch file otherwise, which has no name and ends with the process.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], limit: int, folder: Path) -> None:
        self.shape, self.dtype = shape, dtype
        self._row_bytes = int(np.prod(shape[1:])) * dtype.itemsize
        self._array: NDArray[Any] | None = None
        if shape[0] * self._row_bytes <= limit:
            self._array = np.empty(shape, dtype)
        else:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)

    @property
    def in_memory(self) -> bool:
        """Whether it has no scratch file."""
        return self._array is not None

    def put(self, y: int, x: int, block: NDArray[Any]) -> None:
        """Write a block whose upper left pixel is at row y and column x."""
        height, width = block.shape[:2]
        if self._array is not None:
            self._array[y : y + height, x : x + width] = block
            return
        block = np.ascontiguousarray(block, self.dtype)
        pixel_bytes = self._row_bytes // self.shape[1]
        for row in range(height):
            self._file.seek((y + row) * self._row_bytes + x * pixel_bytes)
            content = block[row].data.cast("B")
            # A raw file may write less than it is given, for instance on a nearly full disk.
            while content:
                content = content[self._file.write(content) :]

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Rows start to stop (exclusive)."""
        if self._array is not None:
            return self._array[start:stop]
        stop = min(stop, self.shape[0])
        self._file.seek(start * self._row_bytes)
        content = self._file.read((stop - start) * self._row_bytes)
        return np.frombuffer(content, self.dtype).reshape(stop - start, *self.shape[1:])

    def close(self) -> None:
        """Free the memory or the file."""
        if self._array is None:
            self._file.close()
        self._array = np.empty((0, *self.shape[1:]), self.dtype)
