"""One measure of objects for several decodings of the same probabilities, to choose one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.metrics.decoding import Decoding
from segbench.metrics.measure import Counts, ImageResult
from segbench.spec import ScoreInfo


@dataclass(frozen=True)
class ByDecoding:
    """One score of a measure, for each of several decodings: `seg/depth 3`, `seg/depth 5`.

    Attributes:
        measure: a dataclass with a field `decoding`, such as `Seg`.
        score: which of its scores.
        decodings: D of them.
        labels: D texts that tell them apart.
    """

    measure: Any
    score: str
    decodings: Sequence[Decoding]
    labels: Sequence[str]
    name: str = "by_decoding"
    needs_prob: bool = True
    needs_raw: bool = False
    test_only: bool = False

    @property
    def version(self) -> str:
        """The measure's."""
        return str(self.measure.version)

    def infos(self) -> tuple[ScoreInfo, ...]:
        """The score, once for each decoding."""
        info = next(info for info in self.measure.infos() if info.name == self.score)
        return tuple(replace(info, name=f"{self.score}/{label}") for label in self.labels)

    def counts(self, image: ImageResult) -> Counts:
        """The measure's counts of each decoding, `<its key>_<number of the decoding>`."""
        return {
            f"{key}_{number}": count
            for number, decoding in enumerate(self.decodings)
            for key, count in replace(self.measure, decoding=decoding).counts(image).items()
        }

    def scores(self, totals: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float64]]:
        """The score of each decoding, from counts summed over images."""
        of_each: list[dict[str, NDArray[np.generic]]] = [{} for _ in self.labels]
        for key, total in totals.items():
            name, _, number = key.rpartition("_")
            of_each[int(number)][name] = total
        scores = (self.measure.scores(own)[self.score] for own in of_each)
        return {f"{self.score}/{label}": score for label, score in zip(self.labels, scores, strict=True)}
