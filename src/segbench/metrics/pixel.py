"""Pixel error: one minus the best F-score of cell pixels (ISBI 2012 challenge; papers' pixel error).

TP, FP and FN are pixels, summed over all slices before F is formed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segbench.compiled import compiled
from segbench.metrics.measure import CellMeasure, Counts, ImageResult, over_labelled
from segbench.metrics.stack import over_levels
from segbench.metrics.thresholds import THRESHOLDS, FScores, f_error, harmonic_mean, precision_recall, threshold_levels
from segbench.spec import ScoreInfo


@compiled
def _histogram(levels: NDArray[np.uint8], cell: NDArray[np.bool_], void: NDArray[np.bool_]) -> NDArray[np.int64]:
    # Row 2 takes the void pixels; an empty `void` means there are none.
    histogram = np.zeros((3, 256), np.int64)
    if void.size:
        for position in range(levels.size):
            histogram[2 if void[position] else np.int64(cell[position]), levels[position]] += 1
    else:
        for position in range(levels.size):
            histogram[np.int64(cell[position]), levels[position]] += 1
    return histogram


def pixel_counts(
    levels_HW: NDArray[np.uint8], cell_HW: NDArray[np.bool_], void_HW: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """TP, FP and FN pixels of one slice at every threshold.

    Args:
        levels_HW: uint8 of `threshold_levels`.
        cell_HW: where the label is cell.
        void_HW: pixels that do not count.

    Returns:
        int64 (3, 11).
    """
    void = np.empty(0, np.bool_) if void_HW is None else void_HW.reshape(-1)
    histogram = _histogram(levels_HW.reshape(-1), cell_HW.reshape(-1), void)[:2, : len(THRESHOLDS) + 1]
    # Column k of the reversed cumulative sum counts the pixels whose level is at least k: those above threshold k-1.
    above = histogram[:, ::-1].cumsum(1)[:, ::-1]
    return np.stack((above[1, 1:], above[0, 1:], above[1, 0] - above[1, 1:]))


def pixel_error(prob_NHW: NDArray[np.floating], label_NHW: NDArray[np.generic]) -> FScores:
    """Pixel error of a stack, `1 - max_t F(t)`.

    F(t) is the F-score of `prob > t` against the label, cell being positive, from pixel counts summed over all slices.

    Args:
        prob_NHW: probability of cell in [0, 1]; N slices.
        label_NHW: non-zero = cell.

    Returns:
        `value` in [0, 1], 0 is best, with the counts at each of the 11 thresholds.

    Raises:
        SegbenchError: different shapes, an empty stack, or values that are not probabilities.

    Example:
        >>> label = np.array([[[1, 1, 0, 1]]])
        >>> pixel_error(np.array([[[0.9, 0.7, 0.45, 0.2]]], np.float32), label).value
        0.1428571428571429
    """
    counts = np.sum(over_levels(pixel_counts, prob_NHW, label_NHW), axis=0)
    return f_error(*precision_recall(*counts), counts)


@dataclass(frozen=True)
class PixelError(CellMeasure):
    """`pixel_error` of a split. Void pixels do not count.

    Attributes:
        cell_class: the class that is cell; all others are membrane.
    """

    name: str = "pixel_error"

    def infos(self) -> tuple[ScoreInfo, ...]:
        """Pixel error."""
        return (ScoreInfo("pixel_error", (0.0, 1.0), False, self.version),)

    def counts(self, image: ImageResult) -> Counts:
        """`tp`, `fp`, `fn`: int64 (11,), pixels at each threshold; `labelled`: int64, pixels that are not void."""
        prob_HW, cell_HW, void_HW = image.cell_view(self.cell_class, self.name)
        tp, fp, fn = pixel_counts(threshold_levels(prob_HW), cell_HW, void_HW)
        return {"tp": tp, "fp": fp, "fn": fn, "labelled": np.array(image.labelled, np.int64)}

    def scores(self, totals: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float64]]:
        """`1 - max_t F(t)` from counts of shape (..., 11); NaN without a labelled pixel."""
        f = harmonic_mean(*precision_recall(totals["tp"], totals["fp"], totals["fn"]))
        return over_labelled(totals, {"pixel_error": 1.0 - f.max(-1)})
