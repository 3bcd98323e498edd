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
"""Rows in work or waiting for each thread, beside those of the present image: each holds its image's probabilities."""


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
        self._rows: deque[tuple[MeasureState, int, Future[Tensor]]] = deque()

    def add(self, state: MeasureState, index: int, result: ImageResult) -> None:
        """Begin to count an image; waits while too many others are in work.

        Raises:
            Exception: what the measure raised for an earlier image, or without threads for this one.
        """
        if self._pool is None:
            state.update(state.row(index, result))
            return
        self._rows.append((state, index, self._pool.submit(state.row, index, result)))
        while self._rows and (self._rows[0][2].done() or self._too_many(index)):
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

    def _too_many(self, present: int) -> bool:
        # With one thread and several measures, waiting for rows of the present image would leave the next one no time.
        return len(self._rows) > self._most and self._rows[0][1] != present

    def _take(self) -> None:
        state, _, row = self._rows.popleft()
        state.update(row.result())
