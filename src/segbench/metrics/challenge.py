"""All metrics of the ISBI 2012 challenge in one pass over the slices, which thins each prediction once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segbench.metrics.information import VInfoScores, entropies, v_info_scores
from segbench.metrics.pixel import pixel_counts
from segbench.metrics.rand import as_pairs, rand_counts, rand_parts, rand_precision_recall
from segbench.metrics.splits_and_merges import WarpingScores, warping_counts, warping_scores
from segbench.metrics.stack import over_slices
from segbench.metrics.thinned_rand import VRandScores, v_rand_scores
from segbench.metrics.thinning import thinned_tables
from segbench.metrics.thresholds import FScores, f_error, precision_recall, threshold_levels


@dataclass(frozen=True, eq=False)
class ChallengeScores:
    """The five metrics, the Rand error by both definitions; see the functions of these names.

    Attributes:
        pixel_error: lower is better.
        rand_error: by the challenge's current program; lower is better.
        rand_error_pairs: by its program before 2015; which one the server of 2015 ran is not known.
        v_rand: higher is better.
        v_info: higher is better.
        warping_error: lower is better.
    """

    pixel_error: FScores
    rand_error: FScores
    rand_error_pairs: FScores
    v_rand: VRandScores
    v_info: VInfoScores
    warping_error: WarpingScores

    def values(self) -> dict[str, float]:
        """The value of each metric, by the measures' names."""
        return {
            "pixel_error": self.pixel_error.value,
            "rand_error": self.rand_error.value,
            "rand_error_pairs": self.rand_error_pairs.value,
            "v_rand": self.v_rand.value,
            "v_rand_pooled": self.v_rand.pooled,
            "v_info": self.v_info.value,
            "warping_error": self.warping_error.value,
        }


def challenge_scores(prob_NHW: NDArray[np.floating], label_NHW: NDArray[np.generic]) -> ChallengeScores:
    """Score a stack by every metric of the challenge.

    Args:
        prob_NHW: probability of cell in [0, 1]; N slices.
        label_NHW: non-zero = cell.

    Returns:
        what `pixel_error`, `rand_error` (twice), `v_rand`, `v_info` and `warping_error` return.

    Raises:
        SegbenchError: different shapes, an empty stack, or values that are not probabilities.
    """

    def score(
        prob_HW: NDArray[np.float32], cell_HW: NDArray[np.bool_], where: str
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        levels_HW = threshold_levels(prob_HW, where)
        tables = thinned_tables(levels_HW, cell_HW)
        return (
            pixel_counts(levels_HW, cell_HW),
            rand_counts(levels_HW, cell_HW),
            np.array([rand_parts(table) for table in tables], np.int64).T,
            np.array([entropies(table) for table in tables]),
            warping_counts(prob_HW, cell_HW),
        )

    slices = over_slices(score, prob_NHW, label_NHW)
    pixel, rand, thinned, information, kinds = (np.stack(counts) for counts in zip(*slices, strict=True))
    pixel_totals, rand_totals = pixel.sum(0), rand.sum(0)
    pairs = as_pairs(*rand_totals)
    return ChallengeScores(
        pixel_error=f_error(*precision_recall(*pixel_totals), pixel_totals),
        rand_error=f_error(*rand_precision_recall(*rand_totals), rand_totals[:3]),
        rand_error_pairs=f_error(*precision_recall(*pairs), pairs),
        v_rand=v_rand_scores(thinned),
        v_info=v_info_scores(information),
        warping_error=warping_scores(kinds.sum(0), np.asarray(label_NHW).size),
    )
