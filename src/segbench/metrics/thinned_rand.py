"""V_Rand: the Rand F-score after thinning, averaged over slices (Arganda-Carreras et al. 2015).

The counts are those of the Rand error (rand.py) with the thinned prediction's regions as S. The challenge's script
averages F over the slices and picks the best threshold; pooling the counts first gives `pooled`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segbench.metrics.measure import CellMeasure, Counts, ImageResult, over_labelled
from segbench.metrics.rand import rand_counts, rand_parts, rand_precision_recall
from segbench.metrics.stack import over_levels
from segbench.metrics.thinning import thinned_tables
from segbench.metrics.thresholds import THRESHOLDS, FScores, harmonic_mean, threshold_levels
from segbench.spec import ScoreInfo


@dataclass(frozen=True, eq=False)
class VRandScores(FScores):
    """V_Rand and its parts; `per_threshold` is the mean over slices, the counts are summed over them.

    Attributes:
        merge: the paper's V_Rand^merge at each threshold, TP / (TP + FP) of the summed counts; equals `precision`.
        split: the paper's V_Rand^split at each threshold, TP / (TP + FN) of the summed counts; equals `recall`.
        per_slice: F of each slice at each threshold, (N, T).
        pooled: the largest F of the summed counts.
    """

    merge: NDArray[np.float64]
    split: NDArray[np.float64]
    per_slice: NDArray[np.float64]
    pooled: float


def thinned_rand_counts(levels_HW: NDArray[np.uint8], cell_HW: NDArray[np.bool_]) -> NDArray[np.int64]:
    """TP, FP, FN and n of one slice at every threshold, after thinning; int64 (4, 11)."""
    return np.array([rand_parts(table) for table in thinned_tables(levels_HW, cell_HW)], np.int64).T


def v_rand(prob_NHW: NDArray[np.floating], label_NHW: NDArray[np.generic], thinned: bool = True) -> VRandScores:
    """V_Rand of a stack, `max_t mean_slices F(t)`.

    Args:
        prob_NHW: probability of cell in [0, 1]; N slices.
        label_NHW: non-zero = cell.
        thinned: thin the prediction's border, as the challenge does.

    Returns:
        `value` in [0, 1], 1 is best, with merge and split parts. A slice without a labelled cell has F = 0.

    Raises:
        SegbenchError: different shapes, an empty stack, or values that are not probabilities.

    Example:
        Thinning forgives a thick border.

        >>> label = np.array([[[1, 1, 1, 0, 1, 1, 1]]])
        >>> prob = np.array([[[1, 1, 0, 0, 0, 1, 1]]], np.float32)
        >>> v_rand(prob, label).value, v_rand(prob, label, thinned=False).value
        (1.0, 0.7142857142857143)
    """
    count = thinned_rand_counts if thinned else rand_counts
    return v_rand_scores(np.stack(over_levels(count, prob_NHW, label_NHW)))


def v_rand_scores(counts_N4T: NDArray[np.int64]) -> VRandScores:
    """V_Rand from TP, FP, FN and n of every slice at every threshold, int64 (N, 4, 11)."""
    per_slice = harmonic_mean(*rand_precision_recall(*counts_N4T.swapaxes(0, 1)))
    mean = per_slice.mean(0)
    best = int(mean.argmax())
    totals = counts_N4T.sum(0)
    precision, recall = rand_precision_recall(*totals)
    return VRandScores(
        value=float(mean[best]),
        threshold=float(THRESHOLDS[best]),
        thresholds=THRESHOLDS,
        per_threshold=mean,
        tp=totals[0],
        fp=totals[1],
        fn=totals[2],
        precision=precision,
        recall=recall,
        merge=precision,
        split=recall,
        per_slice=per_slice,
        pooled=float(harmonic_mean(precision, recall).max()),
    )


@dataclass(frozen=True)
class VRand(CellMeasure):
    """`v_rand` of a split, an image being a slice.

    Void pixels do not count, like the label's membrane; thinning runs through them.

    Attributes:
        cell_class: the class that is cell; all others are membrane.
    """

    name: str = "v_rand"

    def infos(self) -> tuple[ScoreInfo, ...]:
        """V_Rand, and the F of the pooled counts."""
        return tuple(ScoreInfo(name, (0.0, 1.0), True, self.version) for name in ("v_rand", "v_rand_pooled"))

    def counts(self, image: ImageResult) -> Counts:
        """Counts of one slice.

        `tp`, `fp`, `fn`, `pixels`: int64 (11,); `f`: float64 (11,); `slices`: int64, 1; `labelled`: int64, pixels that
        are not void.
        """
        prob_HW, cell_HW, _ = image.cell_view(self.cell_class, self.name)
        tp, fp, fn, pixels = thinned_rand_counts(threshold_levels(prob_HW), cell_HW)
        f = harmonic_mean(*rand_precision_recall(tp, fp, fn, pixels))
        return {
            "tp": tp,
            "fp": fp,
            "fn": fn,
            "pixels": pixels,
            "f": f,
            "slices": np.array(1, np.int64),
            "labelled": np.array(image.labelled, np.int64),
        }

    def scores(self, totals: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float64]]:
        """The largest mean F and the largest pooled F, from counts of shape (..., 11); NaN without a labelled pixel."""
        tp, fp, fn, pixels = (np.asarray(totals[key], np.int64) for key in ("tp", "fp", "fn", "pixels"))
        scores = {
            "v_rand": mean_of_slices(totals).max(-1),
            "v_rand_pooled": harmonic_mean(*rand_precision_recall(tp, fp, fn, pixels)).max(-1),
        }
        return over_labelled(totals, scores)


def mean_of_slices(totals: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float64]:
    """Summed `f` (..., T) over the number of `slices` (...)."""
    slices = np.asarray(totals["slices"], np.float64)[..., None]
    # Some versions of numpy call 0 / 0 a division by zero.
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.asarray(totals["f"], np.float64) / slices)
