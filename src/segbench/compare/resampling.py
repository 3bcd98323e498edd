"""Resampling of images and seeds: intervals and p values for scores that are not means over images.

- Bootstrap (Efron and Tibshirani 1993, chapters 13 and 16): images are drawn with replacement, the same draw for every
  run, so differences are paired; each draw's score is computed from summed counts. Percentile interval.
- Seeds: where a group has several, they are drawn with replacement within the group, independently of the images;
  groups of the same trained networks, scored in different ways, draw the same ones.
  Drawn means of S seeds vary by (S - 1) / S too little, so their deviations from the group's mean are widened by
  sqrt(S / (S - 1)) (Hesterberg 2015, "What teachers should know about the bootstrap", section 3.2).
- Permutation: if two runs do not differ, an image's two results may be swapped (Edgington 1980); all 2^n swaps if they
  are few, else random ones.
- Several comparisons: Holm (1979).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from segbench.compare.counts import ImageCounts
from segbench.errors import SegbenchError

_CHUNK = 1000
"""Draws per chunk: their sums take a few megabytes."""


def image_draws(images: int, draws: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each image is in each bootstrap draw.

    Args:
        images: N.
        draws: D.
        seed: of the resampling.

    Yields:
        (d, N) float64 holding integers, each row summing to N; D rows in total.
    """
    rng = np.random.default_rng((seed, 0))
    for start in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - start)
        drawn = rng.integers(0, images, (size, images))
        drawn += np.arange(size)[:, None] * images
        yield np.bincount(drawn.ravel(), minlength=size * images).reshape(size, images).astype(np.float64)


def seed_draws(seeds: int, draws: int, seed: int, group: int) -> NDArray[np.float64]:
    """Weights of a group's runs in each draw, widened for their number.

    Args:
        seeds: S runs of the group.
        draws: D.
        seed: of the resampling.
        group: its number; groups are drawn independently.

    Returns:
        (D, S) float64, each row summing to 1: `1/S + sqrt(S / (S - 1)) (k / S - 1/S)` for a run drawn k times. A single
        run has weight 1 in every draw.
    """
    if seeds == 1:
        return np.ones((draws, 1))
    rng = np.random.default_rng((seed, 1, group))
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws)
    return np.asarray((1 + np.sqrt(seeds / (seeds - 1)) * (drawn - 1)) / seeds)


def bootstrap_scores(
    groups: Sequence[Sequence[ImageCounts]], keys: Sequence[str], draws: int, seed: int
) -> NDArray[np.float64]:
    """Scores of groups of runs under draws of images, and of seeds if a group has several.

    Args:
        groups: G groups of runs, all scored on the same images in the same order.
        keys: M scores.
        draws: D.
        seed: of the resampling.

    Returns:
        (G, M, D): a group's mean over its (drawn) runs; NaN where a run lacks the score, or it is undefined in a draw.

    Raises:
        SegbenchError: `draws` is too small for an interval.
    """
    if draws < 100:
        raise SegbenchError(f"draws={draws}", "100 draws or more, enough for the tails of an interval", "raise draws=")
    shape = [len(group) for group in groups]
    scores = [np.empty((runs, len(keys), draws)) for runs in shape]
    start = 0
    for weights_DN in image_draws(len(groups[0][0].ids), draws, seed):
        stop = start + len(weights_DN)
        for of_group, group in zip(scores, groups, strict=True):
            for number, run in enumerate(group):
                drawn = run.scores(weights_DN)
                for place, key in enumerate(keys):
                    of_group[number, place, start:stop] = drawn.get(key, np.nan)
        start = stop
    networks = [networks_of(group) or (str(number),) for number, group in enumerate(groups)]
    means = [
        np.einsum("smd,ds->md", of_group, seed_draws(len(of_group), draws, seed, networks.index(networks[number])))
        for number, of_group in enumerate(scores)
    ]
    return np.stack(means)


def networks_of(group: Sequence[ImageCounts]) -> tuple[str, ...] | None:
    """The trained networks of a group's runs; None if one is unknown."""
    networks = tuple(run.network for run in group)
    return networks if all(networks) else None


