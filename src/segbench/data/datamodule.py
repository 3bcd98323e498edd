"""The one DataModule: any data set, tiles or whole images, any number of processes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from segbench.data.augment import Augmentation
from segbench.data.class_counts import absent, class_counts, of_classes
from segbench.data.loader import Loader, ResumableLoader, in_worker
from segbench.data.pixels import BalancedPixels
from segbench.data.raw import SPLITS, DataSet, Source
from segbench.data.sampler import Balance, EvaluationSampler, TrainSampler
from segbench.data.tiles import TrainTiles, WholeImages
from segbench.data.weights import LossWeights
from segbench.errors import SegbenchError, check_one_of
from segbench.spec import Batch, Sample, TileGeometry, collate


class SegmentationData(lightning.LightningDataModule):
    """Loaders over a data set.

    Args:
        dataset: the data set.
        geometry: the network's, which decides what tile sizes are valid.
        augmentation: of the training tiles.
        seed: of the run.
        batch_size: training samples per step and process.
        tile: input side of the training tiles in pixels, None for whole images.
        surround: pixels cut around a tile for its augmentation only.
        repeats: how often each image is drawn in an epoch.
        balance: shares of the draws whose tiles show a class of the first head, by its name; together at most 1. None:
            tiles are drawn without regard to classes.
        draw: `pixels`: an epoch is every pixel of the rarest class of the first head and as many of each other one,
            each at the centre of a tile, see `BalancedPixels`. None: `repeats` tiles of each image, anywhere.
        eval_batch_size: images per batch in evaluation; does not affect results.
        num_workers: loading processes; does not affect results. A loader with fewer batches starts fewer.
        pixel_weights: computes the pixel weights of a training image, or None.
        overfit_batches: batches, or a share of them, that make every epoch, always the same ones; 0: all.

    Raises:
        SegbenchError: a tile size that the network does not accept, shares or pixels that the training images cannot
            give, or another way of drawing beside `draw`.
    """

    def __init__(
        self,
        dataset: DataSet,
        geometry: TileGeometry,
        augmentation: Augmentation,
        seed: int,
        batch_size: int = 1,
        tile: int | None = None,
        surround: int = 0,
        repeats: int = 1,
        balance: Mapping[str, float] | None = None,
        draw: str | None = None,
        eval_batch_size: int = 1,
        num_workers: int = 0,
        pixel_weights: LossWeights | None = None,
        overfit_batches: int | float = 0,
    ) -> None:
        super().__init__()
        if tile is not None:
            geometry.output_size(tile, "data.tile")
        self.dataset, self.spec = dataset, dataset.spec
        self.test_split = "test"
        self._geometry, self._augmentation, self._seed = geometry, augmentation, seed
        self._batch_size, self._tile, self._surround, self._repeats = batch_size, tile, surround, repeats
        self._eval_batch_size, self._pixel_weights = eval_batch_size, pixel_weights
        self._num_workers: int | str = num_workers
        self._resumed_at, self._overfit = 0, overfit_batches
        self._scales: dict[torch.device, dict[str, tuple[Tensor, Tensor | None]]] = {}
        self._balance = None if balance is None else self._balanced(balance)
        check_draw(draw, tile, repeats, balance)
        self._draw = draw

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's steps so far."""
        return {"steps": self.trainer.global_step if self.trainer is not None else 0}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue after that step."""
        self._resumed_at = state_dict["steps"]

    def _steps_done(self) -> int:
        # Loading processes may ask for their first samples before the Trainer has restored its count.
        return max(self._resumed_at, self.trainer.global_step if self.trainer is not None else 0)

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def require(self, split: str) -> Source:
        """The split; a `SegbenchError` if the data set's protocol has none of that name."""
        source = self.dataset.split(split)
        if source is None or len(source) == 0:
            names = [name for name in SPLITS if self.dataset.split(name)]
            raise SegbenchError(
                f"no split {split!r} in {self.spec.name} ({self.spec.protocol})",
                f"one of {', '.join(names)}" if names else "a split with images",
                f"{'choose one with split=' if names else 'set data.root to its images'}, or another data.protocol",
            )
        return source

    def _balanced(self, shares: Mapping[str, float]) -> Balance:
        head, spec = next(iter(self.spec.heads.items()))
        shares_K = of_classes(shares, spec, "data.balance", 0.0)
        total = sum(shares_K)
        if not (all(share >= 0 for share in shares_K) and 0 < total <= 1 + 1e-6):
            raise SegbenchError(
                f"data.balance={dict(shares)}, {total:g} together",
                "shares of the tiles that show each class, together more than 0 and at most 1",
                "correct data.balance; what is left of 1 is drawn from anywhere",
            )
        counts_NK = class_counts(self.require("train"), head, spec.num_classes)
        if missing := [name for name in absent(counts_NK, spec.class_names) if shares.get(name)]:
            raise SegbenchError(
                f"data.balance gives a share to {', '.join(missing)}, which no training image shows",
                "classes that training images show",
                f"leave out data.balance.{missing[0]}, or set data.balance=auto",
            )
        return Balance(shares_K, counts_NK > 0, self._seed)

    def train_dataloader(self) -> DataLoader[Sample]:
        """Shuffled, augmented tiles."""
        rank, world = self._ranks()
        source = self.require("train")
        settings = self._tile, self._geometry.margin, self._surround, self._pixel_weights
        tiles = TrainTiles(source, self.spec, self._augmentation, self._seed, *settings)
        of_trainer: dict[str, Any] = {"overfit": self._overfit}
        if self.trainer is not None:
            of_trainer |= {
                "steps_done": self._steps_done,
                "accumulate": self.trainer.accumulate_grad_batches,
                "limit": self.trainer.limit_train_batches,
            }
        count, of_trainer["choice"] = len(source), self._balance
        if self._draw is not None:
            head, spec = next(iter(self.spec.heads.items()))
            pixels = BalancedPixels(source, head, spec.class_names, self._seed)
            count, of_trainer["choice"] = pixels.draws, pixels
        sampler = TrainSampler(count, self._batch_size, self._seed, self._repeats, rank, world, **of_trainer)
        return ResumableLoader(
            tiles,
            batch_size=self._batch_size,
            sampler=sampler,
            **self._loading(True, len(sampler) // self._batch_size),
        )

    def evaluation_loader(self, split: str, stays: bool = False) -> DataLoader[Sample]:
        """Every image of a split once, in order.

        Args:
            split: its name.
            stays: keep the loading processes for the next time; to start them costs more than a few images.
        """
        rank, world = self._ranks()
        source = self.require(split)
        sampler = EvaluationSampler(len(source), rank, world)
        return Loader(
            WholeImages(source, self.spec),
            batch_size=self._eval_batch_size,
            sampler=sampler,
            **self._loading(stays, -(-len(sampler) // self._eval_batch_size)),
        )

    def val_dataloader(self) -> DataLoader[Sample] | list[DataLoader[Sample]]:
        """The validation split; an empty list if the protocol has none."""
        return self.evaluation_loader("val", stays=True) if self.dataset.split("val") else []

    def test_dataloader(self) -> DataLoader[Sample]:
        """The split that `test_split` names."""
        return self.evaluation_loader(self.test_split)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """The batch on the device; where it is scored, its images alone, as measures count on the host."""
        if self.trainer is None or self.trainer.training:
            return batch.to(device)
        images = {name: image.to(device, non_blocking=True) for name, image in batch.images.items()}
        return replace(batch, images=images)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """The batch as the network takes it, in the run's precision."""
        assert self.trainer is not None
        ready: Batch = self.trainer.precision_plugin.convert_input(self.normalised(batch))
        return ready

    def normalised(self, batch: Batch) -> Batch:
        """The batch as the network takes it, but for its precision."""
        device = next(iter(batch.images.values())).device
        if device not in self._scales:
            # Once a device: to copy them there at each step would wait for it.
            self._scales[device] = {
                name: (
                    _by_channel(modality.mean, device),
                    None if set(modality.std) == {1.0} else _by_channel(modality.std, device),
                )
                for name, modality in self.spec.modalities.items()
            }
        return batch.normalised(self._scales[device])

    def _loading(self, stays: bool, batches: int) -> dict[str, Any]:
        # `auto` until the machine has been looked at.
        workers = 0 if self._num_workers == "auto" else min(int(self._num_workers), batches)
        ignore_index = {name: head.ignore_index for name, head in self.spec.heads.items()}
        return {
            "num_workers": workers,
            "persistent_workers": stays and workers > 0,
            "collate_fn": partial(collate, ignore_index=ignore_index),
            "pin_memory": self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            "worker_init_fn": partial(in_worker, os.getpid()),
        }


def check_draw(draw: str | None, tile: int | str | None, repeats: int, balance: object) -> None:
    """Refuse another way of drawing beside `draw`; see `SegmentationData`, also for the arguments.

    Raises:
        SegbenchError: there is one, or `draw` is unknown.
    """
    if draw is None:
        return
    check_one_of("data.draw", draw, ("pixels",))
    of_images = f"data.repeats={repeats}" if repeats > 1 else f"data.balance={balance}" if balance else None
    if tile is None or of_images is not None:
        raise SegbenchError(
            f"data.draw=pixels with {of_images or 'data.tile=null'}",
            "tiles, each around a pixel; the labels decide how many make an epoch",
            f"set {'data.repeats=1' if repeats > 1 else 'data.balance=null'}"
            if of_images
            else "set data.tile=, say the network's window",
        )


def _by_channel(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]
