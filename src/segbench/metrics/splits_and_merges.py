"""Warping error: splits and merges that remain after the label is warped onto the prediction (ISBI 2012 challenge).

warping error = min_t (split pixels + merge pixels) / (N H W),   t = 0.0, 0.1 ... 0.9
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segbench.metrics.measure import CellMeasure, Counts, ImageResult
from segbench.metrics.stack import over_slices
from segbench.metrics.thresholds import WARPING_THRESHOLDS, check_range
from segbench.metrics.warping import Slice
from segbench.spec import ScoreInfo

KINDS = ("merges", "splits", "hole_additions", "object_deletions", "object_additions", "hole_deletions")
"""Kinds of mismatch in the order of their bits."""


@dataclass(frozen=True, eq=False)
class WarpingScores:
    """Warping error and its parts; counts are pixels over all slices at each threshold, int64 (T,).

    Attributes:
        value: the smallest of `per_threshold`.
        threshold: the first threshold with that value.
        thresholds: T thresholds.
        per_threshold: (splits + merges) / pixels.
        merges: mismatches that join cells of the label.
        splits: mismatches that split a cell of the label.
        hole_additions: holes that the label lacks.
        object_deletions: cells of the label that the prediction lacks.
        object_additions: cells of the prediction that the label lacks.
        hole_deletions: holes of the label that the prediction lacks.
        mismatches: all of them; over the number of pixels, the warping error of Jain et al. (2010).
        pixels: N H W.
    """

    value: float
    threshold: float
    thresholds: NDArray[np.float64]
    per_threshold: NDArray[np.float64]
    merges: NDArray[np.int64]
    splits: NDArray[np.int64]
    hole_additions: NDArray[np.int64]
    object_deletions: NDArray[np.int64]
    object_additions: NDArray[np.int64]
    hole_deletions: NDArray[np.int64]
    mismatches: NDArray[np.int64]
    pixels: int


def warping_counts(
    prob_HW: NDArray[np.float32], cell_HW: NDArray[np.bool_], void_HW: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Mismatches of one slice by kind and threshold.

    Args:
        prob_HW: float32 probability of cell in [0, 1].
        cell_HW: where the label is cell.
        void_HW: pixels that never mismatch.

    Returns:
        int64 (6, 10), rows in the order of `KINDS`.
    """
    ready = Slice(prob_HW, cell_HW, void_HW)
    bits = 1 << np.arange(len(KINDS))
    return np.array([np.bincount(ready.warp(float(t))[2], minlength=64)[bits] for t in WARPING_THRESHOLDS], np.int64).T


def warping_error(prob_NHW: NDArray[np.floating], label_NHW: NDArray[np.generic]) -> WarpingScores:
    """Warping error of a stack: the smallest share of pixels that split or merge cells.

    Args:
        prob_NHW: probability of cell in [0, 1]; N slices.
        label_NHW: non-zero = cell.

    Returns:
        `value` in [0, 1], 0 is best, with the mismatches of every kind at each of the 10 thresholds.

    Raises:
        SegbenchError: different shapes, an empty stack, or values that are not probabilities.

    Example:
        The prediction joins two cells by one pixel.

        >>> label = np.array([[[1, 1, 0, 1, 1], [0, 0, 0, 0, 0]]])
        >>> prob = np.array([[[1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]], np.float32)
        >>> score = warping_error(prob, label)
        >>> score.value, int(score.merges[0])
        (0.1, 1)
    """

    def score(prob_HW: NDArray[np.float32], cell_HW: NDArray[np.bool_], where: str) -> NDArray[np.int64]:
        check_range(prob_HW, where)
        return warping_counts(prob_HW, cell_HW)

    return warping_scores(np.sum(over_slices(score, prob_NHW, label_NHW), axis=0), np.asarray(label_NHW).size)


def warping_scores(kinds_6T: NDArray[np.int64], pixels: int) -> WarpingScores:
    """The warping error from mismatches summed over slices, int64 (6, 10), rows in the order of `KINDS`."""
    by_kind = dict(zip(KINDS, kinds_6T, strict=True))
    errors = (by_kind["splits"] + by_kind["merges"]) / pixels
    best = int(errors.argmin())
    return WarpingScores(
        value=float(errors[best]),
        threshold=float(WARPING_THRESHOLDS[best]),
        thresholds=WARPING_THRESHOLDS,
        per_threshold=errors,
        mismatches=kinds_6T.sum(0),
        pixels=pixels,
        **by_kind,
    )


@dataclass(frozen=True)
class WarpingError(CellMeasure):
    """`warping_error` of a split, at test.

    On void pixels the label takes the prediction's value: they never mismatch, and are not counted.

    Attributes:
        cell_class: the class that is cell; all others are membrane.
    """

    name: str = "warping_error"
    test_only: bool = True

    def infos(self) -> tuple[ScoreInfo, ...]:
        """Warping error."""
        return (ScoreInfo("warping_error", (0.0, 1.0), False, self.version, test_only=True),)

    def counts(self, image: ImageResult) -> Counts:
        """Each of `KINDS`: int64 (10,), pixels at each threshold; `pixels`: int64, those that are not void."""
        prob_HW, cell_HW, void_HW = image.cell_view(self.cell_class, self.name)
        check_range(prob_HW, "the probability map")
        by_kind: Counts = dict(zip(KINDS, warping_counts(prob_HW, cell_HW, void_HW), strict=True))
        pixels = prob_HW.size - (0 if void_HW is None else int(void_HW.sum()))
        return by_kind | {"pixels": np.array(pixels, np.int64)}

    def scores(self, totals: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float64]]:
        """The smallest share of split and merge pixels, from counts of shape (..., 10); NaN without a pixel."""
        wrong = np.asarray(totals["splits"], np.float64) + np.asarray(totals["merges"], np.float64)
        # Some versions of numpy call 0 / 0 a division by zero.
        with np.errstate(divide="ignore", invalid="ignore"):
            return {"warping_error": np.asarray((wrong / np.asarray(totals["pixels"])[..., None]).min(-1))}
