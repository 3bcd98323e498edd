"""The order of images: a function of (seed, epoch), with the same samples for any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from segbench.errors import SegbenchError


@dataclass(frozen=True, slots=True)
class Draw:
    """A sampler's request to the data set.

    Attributes:
        index: the image.
        epoch: counts from 0; 0 in evaluation.
        draw: the position among the epoch's draws before shuffling; with `epoch` and the seed it fixes every random
            choice for the sample.
        padding: a repeated image that keeps the ranks in step; metrics ignore it.
        label: the class that the tile has to show; None: any place will do.
        pixel: row and column of the centre of the tile; None: any place will do.
    """

    index: int
    epoch: int = 0
    draw: int = 0
    padding: bool = False
    label: int | None = None
    pixel: tuple[int, int] | None = None


Choice = Callable[[int, int, int], Draw]
"""`choice(draw, draws, epoch)`: what a draw out of an epoch's `draws` takes."""


class Balance:
    """Which image each draw of an epoch takes, so that every class has its share of the draws.

    The first share_0 of an epoch's draws (before they are shuffled) are class 0's, the next share_1 class 1's and so
    on, to the nearest draw; what is left takes the images in turn, as without a balance. A draw of a class takes one of
    the images that show it, all equally likely: a function of (seed, epoch, draw).

    Args:
        shares: K shares of the draws, summing to at most 1.
        shown_NK: whether each image shows each class.
        seed: of the run.
    """

    def __init__(self, shares: Sequence[float], shown_NK: NDArray[np.bool_], seed: int) -> None:
        self._until_K = np.cumsum(shares)
        self._images = [np.flatnonzero(shown_N).astype(np.int32) for shown_N in shown_NK.T]
        self._count, self._seed = len(shown_NK), seed

    def __call__(self, draw: int, draws: int, epoch: int) -> Draw:
        """A draw out of `draws`, with its image and the class that its tile has to show."""
        # The middle of the draw's own part of [0, 1); a sum of shares that rounds to less than 1 leaves none over.
        label = int(np.searchsorted(self._until_K, (draw + 0.5) / draws, side="right"))
        if label == len(self._until_K):
            return Draw(draw % self._count, epoch, draw)
        images = self._images[label]
        # A stream beside that of the tile, which begins with the same three numbers.
        chosen = np.random.default_rng((self._seed, epoch, draw, 1)).integers(len(images))
        return Draw(int(images[chosen]), epoch, draw, label=label)


class TrainSampler(Sampler[Draw]):
    """A shuffled pass over the images, each drawn `repeats` times, shared out among the ranks.

    The t-th batches of b samples on k ranks together are the t-th batch of k*b samples on one rank: the same samples in
    the same step. Samples that do not fill a batch on every rank are left out, different ones each epoch.

    Args:
        count: the number of images.
        batch_size: b, per process.
        seed: with the epoch it fixes the order.
        repeats: how often each image is drawn in an epoch.
        rank: of this process.
        world_size: k.
        steps_done: returns the run's optimiser steps so far, which determine the epoch and the position in it, so that
            a resume continues exactly. None: the epoch passed to `set_epoch`, from its start.
        accumulate: batches per optimiser step; the last step of an epoch takes those that are left.
        limit: batches that the Trainer takes for one of its epochs, or a share of them (`limit_train_batches`). A pass
            over the images then makes as many epochs as fit into it, each of other batches.
        overfit: batches, or a share of them, that make every epoch, always the same ones (`overfit_batches`); 0: all.
        choice: chooses what is drawn, `count * repeats` draws an epoch; None: each image equally often.

    Raises:
        SegbenchError: fewer draws than one batch on every rank needs.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        repeats: int = 1,
        rank: int = 0,
        world_size: int = 1,
        steps_done: Callable[[], int] | None = None,
        accumulate: int = 1,
        limit: int | float = 1.0,
        overfit: int | float = 0,
        choice: Choice | None = None,
    ) -> None:
        self._choice = choice
        self._count, self._batch, self._seed, self._repeats = count, batch_size, seed, repeats
        self._rank, self._world = rank, world_size
        self._epoch, self._steps_done, self._accumulate = 0, steps_done, accumulate
        self._steps = count * repeats // (batch_size * world_size)
        self._taken = min(limit if isinstance(limit, int) else int(self._steps * limit), self._steps) or self._steps
        self._same = bool(overfit)
        if overfit:
            share = overfit if isinstance(overfit, int) else max(1, int(self._steps * overfit))
            self._kept = min(share, self._taken)
        if self._steps == 0:
            raise SegbenchError(
                f"{count} training images drawn {repeats} times per epoch",
                f"at least one batch: {batch_size} samples on each of {world_size} processes",
                "lower data.batch_size, or raise data.repeats",
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, if there is no `steps_done`."""
        self._epoch = epoch

    def __len__(self) -> int:
        return (self._kept if self._same else self._steps) * self._batch

    def __iter__(self) -> Iterator[Draw]:
        epoch, entered, end = self._epoch, 0, self._steps
        if self._same:
            # Every epoch is the beginning of the first one, tiles and augmentation included.
            steps = -(-self._kept // self._accumulate)
            entered = (self._steps_done() if self._steps_done is not None else 0) % steps * self._accumulate
            epoch, end = 0, self._kept
        elif self._steps_done is not None:
            epochs, steps = divmod(self._steps_done(), -(-self._taken // self._accumulate))
            epoch, part = divmod(epochs, self._steps // self._taken)
            entered, end = part * self._taken + steps * self._accumulate, (part + 1) * self._taken
        order = np.random.default_rng((self._seed, epoch)).permutation(self._count * self._repeats)
        order = order[: self._steps * self._world * self._batch].reshape(self._steps, self._world, self._batch)
        for draw in order[entered:end, self._rank].reshape(-1).tolist():
            if self._choice is None:
                yield Draw(draw % self._count, epoch, draw)
            else:
                yield self._choice(draw, self._count * self._repeats, epoch)


class EvaluationSampler(Sampler[Draw]):
    """Every image once: rank r of k takes r, r + k, ...; ranks that run out repeat the first image as padding.

    Args:
        count: the number of images.
        rank: of this process.
        world_size: k.
    """

    def __init__(self, count: int, rank: int = 0, world_size: int = 1) -> None:
        self._count, self._rank, self._world = count, rank, world_size

    def __len__(self) -> int:
        return -(-self._count // self._world)

    def __iter__(self) -> Iterator[Draw]:
        for index in range(self._rank, len(self) * self._world, self._world):
            yield Draw(index) if index < self._count else Draw(0, padding=True)
