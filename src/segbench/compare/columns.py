"""The scores of a table, each by one definition."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from segbench.compare.records import RunRecord
from segbench.errors import SegbenchError
from segbench.spec import of_class


@dataclass(frozen=True)
class Summary:
    """A score over the runs of a group.

    Attributes:
        mean: over the runs in which it is defined; NaN if there is none.
        sd: sample standard deviation (n - 1); NaN below two runs.
        n: runs in which it is defined.
    """

    mean: float
    sd: float
    n: int

    def interval(self, confidence: float) -> tuple[float, float]:
        """The interval of the mean over seeds, by Student's t with n - 1 degrees of freedom; NaN below two runs.

        Args:
            confidence: e.g. 0.95.
        """
        from scipy.special import stdtrit

        if self.n < 2:
            return math.nan, math.nan
        half = float(stdtrit(self.n - 1, (1 + confidence) / 2)) * self.sd / math.sqrt(self.n)
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Column:
    """A score of the table: one metric under one definition.

    Attributes:
        key: `<split>/<head, if several>/<metric>`.
        version: of the definition; None if no run recorded it.
        mixed: whether other runs of this comparison use other definitions of the metric.
    """

    key: str
    version: str | None
    mixed: bool = False

    def holds(self, run: RunRecord) -> bool:
        """Whether the run has the score, by this definition."""
        return self.key in run.metrics and (not self.mixed or run.versions.get(self.key) == self.version)

    @property
    def split(self) -> str:
        """Whose images were scored."""
        return self.key.split("/")[0]

    @property
    def name(self) -> str:
        """The metric without the split; with its definition if there are several."""
        name = self.key.split("/", 1)[-1]
        return f"{name} [{self.version or 'definition unknown'}]" if self.mixed else name

    @property
    def of_class(self) -> str | None:
        """The class whose IU or Dice this is; None for a score over all classes."""
        found = of_class(self.key)
        return None if found is None else found[1]


def choose_columns(
    columns: Sequence[Column], metrics: Sequence[str] = (), split: str | None = None
) -> tuple[Column, ...]:
    """The scores to show: of one split, over all classes unless a class is asked for.

    Args:
        columns: all available ones.
        metrics: names or patterns, the first of which leads; empty for all.
        split: the split; None for `test` if there is one.

    Raises:
        SegbenchError: a metric or a split that no run has.
    """
    splits = list(dict.fromkeys(column.split for column in columns))
    if split is not None and split not in splits:
        raise SegbenchError(
            f"split={split}", f"a split that was scored: {', '.join(splits) or 'none'}", "correct split="
        )
    split = split or ("test" if "test" in splits or not splits else splits[0])
    of_split = [column for column in columns if column.split == split]
    if not metrics:
        return tuple(column for column in of_split if column.of_class is None)
    chosen: list[Column] = []
    for pattern in metrics:
        found = [column for column in of_split if _matches(column, pattern)]
        if not found:
            known = list(dict.fromkeys(column.key.split("/", 1)[-1] for column in of_split))
            near = difflib.get_close_matches(pattern, known, n=3)
            raise SegbenchError(
                f"metric={pattern}",
                f"a score of the {split} split: {', '.join(near or [k for k in known if '/' not in k]) or 'none'}",
                "correct metric=; patterns such as metric=iu/* work too",
            )
        chosen += [column for column in found if column not in chosen]
    return tuple(chosen)


def _matches(column: Column, pattern: str) -> bool:
    key = column.key
    tails = [key.split("/", start)[-1] for start in range(key.count("/") + 1)]
    # A pattern matches only names with as many levels.
    return any(fnmatchcase(tail, pattern) and tail.count("/") == pattern.count("/") for tail in tails)
