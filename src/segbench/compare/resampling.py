"""Resampling of images: intervals and p values of two runs, for scores that are not means over images.

- Bootstrap (Efron and Tibshirani 1993, chapters 13 and 16): images are drawn with replacement, the same draw for every
  run, so differences are paired; each draw's score is computed from summed counts. Percentile interval.
- Permutation: if two runs do not differ, an image's two results may be swapped (Edgington 1980); all 2^n swaps if they
  are few, else random ones.
- Several comparisons: Holm (1979).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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


def bootstrap_scores(runs: Sequence[ImageCounts], keys: Sequence[str], draws: int, seed: int) -> NDArray[np.float64]:
    """Scores of runs under draws of images.

    Args:
        runs: R runs, all scored on the same images in the same order.
        keys: M scores.
        draws: D.
        seed: of the resampling.

    Returns:
        (R, M, D); NaN where a run lacks the score, or it is undefined in a draw.

    Raises:
        SegbenchError: `draws` is too small for an interval.
    """
    if draws < 100:
        raise SegbenchError(f"draws={draws}", "100 draws or more, enough for the tails of an interval", "raise draws=")
    scores = np.full((len(runs), len(keys), draws), np.nan)
    start = 0
    for weights_DN in image_draws(len(runs[0].ids), draws, seed):
        stop = start + len(weights_DN)
        for of_run, run in zip(scores, runs, strict=True):
            drawn = run.scores(weights_DN)
            for place, key in enumerate(keys):
                if key in drawn:
                    of_run[place, start:stop] = drawn[key]
        start = stop
    return scores


def interval(differences_D: NDArray[np.float64], confidence: float) -> tuple[float, float, float]:
    """Percentile interval of a difference.

    Args:
        differences_D: of the draws; NaN where it is not defined.
        confidence: of the interval, e.g. 0.95.

    Returns:
        its ends, NaN if the difference is defined in no draw; and the share of the draws in which it is not defined (a
        class that no drawn image holds).
    """
    defined = differences_D[np.isfinite(differences_D)]
    undefined = 1 - defined.size / differences_D.size
    if not defined.size:
        return float("nan"), float("nan"), undefined
    low, high = np.quantile(defined, ((1 - confidence) / 2, (1 + confidence) / 2))
    return float(low), float(high), undefined


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
    first: ImageCounts, second: ImageCounts, keys: Sequence[str], draws: int, seed: int
) -> dict[str, Permutation]:
    """Test whether two runs differ on these images by more than a swap of their results would.

    Args:
        first: a run.
        second: another, scored on the same images in the same order.
        keys: the scores.
        draws: random swaps to draw if all swaps would be more.
        seed: of the resampling.
    """
    chunks, exact = image_swaps(len(first.ids), draws, seed)
    found: dict[str, list[NDArray[np.float64]]] = {key: [] for key in keys}
    for swaps_DN in chunks:
        scores = first.swapped(second, swaps_DN)
        for key in keys:
            found[key].append(scores[1][key] - scores[0][key])
    return {key: _permutation(np.concatenate(parts), exact) for key, parts in found.items()}


def _permutation(differences_D: NDArray[np.float64], exact: bool) -> Permutation:
    # Row 0 swaps nothing: it is the observed difference, which random swaps must include.
    found, defined = abs(float(differences_D[0])), np.isfinite(differences_D)
    if not np.isfinite(found):
        return Permutation(float("nan"), int(defined.sum()), exact)
    # Sums in another order may differ in the last bits.
    as_large = np.abs(differences_D[defined]) >= found - 1e-12
    return Permutation(float(as_large.mean()), int(defined.sum()), exact)


def image_swaps(images: int, draws: int, seed: int) -> tuple[Iterator[NDArray[np.float64]], bool]:
    """Which images are swapped.

    Args:
        images: N.
        draws: D.
        seed: of the resampling.

    Returns:
        chunks (d, N) of 0 and 1, of which the first row swaps none; true if these are all 2^N, else D + 1.
    """
    exact = 2.0**images <= max(draws, 2)
    return (_all_swaps(images) if exact else _random_swaps(images, draws, seed)), exact


def _all_swaps(images: int) -> Iterator[NDArray[np.float64]]:
    for start in range(0, 2**images, _CHUNK):
        numbers = np.arange(start, min(start + _CHUNK, 2**images))
        yield (numbers[:, None] >> np.arange(images) & 1).astype(np.float64)


def _random_swaps(images: int, draws: int, seed: int) -> Iterator[NDArray[np.float64]]:
    rng = np.random.default_rng((seed, 2))
    yield np.zeros((1, images))
    for start in range(0, draws, _CHUNK):
        yield rng.integers(0, 2, (min(_CHUNK, draws - start), images)).astype(np.float64)


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
