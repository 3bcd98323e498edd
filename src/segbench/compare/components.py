"""Seeds and images as sources of chance: the standard error of a difference of two groups of runs.

Each run's score is linearised by its images: score of run s plus the influence of image n (`ImageCounts.influences`)
is a table of seeds by images, whose mean is the group's score. In it a two-way analysis of variance tells seeds, images
and their interaction apart (Searle, Casella and McCulloch, Variance Components, 1992, section 4.3). With S runs a side,
N images, and variances a of seeds, b of images and e of the interaction, summed over both sides, a difference varies by

    a / S + b / N + e / (S N) = A + B - E,

where A = a / S + e / (S N) comes from the runs' scores, B = b / N + e / (S N) from the images' mean differences and
E = e / (S N) from what is left. Adding A and B alone would count e twice, which makes tests timid; A + B - E may
fall below E by chance and is then E, as e alone varies by that much. Degrees of freedom follow Satterthwaite (1946).
Those of B are lowered where a few images decide, by the kurtosis of the images' differences: 2 / (2 / (N - 1) + k / N)
is what a variance estimated from N values with an excess kurtosis of k is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_NOTHING = 1e-12
"""Scores lie between 0 and 1: what is smaller is rounding."""


@dataclass(frozen=True)
class MeanSquares:
    """How a table of seeds by images varies; of each side, or of the differences of pairs.

    Attributes:
        seeds: variance between the runs' scores, for each side.
        both: variance left within the table, for each side.
        images: variance between the images' mean differences.
        kurtosis: of the images' mean differences, in excess of a Gaussian's, from 0.
    """

    seeds: tuple[float, ...]
    both: tuple[float, ...]
    images: float
    kurtosis: float

    def error(self, runs: Sequence[int], images: int) -> tuple[float, float]:
        """The standard error of the difference, and its degrees of freedom.

        Args:
            runs: S of each side. A single run has no variance of its own: that of the other side stands for it.
            images: N.

        Returns:
            0 and infinity if nothing varies.
        """
        shares = side_shares(runs)
        # Squares of A, B and E, each over its degrees of freedom.
        seeds = both = of_seeds = of_both = 0.0
        for share, count, a, e in zip(shares, runs, self.seeds, self.both, strict=True):
            if share:
                seeds, of_seeds = seeds + share * a, of_seeds + (share * a) ** 2 / (count - 1)
                if images > 1:
                    part = share * e / images
                    both, of_both = both + part, of_both + part**2 / ((count - 1) * (images - 1))
        varied = self.images / images
        of_images = varied**2 * (1 / (images - 1) + self.kurtosis / images / 2) if images > 1 else 0.0
        total, squares = seeds + varied - both, of_seeds + of_images + of_both
        if total <= both:
            total, squares = both, of_both
        if total <= _NOTHING**2:
            return 0.0, float("inf")
        return float(np.sqrt(total)), total**2 / squares

    def of_seeds(self, runs: Sequence[int]) -> tuple[float, float]:
        """As `error`, on these very images: with two groups of several runs that of Welch's t test."""
        parts = [
            (share * a, count - 1) for share, count, a in zip(side_shares(runs), runs, self.seeds, strict=True) if share
        ]
        total = sum(part for part, _ in parts)
        if total <= _NOTHING**2:
            return 0.0, float("inf")
        return float(np.sqrt(total)), total**2 / sum(part**2 / freedom for part, freedom in parts)


def side_shares(runs: Sequence[int]) -> list[float]:
    """How much each side's variance counts in that of a difference; 0 of a single run, whose part its other side takes.

    Example:
        >>> side_shares([2, 4]), side_shares([1, 4])
        ([0.5, 0.25], [0.0, 1.25])
    """
    alone = sum(1.0 for count in runs if count == 1)
    return [0.0 if count == 1 else 1 / count + alone for count in runs]


