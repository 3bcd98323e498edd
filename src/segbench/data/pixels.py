"""Balanced pixels: what a sliding-window network is trained on, each at the centre of its tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.data.raw import Source
from segbench.data.sampler import Draw
from segbench.errors import SegbenchError


def balanced_draws(counts_NK: NDArray[np.int64]) -> int:
    """How many pixels make an epoch.

    Args:
        counts_NK: pixels of each class in each image.
    """
    return int(counts_NK.sum(0).min()) * int(counts_NK.shape[1])


class BalancedPixels:
    """An epoch is every pixel of the rarest class once, and as many of each other class, different ones each epoch.

    As the sliding-window network was trained (Ciresan et al., NIPS 2012): all membrane pixels and as many others. The
    pixels of an epoch are a function of (seed, epoch). Void is never drawn. Where each labelled pixel lies is kept, in
    four bytes.

    Args:
        source: the training split; every label is read once.
        head: of the labels.
        names: of the K classes.
        seed: of the run.

    Attributes:
        draws: of an epoch.

    Raises:
        SegbenchError: a class that no image shows.
    """

    def __init__(self, source: Source, head: str, names: Sequence[str], seed: int) -> None:
        labels = [source.read(index).labels[head] for index in range(len(source))]
        self._widths = [label_HW.shape[1] for label_HW in labels]
        self._ends = np.cumsum([label_HW.size for label_HW in labels])
        word = np.uint32 if self._ends[-1] <= 2**32 else np.uint64
        every = np.concatenate([label_HW.ravel() for label_HW in labels])
        self._pixels = [np.flatnonzero(every == label).astype(word) for label in range(len(names))]
        counts = [len(pixels) for pixels in self._pixels]
        if missing := [name for name, count in zip(names, counts, strict=True) if count == 0]:
            raise SegbenchError(
                f"data.draw=pixels, and no training image shows {', '.join(missing)}",
                "a pixel of each class, as each gets as many draws",
                "set data.draw=null, or leave the class out of the data",
            )
        self._each, self._seed = min(counts), seed
        self.draws = self._each * len(names)
        self._drawn: tuple[int, list[NDArray[Any]]] = (-1, [])

    def __call__(self, draw: int, draws: int, epoch: int) -> Draw:
        """A draw of an epoch, with the pixel that is the centre of its tile."""
        label, place = divmod(draw, self._each)
        position = int(self._of_epoch(epoch)[label][place])
        index = int(np.searchsorted(self._ends, position, side="right"))
        within = position - (int(self._ends[index - 1]) if index else 0)
        y, x = divmod(within, self._widths[index])
        return Draw(index, epoch, draw, pixel=(y, x))

    def _of_epoch(self, epoch: int) -> list[NDArray[Any]]:
        if self._drawn[0] != epoch:
            chosen: list[NDArray[Any]] = []
            for label, pixels in enumerate(self._pixels):
                # A stream beside those of the tiles and of the order.
                rng = np.random.default_rng((self._seed, epoch, label, 2))
                all_of_them = len(pixels) == self._each
                chosen.append(pixels if all_of_them else rng.choice(pixels, self._each, replace=False, shuffle=False))
            self._drawn = epoch, chosen
        return self._drawn[1]
