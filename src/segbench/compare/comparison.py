"""The comparison of groups of runs: how much they differ, how certain that is, in which classes, on which images."""

from __future__ import annotations

import math
from dataclasses import dataclass

from segbench.compare.columns import Column
from segbench.compare.grouping import RunTable
from segbench.compare.resampling import Permutation
from segbench.errors import SegbenchError
from segbench.spec import ScoreInfo, of_class

FEW_IMAGES = 30
"""Below it a percentile interval is too narrow: over 6 images it covers 84 % where it claims 95 %, over 30 93 %."""
FEW_SEEDS = 10
"""Below it the spread of seeds is poorly known: where only seeds vary, 95 % covers 87 % with 3 runs per side."""
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
    """

    metrics: tuple[str, ...] = ()
    split: str | None = None
    baseline: str | None = None
    confidence: float = 0.95
    draws: int = 10_000
    seed: int = 0
    images: int = 10

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise SegbenchError(f"confidence={self.confidence}", "a share from 0.5 to below 1", "e.g. confidence=0.95")
        for name, least in (("draws", 100), ("seed", 0), ("images", 0)):
            if getattr(self, name) < least:
                raise SegbenchError(f"{name}={getattr(self, name)}", f"{least} or more", f"raise {name}=")


@dataclass(frozen=True)
class Difference:
    """A score of two groups on the same images.

    Attributes:
        key: `<split>/<head, if several>/<metric>`.
        info: the score's description.
        first: the first group's letter.
        second: the second group's.
        scores: of the first and of the second group, means over their runs.
        low: the bootstrap interval of `difference`.
        high: likewise.
        p_bootstrap: two-sided.
        undefined: share of the draws in which the difference is not defined.
        permutation: the additional test if images are few and the groups have equally many runs.
        p: the one that conclusions use: the bootstrap's; with few images the permutation test's; with few images and
            several seeds the larger of the two.
        p_adjusted: `p` adjusted for the number of comparisons.
        images: N.
        seeds: runs of the first and of the second group.
    """

    key: str
    info: ScoreInfo
    first: str
    second: str
    scores: tuple[float, float]
    low: float
    high: float
    p_bootstrap: float
    undefined: float
    permutation: Permutation | None
    p: float
    p_adjusted: float
    images: int
    seeds: tuple[int, int]

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.scores[1] - self.scores[0]

    @property
    def name(self) -> str:
        """The score without the split."""
        return self.key.split("/", 1)[1]

    @property
    def class_name(self) -> str | None:
        """The class whose score it is, with its head if there are several; None for a score over all classes."""
        found = of_class(self.name)
        if found is None:
            return None
        family, name = found
        return self.name.removesuffix(f"{family}/{name}") + name

    @property
    def few_images(self) -> bool:
        """Whether the interval is too narrow."""
        return self.images < FEW_IMAGES

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
        same_networks: whether both are evaluations of the same trained networks, whose seeds are then drawn together.
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
    """

    table: RunTable
    columns: tuple[Column, ...]
    settings: Settings
    pairs: tuple[Pair, ...]
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...]