def mean_squares(tables: Sequence[NDArray[np.float64]]) -> MeanSquares:
    """The analysis of variance of a difference, second table minus first, or of the differences of pairs.

    Args:
        tables: (S, N) of each group, scores plus influences; or one table, the differences of runs that belong
            together.
    """
    seeds, both = [], []
    for table_SN in tables:
        runs, images = table_SN.shape
        rest_SN = table_SN - table_SN.mean(1, keepdims=True) - table_SN.mean(0) + table_SN.mean()
        seeds.append(float(table_SN.mean(1).var(ddof=1)) if runs > 1 else float("nan"))
        both.append(float((rest_SN**2).sum() / ((runs - 1) * (images - 1))) if min(runs, images) > 1 else 0.0)
    if len(tables) == 2 and sum(len(table) > 1 for table in tables) == 1:
        known = 0 if len(tables[0]) > 1 else 1
        seeds, both = [seeds[known]] * 2, [both[known]] * 2
    means = [table_SN.mean(0) for table_SN in tables]
    moved_N = means[-1] - (means[0] if len(means) == 2 else 0.0)
    moved_N = moved_N - moved_N.mean()
    square = float((moved_N**2).mean())
    kurtosis = float((moved_N**4).mean()) / square**2 - 3 if square > _NOTHING**2 else 0.0
    images = len(moved_N)
    return MeanSquares(tuple(seeds), tuple(both), square * images / max(images - 1, 1), max(kurtosis, 0.0))


@dataclass(frozen=True)
class TTest:
    """Student's t test of a difference, with the interval that belongs to it: it excludes zero where p is small.

    Attributes:
        low: lower end of the interval.
        high: upper end.
        p: two-sided.
        error: standard error.
        freedom: degrees of freedom.
    """

    low: float
    high: float
    p: float
    error: float
    freedom: float


def t_test(difference: float, error: float, freedom: float, confidence: float) -> TTest:
    """Test a difference whose standard error is estimated.

    Args:
        difference: NaN if not defined.
        error: its standard error; 0 if nothing varies.
        freedom: degrees of freedom of the estimate.
        confidence: of the interval.
    """
    # Takes a quarter of a second to import, which comparisons of single runs save.
    from scipy.special import stdtr, stdtrit

    if not np.isfinite(difference + error):
        return TTest(*[float("nan")] * 5)
    if error == 0:
        return TTest(difference, difference, float(abs(difference) < _NOTHING), 0.0, freedom)
    reach = float(stdtrit(freedom, (1 + confidence) / 2)) * error
    p = 2 * float(stdtr(freedom, -abs(difference) / error))
    return TTest(difference - reach, difference + reach, p, error, freedom)


@dataclass(frozen=True)
class SeedsAndImages:
    """A difference of groups of which one at least has several runs.

    Attributes:
        both: the test over seeds and images: other seeds, other images like these.
        seeds: the test over seeds alone: other seeds, these very images; Welch's t test of the runs' scores, or that of
            pairs for two ways of scoring the same networks.
        squares: the analysis of variance.
    """

    both: TTest
    seeds: TTest
    squares: MeanSquares


def seeds_and_images(
    first_SN: NDArray[np.float64], second_SN: NDArray[np.float64], paired: bool, confidence: float
) -> SeedsAndImages:
    """Test the difference of two groups over seeds and images, and over seeds alone.

    Args:
        first_SN: scores plus influences (`ImageCounts.influences`) of the first group's runs.
        second_SN: of the second group's.
        paired: whether run s of both is of the same trained network.
        confidence: of the intervals.

    Raises:
        ValueError: neither group has several runs.
    """
    if len(first_SN) == len(second_SN) == 1:
        raise ValueError("the spread of seeds is not known from single runs")
    tables = [second_SN - first_SN] if paired else [first_SN, second_SN]
    squares, runs = mean_squares(tables), [len(table) for table in tables]
    difference = float(second_SN.mean() - first_SN.mean())
    return SeedsAndImages(
        t_test(difference, *squares.error(runs, first_SN.shape[1]), confidence),
        t_test(difference, *squares.of_seeds(runs), confidence),
        squares,
    )
