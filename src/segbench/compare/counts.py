"""Scores under any weighting of the images, from the counts that a run kept of each image.

The score of a data set is not the mean of image scores: counts are summed with the weights, and the score is computed
from the sum, by the same code that scored the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from segbench.errors import SegbenchError
from segbench.metrics.measure import Counts, Measure
from segbench.spec import ScoreInfo

EXACT = 2.0**53
"""Below it float64 holds every integer, so a matrix product of integers is exact in any order."""
_STEPS = 256
"""A derivative is a central difference over 1 / 256 of an image's weight."""


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """What a run counted in each image of a split.

    Attributes:
        source: the run.
        split: whose images they are.
        ids: N names.
        measures: by (head, first score); the name of a measure in the configuration does not matter.
        counts: by the same keys, each array with a leading N, reduced to what the scores need.
        several_heads: whether score keys name the head.
        data: the data set's name.
        network: the trained network; equal for its evaluations.
        dependence: what the images are of one of, such as "frames of one sequence"; empty if they are independent.
        unread: sentences about measures in the file that this code cannot score.
    """

    source: str
    split: str
    ids: tuple[str, ...]
    measures: Mapping[tuple[str, str], Measure]
    counts: Mapping[tuple[str, str], Counts]
    several_heads: bool
    data: str = ""
    network: str = ""
    dependence: str = ""
    unread: tuple[str, ...] = ()

    @cached_property
    def infos(self) -> dict[str, ScoreInfo]:
        """The description of each score, by its key."""
        return {
            self._key(head, info.name): info for (head, _), measure in self.measures.items() for info in measure.infos()
        }

    @cached_property
    def measure_of(self) -> dict[str, tuple[str, str]]:
        """The measure of each score, by its key."""
        return {self._key(key[0], info.name): key for key, measure in self.measures.items() for info in measure.infos()}

    def _key(self, head: str, name: str) -> str:
        return "/".join([self.split, *([head] if self.several_heads else []), name])

    def _scores(self, totals: Mapping[tuple[str, str], Counts]) -> dict[str, NDArray[np.float64]]:
        return {
            self._key(key[0], score): value
            for key, counts in totals.items()
            for score, value in self.measures[key].scores(counts).items()
        }

    def scores(self, weights_DN: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Scores when image n counts `weights_DN[d, n]` times.

        Args:
            weights_DN: D weightings, float64 holding integers.

        Returns:
            float64 (D,) by key; NaN if a score is not defined.
        """
        return self._scores(
            {
                key: {name: weighted_sums(array, weights_DN) for name, array in counts.items()}
                for key, counts in self.counts.items()
            }
        )

    def only(self, keys: Collection[tuple[str, str]]) -> ImageCounts:
        """Only the measures of `keys`."""
        kept = {key: measure for key, measure in self.measures.items() if key in keys}
        return replace(self, measures=kept, counts={key: self.counts[key] for key in kept})

    def of_all(self) -> dict[str, float]:
        """The scores of the split, bit for bit as in the run's results.json."""
        totals = {
            key: {name: np.asarray(array.sum(0)) for name, array in counts.items()}
            for key, counts in self.counts.items()
        }
        return {key: float(value) for key, value in self._scores(totals).items()}

    def of_each(self) -> dict[str, NDArray[np.float64]]:
        """The scores of each image alone, (N,): for inspection, not for averaging."""
        return self._scores(dict(self.counts))

    def swapped(self, other: ImageCounts, swaps_DN: NDArray[np.float64]) -> tuple[dict[str, NDArray[np.float64]], ...]:
        """Scores of this run and of another one, if image n swaps its two results where `swaps_DN[d, n]` is 1.

        Args:
            other: scored on the same images in the same order; it has at least one measure of this run.
            swaps_DN: D swaps, float64 holding 0 and 1.

        Returns:
            float64 (D,) by key, of this run and of the other.
        """
        sides: tuple[dict[tuple[str, str], Counts], ...] = ({}, {})
        for key in self.counts.keys() & other.counts.keys():
            for side in sides:
                side[key] = {}
            for name, ours in self.counts[key].items():
                # A run of another version may count less.
                if (theirs := other.counts[key].get(name)) is not None:
                    # What a swap adds to one it takes from the other.
                    moved = weighted_sums(np.subtract(theirs, ours), swaps_DN)
                    sides[0][key][name], sides[1][key][name] = ours.sum(0) + moved, theirs.sum(0) - moved
        return self._scores(sides[0]), other._scores(sides[1])

    def influences(self) -> dict[str, NDArray[np.float64]]:
        """How much each image moves each score: N times the derivative of the score by the weight of the image.

        The infinitesimal jackknife (Efron and Tibshirani 1993, section 22.6): under other images the score moves by
        about the mean influence. Of a mean over images an influence is the image's value minus the mean.

        Returns:
            (N,) float64 by score, with a mean of zero; NaN if the score is not defined.

        Raises:
            SegbenchError: the sums do not fit into int64.
        """
        totals = {
            key: {name: np.asarray(array.sum(0)) for name, array in arrays.items()}
            for key, arrays in self.counts.items()
        }
        integers = [total for arrays in totals.values() for total in arrays.values() if total.dtype.kind in "iu"]
        largest = max((int(np.abs(total).max(initial=0)) for total in integers), default=0)
        steps = min(_STEPS, 2**62 // max(largest, 1))
        if steps < 2:
            raise _too_large(float(largest))
        # Counts are integers: instead of 1 + 1/256 an image counts 257 times where the others count 256 times.
        more, less = (
            self._scores(
                {
                    key: {name: steps * total + sign * self.counts[key][name] for name, total in arrays.items()}
                    for key, arrays in totals.items()
                }
            )
            for sign in (1, -1)
        )
        moved = {key: (more[key] - less[key]) * (steps / 2 * len(self.ids)) for key in more}
        return {key: moved_N - moved_N.mean() for key, moved_N in moved.items()}

    def take(self, order: NDArray[np.intp]) -> ImageCounts:
        """The images at `order`."""
        return replace(
            self,
            ids=tuple(self.ids[place] for place in order),
            counts={
                key: {name: np.asarray(array[order]) for name, array in counts.items()}
                for key, counts in self.counts.items()
            },
        )

    def in_order(self) -> ImageCounts:
        """The images in the order of their ids."""
        return self.take(np.argsort(np.array(self.ids), kind="stable"))


def weighted_sums(counts_N: NDArray[np.generic], weights_DN: NDArray[np.float64]) -> NDArray[np.generic]:
    """Sum counts under integer weights; exact for integers.

    Args:
        counts_N: int64 or float64, N first.
        weights_DN: D weightings, float64 holding integers from 0.

    Returns:
        the dtype of the counts, (D, ...).

    Raises:
        SegbenchError: the sums do not fit into int64.
    """
    flat_NP = counts_N.reshape(len(counts_N), -1)
    shape = (len(weights_DN), *counts_N.shape[1:])
    if counts_N.dtype.kind == "f":
        return np.asarray(weights_DN @ flat_NP.astype(np.float64)).reshape(shape)
    integers_NP = flat_NP.astype(np.int64)
    largest = float(np.abs(integers_NP).max(initial=0)) * float(weights_DN.sum(1).max(initial=0))
    if largest < EXACT:
        return np.asarray(weights_DN @ integers_NP.astype(np.float64)).astype(np.int64).reshape(shape)
    if largest >= 2.0**63 or float(weights_DN.sum(1).max()) >= 2.0**21:
        raise _too_large(largest)
    # Two words of less than 2^32, whose sums stay below 2^53.
    high_NP, low_NP = integers_NP >> 32, integers_NP & 0xFFFFFFFF
    high, low = (np.asarray(weights_DN @ word.astype(np.float64)).astype(np.int64) for word in (high_NP, low_NP))
    return ((high << 32) + low).reshape(shape)


def _too_large(largest: float) -> SegbenchError:
    return SegbenchError(
        f"counts whose sums reach {largest:.1g}",
        "sums that fit into 64-bit integers",
        "compare fewer or smaller images",
    )


def reduced(measure: Measure, counts: Counts) -> Counts:
    """The counts in the smaller, linear form that some measures offer: 3 K numbers for a K x K matrix."""
    reduce = getattr(measure, "reduced", None)
    return counts if reduce is None else dict(reduce(counts))


def pool(folds: Sequence[ImageCounts], source: str) -> ImageCounts:
    """The images of several folds as one set.

    Raises:
        SegbenchError: the folds share images, or were scored by different definitions.
    """
    first = folds[0]
    ids = tuple(name for fold in folds for name in fold.ids)
    shared = sorted(name for name, times in Counter(ids).items() if times > 1)
    if shared:
        raise SegbenchError(
            f"{source}: folds that share images ({some_of(shared)})",
            "folds of one cross-validation, each image in only one of them",
            "correct folds=, or leave it out",
        )
    if any(fold.split != first.split or fold.measures != first.measures for fold in folds):
        raise SegbenchError(
            f"{source}: folds that were scored by different metrics or on different splits",
            "folds that differ only in their images",
            "correct folds=, or leave it out",
        )
    # What later versions count too is left out unless all folds have it.
    counts = {
        key: {
            name: np.concatenate([fold.counts[key][name] for fold in folds])
            for name in first.counts[key]
            if all(name in fold.counts[key] for fold in folds)
        }
        for key in first.counts
    }
    return replace(first, source=source, ids=ids, counts=counts, network="")


def some_of(names: Sequence[str], shown: int = 8) -> str:
    """The first names, and the number of further ones."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
