"""The comparison of groups of runs: how much they differ, how certain that is, in which classes, on which images."""

from __future__ import annotations

import math
from dataclasses import dataclass

from segbench.compare.columns import Column
from segbench.compare.components import SeedsAndImages, TTest
from segbench.compare.grouping import RunTable
from segbench.compare.plan import Plan
from segbench.compare.resampling import Permutation
from segbench.errors import SegbenchError
from segbench.spec import ScoreInfo, of_class

FEWEST_IMAGES = 20
"""Below it a test over seeds and images can be too sure: a 5 % test errs in 13 % of cases over 6 images."""
MOST_GROUPS = 10
"""With more groups, pairs are tested only on request."""


@dataclass(frozen=True)
class Settings:
    """How to compare.

    Attributes:
        metrics: names or patterns of the metrics to show and test, the first of which leads; empty for all.
        split: the split whose scores are shown; None for `test` if there is one.
        baseline: the group, by letter, label or a run's directory, that all others are tested against; None tests all
            pairs.
        confidence: of the intervals.
        draws: of the bootstrap, and of a permutation test that is not exact.
        seed: of the resampling.
        images: how many of the most changed images are shown.
        plan: a difference, in the unit of the leading score, for which to plan seeds and images; None for no plan.
    """

    metrics: tuple[str, ...] = ()
    split: str | None = None
    baseline: str | None = None
    confidence: float = 0.95
    draws: int = 10_000
    seed: int = 0
    images: int = 10
    plan: float | None = None

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise SegbenchError(f"confidence={self.confidence}", "a share from 0.5 to below 1", "e.g. confidence=0.95")
        for name, least in (("draws", 100), ("seed", 0), ("images", 0)):
            if getattr(self, name) < least:
                raise SegbenchError(f"{name}={getattr(self, name)}", f"{least} or more", f"raise {name}=")
        if self.plan is not None and not 0 < self.plan < math.inf:
            raise SegbenchError(
                f"plan={self.plan:g}",
                "a difference of the leading score, above 0",
                "e.g. plan=0.01, one point of mean IU",
            )


@dataclass(frozen=True)
class Difference:
    """A score of two groups on the same images.

    Attributes:
        key: `<split>/<head, if several>/<metric>`.
        info: the score's description.
        first: the first group's letter.
        second: the second group's.
        scores: of the first and of the second group, means over their runs.
        low: lower end of the interval of `difference`: of the bootstrap for two single runs, else of the t test over
            seeds and images.
        high: upper end.
        p: two-sided: of the permutation test for two single runs, else of the t test over seeds and images.
        p_adjusted: `p` adjusted for the number of comparisons.
        images: N.
        seeds: runs of the first and of the second group.
        undefined: share of the bootstrap's draws in which the difference is not defined.
        permutation: the test of two single runs.
        analysis: the test if a group has several runs.
        dependence: what the images are of one of, such as "frames of one sequence"; empty if they are independent.
    """

    key: str
    info: ScoreInfo
    first: str
    second: str
    scores: tuple[float, float]
    low: float
    high: float
    p: float
    p_adjusted: float
    images: int
    seeds: tuple[int, int]
    undefined: float = 0.0
    permutation: Permutation | None = None
    analysis: SeedsAndImages | None = None
    dependence: str = ""

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.scores[1] - self.scores[0]

    @property
    def name(self) -> str:
        """The score without the split."""
        return self.key.split("/", 1)[1]

    @property
    def interval(self) -> tuple[float, float]:
        """`low` and `high`."""
        return self.low, self.high

    @property
    def class_name(self) -> str | None:
        """The class whose score it is, with its head if there are several; None for a score over all classes."""
        found = of_class(self.name)
        if found is None:
            return None
        family, name = found
        return self.name.removesuffix(f"{family}/{name}") + name

    @property
    def seeds_only(self) -> TTest | None:
        """The test that stands beside if images are too few or dependent: over seeds, on these very images."""
        doubtful = self.images < FEWEST_IMAGES or self.dependence
        return self.analysis.seeds if self.analysis is not None and doubtful else None

    def disagrees(self, confidence: float) -> bool:
        """Whether p and the interval, which two methods give for single runs, say different things."""
        outside = not self.low <= 0 <= self.high
        return self.permutation is not None and outside != (self.p < 1 - confidence)

    @property
    def better(self) -> str | None:
        """The letter of the group with the better score; None if they are equal or not defined."""
        if not math.isfinite(self.difference) or self.difference == 0:
            return None
        return self.second if (self.difference > 0) == self.info.higher_is_better else self.first

    def is_shown(self, confidence: float) -> bool:
        """Whether the difference is more than noise at this confidence, adjusted for the number of comparisons."""
        return self.p_adjusted < 1 - confidence


@dataclass(frozen=True)
class ImageChange:
    """An image on which two groups differ.

    Attributes:
        id: of the image.
        scores: of the image alone, first and second group, means over their runs.
        without: the difference of the groups' scores over all other images.
    """

    id: str
    scores: tuple[float, float]
    without: float

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.scores[1] - self.scores[0]


@dataclass(frozen=True)
class Pair:
    """Two groups that were scored on the same images.

    Attributes:
        first: the letter of one.
        second: the letter of the other; differences are second minus first.
        images: N.
        differences: of every score that is shown, the leading one first.
        classes: of the IU of each class.
        changed: the images that changed most in the leading score, largest change first.
        equal: scores whose counts are the same in all runs, such as a baseline of the data.
        untested: scores that one of them lacks or defines differently.
        same_networks: whether both are evaluations of the same trained networks, which are then compared in pairs.
        plan: how many seeds and images show a difference in the leading score, if asked for.
        sentences: what can be concluded, and what cannot.
    """

    first: str
    second: str
    images: int
    differences: tuple[Difference, ...]
    classes: tuple[Difference, ...]
    changed: tuple[ImageChange, ...]
    equal: tuple[str, ...] = ()
    untested: tuple[str, ...] = ()
    same_networks: bool = False
    plan: Plan | None = None
    sentences: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """Two groups that are not compared, or a run whose counts are not.

    Attributes:
        what: the groups or the run.
        error: why.
        wrong: whether something is wrong, rather than missing.
    """

    what: str
    error: SegbenchError
    wrong: bool


@dataclass(frozen=True, eq=False)
class Comparison:
    """The comparison of some runs.

    Attributes:
        table: the groups.
        columns: the scores that are shown, the leading one first.
        settings: how they were compared.
        pairs: those tested.
        refusals: those not tested, and why.
        notes: sentences about what the tests leave out.
        method: how the tests were done, a sentence each.
    """

    table: RunTable
    columns: tuple[Column, ...]
    settings: Settings
    pairs: tuple[Pair, ...]
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...]
    method: tuple[str, ...] = ()
