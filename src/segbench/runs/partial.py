"""Whether a score stands for its split: every image counted, and each once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from segbench.errors import SegbenchError
from segbench.runs.arrays import read_arrays


@dataclass(frozen=True)
class Partial:
    """A split that was not counted whole, whatever kept images out: its scores stand for nothing but a try.

    Attributes:
        counted: images of the split that were counted.
        of: images of the split.
        twice: images that were counted more than once.
    """

    counted: int
    of: int
    twice: int = 0

    def __str__(self) -> str:
        more = f", {self.twice} of them more than once" if self.twice else ""
        return f"{self.counted} of {self.of} images{more}"

    @classmethod
    def of_visits(cls, visits: Iterable[int], of: int) -> Partial | None:
        """From what was counted; None for a whole split.

        Args:
            visits: how often each image was counted that was counted at all.
            of: images of the split.
        """
        numbers = list(visits)
        found = cls(len(numbers), of, sum(number > 1 for number in numbers))
        return None if found == cls(of, of) else found

    @classmethod
    def of_ids(cls, ids: Collection[str], split: Collection[str]) -> Partial | None:
        """From the names of the images that were counted, and of those in the split; None for a whole split."""
        counted = len(set(split) & set(ids))
        return None if counted == len(split) else cls(counted, len(split))

    @classmethod
    def of_record(cls, record: Mapping[str, Any] | None) -> Self | None:
        """From results.json; None for a whole split."""
        return None if record is None else cls(int(record["counted"]), int(record["of"]), int(record.get("twice", 0)))

    def record(self) -> dict[str, int]:
        """For results.json."""
        return {"counted": self.counted, "of": self.of} | ({"twice": self.twice} if self.twice else {})


def counted_ids(path: Path) -> tuple[str, list[str]] | None:
    """The split and the names of the images in a per_image.npz; None if it is missing or cannot be read."""
    try:
        stored = read_arrays(path, {"split", "ids"}.__contains__)
        return str(stored["split"]), [str(name) for name in stored["ids"]]
    except (SegbenchError, KeyError, TypeError):
        return None
