"""How many seeds and images show a difference: power of the test over seeds and images, from how runs varied so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from segbench.compare.components import MeanSquares, side_shares
from segbench.display.digits import number

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
        shares: of seeds, of images and of both together in the variance of the present difference; 0 if nothing varies.
    """

    key: str
    difference: float
    runs: tuple[tuple[int, int], ...]
    rows: tuple[PlanRow, ...]
    shares: tuple[float, float, float] = (0.0, 0.0, 0.0)

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

    def shares(self, runs: Sequence[int], images: int) -> tuple[float, float, float]:
        """How much of a difference's variance is of seeds, of images and of both; 0 if nothing varies."""
        of_seeds, of_both = (
            sum(share * part for share, part in zip(side_shares(runs), parts, strict=True))
            for parts in (self.seeds, self.both)
        )
        parts = (of_seeds, self.images / images, of_both / images)
        total = sum(parts)
        return (parts[0] / total, parts[1] / total, parts[2] / total) if total else (0.0, 0.0, 0.0)


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
    present = runs[:1] if paired else runs
    spread = Spread.of(squares, present, images)
    unknown = max(runs) == 1
    several = tuple((runs[0] * times, runs[1] * times) for times in (TIMES[:1] if unknown else TIMES))
    rows = []
    for more in (images * times for times in TIMES):
        errors = [spread.error(counts[:1] if paired else counts, more) for counts in several]
        rows.append(
            PlanRow(
                more,
                None if unknown else seeds_needed(spread, difference, more, confidence),
                tuple(smallest_difference(*error, confidence) for error in errors),
            )
        )
    return Plan(key, difference, several, tuple(rows), spread.shares(present, images))


def plan_sentences(plan: Plan, first: str, second: str) -> list[str]:
    """How many seeds and images are enough, as text.

    Args:
        plan: of two groups.
        first: the letter of one.
        second: of the other.
    """
    score, wanted = plan.key.split("/", 1)[1], number(plan.difference)
    smallest, images = number(plan.rows[0].smallest[0]), plan.rows[0].images
    if plan.seeds_unknown:
        # The standard error falls with the root of the number of images.
        needed = math.ceil(images * (plan.rows[0].smallest[0] / plan.difference) ** 2)
        return [
            f"With 80 % power, {images} images show a difference in {score} of {smallest} or more between these two "
            f"trained networks; {wanted} takes about {needed} images.",
            f"How many seeds show {wanted} between the configurations is unknown, since {first} and {second} "
            "have a single run each: train two seeds or more of each (segbench train -m seed=0,1,2), and plan again.",
        ]
    runs = f"{plan.runs[0][0]} and {plan.runs[0][1]} runs"
    enough = next((row for row in plan.rows if row.seeds is not None), None)
    if enough is None:
        said = f"No number of runs shows {wanted} on up to {plan.rows[-1].images} images: score more images."
    else:
        said = f"To show {wanted}, train {enough.seeds} runs a side and score {enough.images} images."
        if enough is not plan.rows[0]:
            said += f" On {images} images no number of runs is enough."
    of_seeds, of_images, of_both = (f"{share:.0%}".replace("%", " %") for share in plan.shares)
    return [
        f"With 80 % power, {first} and {second} with {runs} on {images} images show a difference in {score} of "
        f"{smallest} or more. {said}",
        f"Of the variance of the difference {of_seeds} is of seeds, {of_images} of images, and {of_both} of what a "
        "seed does on an image. This is found from the present runs: with few of them, take the plan as a rough one.",
    ]
