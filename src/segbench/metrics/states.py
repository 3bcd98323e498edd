"""Measures as torchmetrics states: one row of counts per image, gathered across processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from segbench.metrics.measure import Counts, ImageResult, Measure


@dataclass(frozen=True, eq=False)
class Counted:
    """What was counted of a split, over all processes.

    Attributes:
        indices: the images, ascending, int64 (N,).
        counts: theirs, with a leading N.
        visits: how often each image was counted, int64 (N,); 1, unless a sampler repeats it without saying so.
        labelled: pixels of the images that are not void.
    """

    indices: NDArray[np.int64]
    counts: Counts
    visits: NDArray[np.int64]
    labelled: int


class MeasureState(Metric):
    """Streams a measure over a split.

    The state is one row per image: its index, the number of its labelled pixels, then its counts as 64-bit words
    (float64 by its bits, so nothing is rounded). Rows are sorted by index before they are summed: the scores are the
    same to the last bit for any batch size and any number of workers and processes.

    Args:
        measure: the definition.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(self, measure: Measure) -> None:
        super().__init__()
        self.measure = measure
        self._layout: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, index: int, result: ImageResult) -> None:
        """Count one image; an index of -1 marks padding, which is dropped before the scores."""
        counts = self.measure.counts(result)
        words: list[NDArray[np.int64]] = [np.array([index, result.labelled], np.int64)]
        for key, value in counts.items():
            array = np.asarray(value)
            array = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
            self._layout[key] = (array.shape, array.dtype)
            words.append(np.ravel(array).view(np.int64))
        self.rows.append(torch.from_numpy(np.concatenate(words))[None].to(self.device))

    def per_image(self) -> tuple[NDArray[np.int64], Counts]:
        """The images' indices, ascending (N), and their counts with a leading N, gathered across processes.

        Raises:
            RuntimeError: an image was counted twice with different counts.
        """
        counted = self.counted()
        return counted.indices, counted.counts

    def counted(self) -> Counted:
        """All that was counted, gathered across processes; an image that was counted twice is in it once.

        Raises:
            RuntimeError: an image was counted twice with different counts.
        """
        return Counted(*self.compute())

    def compute(self) -> tuple[NDArray[np.int64], Counts, NDArray[np.int64], int]:
        """The fields of `counted`; torchmetrics gathers the rows first, and takes no frozen dataclass."""
        rows = torch.cat(self.rows) if isinstance(self.rows, list) else self.rows
        table = rows.cpu().numpy()
        table, visits = np.unique(table[table[:, 0] >= 0], axis=0, return_counts=True)
        indices = table[:, 0]
        if len(np.unique(indices)) != len(indices):
            raise RuntimeError(f"{self.measure.name}: an image was evaluated twice with different counts")
        counts: Counts = {}
        start = 2
        for key, (shape, dtype) in self._layout.items():
            size = int(np.prod(shape, dtype=np.int64))
            block = np.ascontiguousarray(table[:, start : start + size])
            counts[key] = block.view(dtype).reshape(len(table), *shape)
            start += size
        return indices, counts, visits.astype(np.int64), int(table[:, 1].sum())

    def scores(self) -> dict[str, float]:
        """The measure's scores over all images seen by all processes."""
        _, counts = self.per_image()
        totals = {key: value.sum(0) for key, value in counts.items()}
        return {name: float(value) for name, value in self.measure.scores(totals).items()}
