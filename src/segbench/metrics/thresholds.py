"""The thresholds of the ISBI 2012 challenge, and the best of them.

Every challenge metric binarises the probability of cell at 0.0, 0.1, 0.2 ... and reports its best threshold. The values
are those of repeated addition in float64 (0.1 + 0.1 + 0.1 is 0.30000000000000004), and the comparison is strict, so a
probability of 0.3 stored as float32 (0.30000001) is above the fourth threshold, and one of 1.0 above the last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from segbench.compiled import compiled
from segbench.errors import SegbenchError


def repeated_addition(largest: float, step: float = 0.1) -> NDArray[np.float64]:
    """0, step, step + step ... while not above `largest`, as float64 rounds it.

    Example:
        >>> [float(t) for t in repeated_addition(0.35)]
        [0.0, 0.1, 0.2, 0.30000000000000004]
    """
    values, threshold = [], 0.0
    while threshold <= largest:
        values.append(threshold)
        threshold += step
    return np.array(values)


T = TypeVar("T")
THRESHOLDS = repeated_addition(1.0)
"""The 11 thresholds of pixel error, Rand error, V_Rand and V_Info."""
WARPING_THRESHOLDS = repeated_addition(0.9)
"""The 10 thresholds of the warping error."""
ROUNDING = 1e-5
"""How far a probability may leave [0, 1]: sums of float32 softmax outputs do by a few parts in 10^7."""


@compiled
def _levels(prob: NDArray[np.float32], thresholds: NDArray[np.float64], levels: NDArray[np.uint8]) -> bool:
    valid = True
    last = thresholds.size - 1
    for position in range(prob.size):
        value = np.float64(prob[position])
        # Written so that NaN fails it.
        inside = -ROUNDING <= value <= 1.0 + ROUNDING
        if not inside:
            valid = False
        # The tenth below settles all but one comparison: no float32 lies between a tenth and its threshold.
        tenth = min(max(int(value * 10.0), 0), last) if inside else 0
        levels[position] = tenth + int(value > thresholds[tenth])
    return valid


def threshold_levels(prob_HW: NDArray[np.floating], where: str = "the probability map") -> NDArray[np.uint8]:
    """How many of `THRESHOLDS` lie below each probability: the mask at threshold k is `levels > k`.

    Args:
        prob_HW: float32 probability of cell in [0, 1], any shape; other floats are rounded to float32, which the
            challenge stores.
        where: the map's name in an error.

    Returns:
        uint8 of the same shape, 0 to 11.

    Raises:
        SegbenchError: a value is NaN or leaves [0, 1] by more than rounding.

    Example:
        >>> threshold_levels(np.array([[0.0, 0.05, 0.3, 1.0]], np.float32)).tolist()
        [[0, 1, 4, 11]]
    """
    prob = np.ascontiguousarray(prob_HW, np.float32)
    levels = np.empty(prob.shape, np.uint8)
    if not _levels(prob.reshape(-1), THRESHOLDS, levels.reshape(-1)):
        check_range(prob, where)
    return levels


def per_mask(levels: NDArray[np.uint8], score: Callable[[NDArray[np.bool_]], T]) -> list[T]:
    """Score the mask at every threshold; repeated masks, as of a binary prediction, are scored once.

    Args:
        levels: uint8 of `threshold_levels`.
        score: takes a bool mask of the same shape.

    Returns:
        one result for each of `THRESHOLDS`.
    """
    met = np.bincount(levels.reshape(-1), minlength=len(THRESHOLDS) + 1) > 0
    results: list[T] = []
    for level in range(len(THRESHOLDS)):
        repeats = level > 0 and not met[level]
        results.append(results[-1] if repeats else score(levels > level))
    return results


def check_range(prob: NDArray[np.floating], where: str) -> None:
    """Refuse values that are not probabilities.

    Raises:
        SegbenchError: a value is NaN or leaves [0, 1] by more than rounding.
    """
    missing = int(np.isnan(prob).sum())
    if missing:
        raise SegbenchError(
            f"{where} holds {missing} NaN",
            "probabilities of cell in [0, 1]",
            "check for a division by zero or a diverged model",
        )
    low, high = float(prob.min(initial=0.0)), float(prob.max(initial=0.0))
    if low < -ROUNDING or high > 1.0 + ROUNDING:
        bytes_likely = low >= 0.0 and 1.0 < high <= 255.0
        raise SegbenchError(
            f"{where} reaches from {low:g} to {high:g}",
            "probabilities of cell in [0, 1]",
            "divide bytes by 255" if bytes_likely else "pass the logits through a sigmoid or softmax first",
        )


def precision_recall(
    tp: NDArray[np.generic], fp: NDArray[np.generic], fn: NDArray[np.generic]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision and recall from counts of any shape.

    P = TP / (TP + FP), and 1 where FP = 0; R = TP / (TP + FN), and 1 where FN = 0. An empty prediction of an empty
    label is perfect.
    """
    hit, false, missed = (np.asarray(count, np.float64) for count in (tp, fp, fn))
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(false == 0, 1.0, hit / (hit + false))
        recall = np.where(missed == 0, 1.0, hit / (hit + missed))
    return precision, recall


def harmonic_mean(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """2 a b / (a + b), and 0 where a + b is not above 0 (or NaN)."""
    total = first + second
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > 0, 2 * first * second / total, 0.0)


@dataclass(frozen=True, eq=False)
class FScores:
    """A metric that is the best F-score over the thresholds.

    Attributes:
        value: the metric: `1 - max_t F(t)` for an error, `max_t F(t)` for a score.
        threshold: the first threshold with that value.
        thresholds: T thresholds.
        per_threshold: F at each threshold.
        tp: true positives at each threshold, over all slices, int64.
        fp: false positives, likewise.
        fn: false negatives, likewise.
        precision: TP / (TP + FP) at each threshold.
        recall: TP / (TP + FN) at each threshold.
    """

    value: float
    threshold: float
    thresholds: NDArray[np.float64]
    per_threshold: NDArray[np.float64]
    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def f_error(precision: NDArray[np.float64], recall: NDArray[np.float64], counts: NDArray[np.int64]) -> FScores:
    """The error `1 - max_t F(t)` with all its parts.

    Args:
        precision: (T,) at `THRESHOLDS`.
        recall: (T,).
        counts: (3, T) TP, FP, FN.
    """
    f = harmonic_mean(precision, recall)
    best = int(f.argmax())
    tp, fp, fn = counts
    return FScores(1.0 - float(f[best]), float(THRESHOLDS[best]), THRESHOLDS, f, tp, fp, fn, precision, recall)
