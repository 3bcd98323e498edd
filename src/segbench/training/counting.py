"""Counting the images of an evaluation in threads, while the network predicts the next ones."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from segbench.metrics.measure import ImageResult
from segbench.metrics.states import MeasureState

_MOST_THREADS = 8
"""Threads that count: a GPU hardly gives them more images, and each holds two images' probabilities."""
_AHEAD = 2
"""Rows in work or waiting for each thread."""


class Counting:
    """Computes the rows of images in threads, and adds them to their states in the order of the images.

    A row is a function of its image alone, so its numbers are those of a loop. The loops of the measures release the
    interpreter's lock.

    Args:
        threads: beside the caller's, of which eight are taken at most; 0 counts at once.
    """

    def __init__(self, threads: int) -> None:
        threads = min(threads, _MOST_THREADS)
        self._pool = ThreadPoolExecutor(threads, "counting") if threads > 0 else None
        self._most = _AHEAD * threads
        self._rows: deque[tuple[MeasureState, Future[Tensor]]] = deque()

    def add(self, state: MeasureState, index: int, result: ImageResult) -> None:
        """Begin to count an image; waits while too many are in work.

        Raises:
            Exception: what the measure raised for an earlier image, or without threads for this one.
        """
        if self._pool is None:
            state.update(state.row(index, result))
            return
        self._rows.append((state, self._pool.submit(state.row, index, result)))
        while len(self._rows) > self._most or (self._rows and self._rows[0][1].done()):
            self._take()

    def finish(self) -> None:
        """Wait until all are counted.

        Raises:
            Exception: what a measure raised.
        """
        try:
            while self._rows:
                self._take()
        finally:
            self.close()

    def close(self) -> None:
        """Give up the images that are not counted."""
        self._rows.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _take(self) -> None:
        state, row = self._rows.popleft()
        state.update(row.result())
