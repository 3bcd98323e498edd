"""How many seeds and images show a difference: power of the test over seeds and images, from how runs varied so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segbench.compare.components import MeanSquares

POWER = 0.8
"""The probability with which a planned comparison shows the difference, if it is there."""
TIMES = (1, 2, 4)
"""The plan's multiples of the present runs and images."""
_MOST = 4096
"""More seeds a side than anyone trains."""


@dataclass(frozen=True)
class PlanRow:
    """What a number of images can show.

    Attributes:
        images: N.
        seeds: runs a side that show the planned difference with 80 % power; None if no number does, or if the spread of
            seeds is unknown.
        smallest: the smallest difference that is shown with 80 % power, by the present numbers of runs and their
            multiples.
    """

    images: int
    seeds: int | None
    smallest: tuple[float, ...]


@dataclass(frozen=True)
class Plan:
    """How much is enough to show a difference in one score.

    Attributes:
        key: of the score.
        difference: to be shown, in the unit of the score.
        runs: numbers of runs of both groups, for each column of `smallest`; only (1, 1) if the spread of seeds is
            unknown.
        rows: the present images first, then their multiples.
    """

    key: str
    difference: float
    runs: tuple[tuple[int, int], ...]
    rows: tuple[PlanRow, ...]

    @property
    def seeds_unknown(self) -> bool:
        """Whether only images are planned, since all runs are single ones."""
        return self.runs == ((1, 1),)


@dataclass(frozen=True)
class Spread:
    """Variances behind a difference: of seeds, of both, for each side (one side if paired), and of images."""

    seeds: tuple[float, ...]
    both: tuple[float, ...]
    images: float
    kurtosis: float

    @classmethod
    def of(cls, squares: MeanSquares, runs: Sequence[int], images: int) -> Spread:
        """The components of an analysis of variance, none below zero.

        Args:
            squares: the analysis.
            runs: its S of each side.
            images: its N.
        """
        single = max(runs) == 1
        both = tuple(0.0 if single else e for e in squares.both)
        seeds = tuple(0.0 if single else max(a - e / images, 0.0) for a, e in zip(squares.seeds, both, strict=True))
        of_images = squares.images - sum(e / count for e, count in zip(both, runs, strict=True))
        return cls(seeds, both, max(of_images, 0.0), squares.kurtosis)

    def error(self, runs: Sequence[int], images: int) -> tuple[float, float]:
        """The expected standard error of a difference, and its degrees of freedom.

        Args:
            runs: S of each side.
            images: N.
        """
        expected = MeanSquares(
            tuple(a + e / images for a, e in zip(self.seeds, self.both, strict=True)),
            self.both,
            self.images + sum(e / count for e, count in zip(self.both, runs, strict=True)),
            self.kurtosis,
        )
        return expected.error(runs, images)


def power(difference: float, error: float, freedom: float, confidence: float) -> float:
    """The probability that a t test shows a difference (the noncentral t distribution).

    Args:
        difference: the true one.
        error: standard error.
        freedom: degrees of freedom.
        confidence: 0.95 for a test at 5 %.

    Example:
        >>> round(power(2.8016, 1.0, 1e6, 0.95), 3), round(power(0.0, 1.0, 8, 0.95), 3)
        (0.8, 0.05)
    """
    from scipy.special import nctdtr, stdtrit

    if error == 0:
        return float(difference != 0)
    bound, size = float(stdtrit(freedom, (1 + confidence) / 2)), abs(difference) / error
    # SciPy's is NaN far out, where a difference of the wrong sign no longer counts.
    wrong = nctdtr(freedom, size, -bound) if size < 3 else 0.0
    return float(1 - nctdtr(freedom, size, bound) + wrong)


def smallest_difference(error: float, freedom: float, confidence: float) -> float:
    """The difference that a t test shows with 80 % power; arguments as for `power`."""
    if error == 0:
        return 0.0
    low, high = 0.0, 1.0
    while power(high, 1.0, freedom, confidence) < POWER:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if power(middle, 1.0, freedom, confidence) < POWER else (low, middle)
    return high * error


def seeds_needed(spread: Spread, difference: float, images: int, confidence: float) -> int | None:
    """The smallest number of runs a side, from 2, that shows a difference with 80 % power; None if none does.

    Args:
        spread: of seeds and images.
        difference: the true one.
        images: N.
        confidence: of the test.
    """

    def enough(seeds: int) -> bool:
        return power(difference, *spread.error([seeds] * len(spread.seeds), images), confidence) >= POWER

    low, high = 1, 2
    while not enough(high):
        low, high = high, 2 * high
        if high > _MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def plan(
    key: str, difference: float, squares: MeanSquares, runs: tuple[int, int], images: int, confidence: float
) -> Plan:
    """The plan for one score of two groups.

    Args:
        key: of the score.
        difference: to be shown.
        squares: the analysis of variance of the present runs.
        runs: the present S of both groups.
        images: the present N.
        confidence: of the test.
    """
    paired = len(squares.seeds) == 1
    spread = Spread.of(squares, runs[:1] if paired else runs, images)
    unknown = max(runs) == 1
    several = tuple((runs[0] * times, runs[1] * times) for times in (TIMES[:1] if unknown else TIMES))
    rows = []
    for number in (images * times for times in TIMES):
        errors = [spread.error(counts[:1] if paired else counts, number) for counts in several]
        rows.append(
            PlanRow(
                number,
                None if unknown else seeds_needed(spread, difference, number, confidence),
                tuple(smallest_difference(*error, confidence) for error in errors),
            )
        )
    return Plan(key, difference, several, tuple(rows))