@dataclass(frozen=True)
class Interval:
    """Interval and p value of a difference, from its draws.

    Attributes:
        low: lower end of the interval.
        high: upper end; NaN, as `low`, if the difference is defined in no draw.
        p: two-sided, twice the smaller share of draws at or beyond zero; below 1 - confidence if the interval
            excludes zero.
        undefined: share of the draws in which the difference is not defined (a class that no drawn image holds).
    """

    low: float
    high: float
    p: float
    undefined: float


def interval(differences_D: NDArray[np.float64], confidence: float) -> Interval:
    """Percentile interval and p value of a difference.

    Args:
        differences_D: of the draws; NaN where it is not defined.
        confidence: of the interval, e.g. 0.95.
    """
    defined = differences_D[np.isfinite(differences_D)]
    undefined = 1 - defined.size / differences_D.size
    if not defined.size:
        return Interval(float("nan"), float("nan"), float("nan"), undefined)
    low, high = np.quantile(defined, ((1 - confidence) / 2, (1 + confidence) / 2))
    # The sample itself counts as a draw, so that no p value is zero.
    beyond = min(int((defined <= 0).sum()), int((defined >= 0).sum())) + 1
    return Interval(float(low), float(high), min(1.0, 2 * beyond / (defined.size + 1)), undefined)


@dataclass(frozen=True)
class Permutation:
    """A permutation test.

    Attributes:
        p: two-sided, the share of swaps whose difference is as large as the one found.
        swaps: number of swaps evaluated.
        exact: whether these are all possible swaps.
    """

    p: float
    swaps: int
    exact: bool


def permutation_test(
    pairs: Sequence[tuple[ImageCounts, ImageCounts]], keys: Sequence[str], draws: int, seed: int
) -> dict[str, Permutation]:
    """Test whether two groups differ on these images by more than a swap of their results would.

    In each image the results of the two runs of a pair are swapped or not, in all pairs alike; the statistic is the
    mean over the pairs of the difference of scores.

    Args:
        pairs: runs of the first and of the second group, all scored on the same images in the same order.
        keys: the scores.
        draws: random swaps to draw if all swaps would be more.
        seed: of the resampling.
    """
    swaps_DN, exact = image_swaps(len(pairs[0][0].ids), draws, seed)
    sums: dict[str, NDArray[np.float64]] = dict.fromkeys(keys, np.zeros(0))
    for first, second in pairs:
        both = _stacked(first, second)
        ours = both.scores(np.concatenate((1 - swaps_DN, swaps_DN), axis=1))
        theirs = both.scores(np.concatenate((swaps_DN, 1 - swaps_DN), axis=1))
        for key in keys:
            difference = theirs[key] - ours[key]
            sums[key] = difference if not sums[key].size else sums[key] + difference
    return {key: _permutation(sums[key], exact) for key in keys}


def _permutation(differences_D: NDArray[np.float64], exact: bool) -> Permutation:
    # Row 0 swaps nothing: it is the observed difference, which random swaps must include.
    found, defined = abs(float(differences_D[0])), np.isfinite(differences_D)
    if not np.isfinite(found):
        return Permutation(float("nan"), int(defined.sum()), exact)
    # Sums in another order may differ in the last bits.
    as_large = np.abs(differences_D[defined]) >= found - 1e-12
    return Permutation(float(as_large.mean()), int(defined.sum()), exact)


def image_swaps(images: int, draws: int, seed: int) -> tuple[NDArray[np.float64], bool]:
    """Which images are swapped, (D, N) of 0 and 1; row 0 swaps none. True if these are all 2^N."""
    if 2.0**images <= max(draws, 2):
        return (np.arange(2**images)[:, None] >> np.arange(images) & 1).astype(np.float64), True
    rng = np.random.default_rng((seed, 2))
    swaps = rng.integers(0, 2, (draws + 1, images)).astype(np.float64)
    swaps[0] = 0
    return swaps, False


def _stacked(first: ImageCounts, second: ImageCounts) -> ImageCounts:
    counts = {
        key: {name: np.concatenate((array, second.counts[key][name])) for name, array in arrays.items()}
        for key, arrays in first.counts.items()
        if key in second.counts
    }
    measures = {key: measure for key, measure in first.measures.items() if key in counts}
    return replace(first, ids=first.ids + second.ids, counts=counts, measures=measures)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for their number by Holm's step-down procedure; NaN is kept and not counted.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)
    order = order[np.isfinite(p[order])]
    adjusted = np.full(p.shape, np.nan)
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in adjusted]
