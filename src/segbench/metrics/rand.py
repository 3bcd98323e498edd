"""Rand error of the challenge: one minus the best foreground-restricted Rand F-score.

T = 4-connected components of the label, S = those of `prob > t`, n_ij = pixels in T_i and S_j (j = 0: membrane in the
prediction), counted where the label is cell only; a_i = sum_j n_ij over j >= 0, b_j = sum_i n_ij, n_0 = sum_i n_i0.
With each membrane pixel of the prediction a separate region (Arganda-Carreras et al. 2015):

    TP = sum n_ij^2 + n_0,   TP + FP = sum b_j^2 + n_0,   TP + FN = sum a_i^2      (i, j >= 1)

Until 2015 the challenge counted pairs of pixels instead, x (x - 1) / 2 for x^2 and without n_0. Both follow from the
same counts: TP = 2 TP_pairs + n, FP = 2 FP_pairs, FN = 2 FN_pairs, n = sum_i a_i. Which one the challenge's server
ran in 2015 is not known, so tables show both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segbench.metrics.measure import CellMeasure, Counts, ImageResult, over_labelled
from segbench.metrics.region_overlap import Contingency
from segbench.metrics.region_runs import overlap, region_runs
from segbench.metrics.stack import over_levels
from segbench.metrics.thresholds import FScores, f_error, harmonic_mean, per_mask, precision_recall, threshold_levels
from segbench.spec import ScoreInfo


def margins(table: Contingency) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """a_i by label region, b_j by predicted region without membrane, and n_0."""
    inside = table.columns > 0
    a = np.bincount(table.rows, table.pixels).astype(np.int64)
    b = np.bincount(table.columns[inside], table.pixels[inside]).astype(np.int64)
    return a[a > 0], b[b > 0], int(table.pixels[~inside].sum())


def rand_parts(table: Contingency) -> tuple[int, int, int, int]:
    """TP, FP, FN and n of one slice at one threshold.

    They count ordered pairs of cell pixels, a pixel with itself included, that are together in both segmentations, in
    the prediction only, and in the label only; each membrane pixel of the prediction is a separate region.

    Args:
        table: of the pixels where the label is cell; rows = label.
    """
    a, b, n_0 = margins(table)
    shared = table.pixels[table.columns > 0]
    tp = int(shared @ shared) + n_0
    return tp, int(b @ b) + n_0 - tp, int(a @ a) - tp, int(a.sum())


def rand_counts(levels_HW: NDArray[np.uint8], cell_HW: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rand counts of one slice at every threshold.

    Args:
        levels_HW: uint8 of `threshold_levels`.
        cell_HW: where the label is cell.

    Returns:
        int64 (4, 11): TP, FP, FN and n, see `rand_parts`.
    """
    truth = region_runs(cell_HW)
    columns = per_mask(levels_HW, lambda mask_HW: rand_parts(overlap(truth, region_runs(mask_HW))))
    return np.array(columns, np.int64).T


def as_pairs(
    tp: NDArray[np.int64], fp: NDArray[np.int64], fn: NDArray[np.int64], pixels: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The counts of unordered pixel pairs (the definition before 2015) from those of `rand_parts`; exact.

    Returns:
        TP, FP and FN stacked along a new first axis.
    """
    return np.stack(((tp - pixels) // 2, fp // 2, fn // 2))


def rand_precision_recall(
    tp: NDArray[np.int64], fp: NDArray[np.int64], fn: NDArray[np.int64], pixels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision and recall; NaN where the label has no cell pixel, which makes F 0, as in the challenge."""
    precision, recall = precision_recall(tp, fp, fn)
    return np.where(pixels > 0, precision, np.nan), np.where(pixels > 0, recall, np.nan)


def rand_error(prob_NHW: NDArray[np.floating], label_NHW: NDArray[np.generic], pairs: bool = False) -> FScores:
    """Rand error of a stack, `1 - max_t F(t)`, restricted to the label's foreground and without thinning.

    Counts are summed over the slices before F is formed; components are 4-connected and two-dimensional.

    Args:
        prob_NHW: probability of cell in [0, 1]; N slices.
        label_NHW: non-zero = cell.
        pairs: count pairs of pixels, as before 2015.

    Returns:
        `value` in [0, 1], 0 is best, with the counts at each of the 11 thresholds. A label without any cell pixel gives
        1, with `pairs` 0; a slice without one adds nothing to the others.

    Raises:
        SegbenchError: different shapes, an empty stack, or values that are not probabilities.

    Example:
        Two cells of two pixels, merged: 8 of 16 ordered pairs belong together.

        >>> label = np.array([[[1, 1, 0, 1, 1]]])
        >>> score = rand_error(np.ones((1, 1, 5), np.float32), label)
        >>> float(score.precision[0]), float(score.recall[0])
        (0.5, 1.0)
    """
    totals = np.sum(over_levels(rand_counts, prob_NHW, label_NHW), axis=0)
    if pairs:
        counts = as_pairs(*totals)
        return f_error(*precision_recall(*counts), counts)
    return f_error(*rand_precision_recall(*totals), totals[:3])


@dataclass(frozen=True)
class RandError(CellMeasure):
    """`rand_error` of a split, by both definitions.

    Void pixels do not count, like the label's membrane; the prediction's regions may run through them.

    Attributes:
        cell_class: the class that is cell; all others are membrane.
    """

    name: str = "rand_error"

    def infos(self) -> tuple[ScoreInfo, ...]:
        """Rand error by the challenge's current program, and by that before 2015."""
        names = ("rand_error", "rand_error_pairs")
        return tuple(ScoreInfo(name, (0.0, 1.0), False, self.version) for name in names)

    def counts(self, image: ImageResult) -> Counts:
        """`tp`, `fp`, `fn`, `pixels`: int64 (11,) at each threshold; `labelled`: int64, pixels that are not void."""
        prob_HW, cell_HW, _ = image.cell_view(self.cell_class, self.name)
        tp, fp, fn, pixels = rand_counts(threshold_levels(prob_HW), cell_HW)
        return {"tp": tp, "fp": fp, "fn": fn, "pixels": pixels, "labelled": np.array(image.labelled, np.int64)}

    def scores(self, totals: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float64]]:
        """`1 - max_t F(t)` by both definitions, from counts of shape (..., 11); NaN without a labelled pixel."""
        tp, fp, fn, pixels = (np.asarray(totals[key], np.int64) for key in ("tp", "fp", "fn", "pixels"))
        scores = {
            "rand_error": 1.0 - harmonic_mean(*rand_precision_recall(tp, fp, fn, pixels)).max(-1),
            "rand_error_pairs": 1.0 - harmonic_mean(*precision_recall(*as_pairs(tp, fp, fn, pixels))).max(-1),
        }
        return over_labelled(totals, scores)
