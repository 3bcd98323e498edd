"""V_Info: the information F-score after thinning, averaged over slices (Arganda-Carreras et al. 2015).

With T, S, n_ij, a_i, b_j, n_0 and n as in rand.py, S thinned, and each membrane pixel of the prediction a separate
region:

    H(T)   = -sum_i a_i/n ln(a_i/n)
    H(S)   = -sum_j b_j/n ln(b_j/n) + n_0/n ln n
    H(T,S) = -sum_ij n_ij/n ln(n_ij/n) + n_0/n ln n            (i, j >= 1)
    I = H(T) + H(S) - H(T,S);   merge = I / H(T),   split = I / H(S),   F = 2 I / (H(T) + H(S))

F is 0 where H(T) or H(S) is 0: a slice whose label is one cell scores 0 even when it is predicted perfectly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segbench.metrics.measure import CellMeasure, Counts, ImageResult, over_labelled
from segbench.metrics.rand import margins
from segbench.metrics.region_overlap import Contingency
from segbench.metrics.region_runs import overlap, region_runs
from segbench.metrics.stack import over_levels
from segbench.metrics.thinned_rand import mean_of_slices
from segbench.metrics.thinning import thinned_tables
from segbench.metrics.thresholds import THRESHOLDS, harmonic_mean, per_mask, threshold_levels
from segbench.spec import ScoreInfo


@dataclass(frozen=True, eq=False)
class VInfoScores:
    """V_Info and its parts; N slices, T thresholds.

    Attributes:
        value: `max_t mean_slices F(t)`.
        threshold: the first threshold with that value.
        thresholds: T thresholds.
        per_threshold: mean F at each threshold.
        per_slice: F, (N, T).
        label_entropy: H(T) in nats, (N, T).
        prediction_entropy: H(S) in nats, (N, T).
        information: I in nats, (N, T).
        merge: the paper's V_Info^merge, I / H(T), (N, T); NaN where H(T) is 0.
        split: the paper's V_Info^split, I / H(S), (N, T); NaN where H(S) is 0.
    """

    value: float
    threshold: float
    thresholds: NDArray[np.float64]
    per_threshold: NDArray[np.float64]
    per_slice: NDArray[np.float64]
    label_entropy: NDArray[np.float64]
    prediction_entropy: NDArray[np.float64]
    information: NDArray[np.float64]
    merge: NDArray[np.float64]
    split: NDArray[np.float64]


def entropies(table: Contingency) -> tuple[float, float, float]:
    """H(T), H(S) and I in nats, from the table of the pixels where the label is cell; zeros if there are none."""
    a, b, n_0 = margins(table)
    n = a.sum()
    if n == 0:
        return 0.0, 0.0, 0.0
    singles = n_0 / n * np.log(n)

    def entropy(pixels: NDArray[np.int64]) -> float:
        share = pixels / n
        return float(-(share * np.log(share)).sum())

    label = entropy(a)
    prediction = entropy(b) + singles
    return label, prediction, label + prediction - (entropy(table.pixels[table.columns > 0]) + singles)


def parts_f(parts_3: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Merge, split and F from H(T), H(S) and I along the first axis."""
    label, prediction, information = parts_3
    with np.errstate(divide="ignore", invalid="ignore"):
        merge = np.where(label == 0, np.nan, information / label)
        split = np.where(prediction == 0, np.nan, information / prediction)
    return merge, split, harmonic_mean(merge, split)


def v_info(prob_NHW: NDArray[np.floating], label_NHW: NDArray[np.generic], thinned: bool = True) -> VInfoScores:
    """V_Info of a stack, `max_t mean_slices F(t)`.

    Args:
        prob_NHW: probability of cell in [0, 1]; N slices.
        label_NHW: non-zero = cell.
        thinned: thin the prediction's border, as the challenge does.

    Returns:
        `value` in [0, 1], 1 is best, with merge and split parts of every slice.

    Raises:
        SegbenchError: different shapes, an empty stack, or values that are not probabilities.

    Example:
        >>> label = np.array([[[1, 1, 1, 0, 1, 1, 1]]])
        >>> v_info(np.array([[[1, 1, 0, 0, 0, 1, 1]]], np.float32), label).value
        1.0
    """

    def parts(levels_HW: NDArray[np.uint8], cell_HW: NDArray[np.bool_]) -> list[tuple[float, float, float]]:
        if thinned:
            return [entropies(table) for table in thinned_tables(levels_HW, cell_HW)]
        truth = region_runs(cell_HW)
        return per_mask(levels_HW, lambda mask: entropies(overlap(truth, region_runs(mask))))

    return v_info_scores(np.array(over_levels(parts, prob_NHW, label_NHW)))


def v_info_scores(parts_NT3: NDArray[np.float64]) -> VInfoScores:
    """V_Info from H(T), H(S) and I of every slice at every threshold, (N, 11, 3)."""
    parts = np.moveaxis(parts_NT3, -1, 0)
    merge, split, per_slice = parts_f(parts)
    mean = per_slice.mean(0)
    best = int(mean.argmax())
    label, prediction, information = parts
    return VInfoScores(
        value=float(mean[best]),
        threshold=float(THRESHOLDS[best]),
        thresholds=THRESHOLDS,
        per_threshold=mean,
        per_slice=per_slice,
        label_entropy=label,
        prediction_entropy=prediction,
        information=information,
        merge=merge,
        split=split,
    )


@dataclass(frozen=True)
class VInfo(CellMeasure):
    """`v_info` of a split, an image being a slice.

    Void pixels do not count, like the label's membrane; thinning runs through them.

    Attributes:
        cell_class: the class that is cell; all others are membrane.
    """

    name: str = "v_info"

    def infos(self) -> tuple[ScoreInfo, ...]:
        """V_Info."""
        return (ScoreInfo("v_info", (0.0, 1.0), True, self.version),)

    def counts(self, image: ImageResult) -> Counts:
        """`f`: float64 (11,), F of this slice; `slices`: int64, 1; `labelled`: int64, pixels that are not void."""
        prob_HW, cell_HW, _ = image.cell_view(self.cell_class, self.name)
        parts = np.array([entropies(table) for table in thinned_tables(threshold_levels(prob_HW), cell_HW)])
        return {
            "f": parts_f(parts.T)[2],
            "slices": np.array(1, np.int64),
            "labelled": np.array(image.labelled, np.int64),
        }

    def scores(self, totals: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float64]]:
        """The largest mean F from counts of shape (..., 11); NaN without a labelled pixel."""
        return over_labelled(totals, {"v_info": mean_of_slices(totals).max(-1)})
