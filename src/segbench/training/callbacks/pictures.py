"""Pictures of what the network sees and predicts, as PNG in the run directory and in trackers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import numpy as np
from numpy.typing import NDArray

from segbench.display.panels import draw_panel, draw_sample, grey_to_rgb, montage, write_png
from segbench.errors import check
from segbench.metrics import ImageResult, WarpingError, overlay, warp
from segbench.spec import Batch, HeadSpec
from segbench.tracking.tracker import Mask, Picture, trackers_of
from segbench.training.task import SegmentationTask


def show(trainer: lightning.Trainer, key: str, image_HWC: NDArray[np.uint8]) -> None:
    """Send a flat picture to every tracker that takes pictures.

    Args:
        trainer: whose loggers.
        key: the picture's name, `<split>/<what>`.
        image_HWC: uint8 RGB.
    """
    name = key.rpartition("/")[2]
    for tracker in trackers_of(trainer.loggers):
        tracker.pictures(key, [Picture(name, image_HWC)], trainer.global_step)


class Panels(lightning.Callback):
    """Image, label, prediction and error map: a test's and each validation's first images, and a table of the test.

    Trackers get them as images with masks, or side by side where they cannot lay one over the other; always the same
    images, so that they show progress. The table has a row for each image of the test: its scores from the counts that
    per_image.npz keeps, and the picture of the first ones.

    Args:
        directory: the run's `panels/`.
        count: images.
        table: images of the table that have a picture.
    """

    def __init__(self, directory: str | Path, count: int = 4, table: int = 100) -> None:
        for key, value in (("count", count), ("table", table)):
            check(f"callbacks.panels.{key}", value, value >= 0, "a number of images, 0 for none", 4)
        self._directory, self._count, self._table = Path(directory), count, table
        self._pictures: dict[str, dict[int, Picture]] = {}
        self._small: dict[int, Picture] = {}

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Forget earlier pictures."""
        self._pictures, self._small = {}, {}

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """As before a test."""
        self.on_test_start(trainer, pl_module)

    def on_test_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the first images of the split."""
        assert isinstance(pl_module, SegmentationTask)
        shows = _shows_pictures(trainer)
        for position, index in enumerate(batch.indices):
            head, result = next(iter(outputs["results"][position].items()))
            identity = batch.ids[position]
            if shows and 0 <= index < self._table:
                raw_CHW = _raw(pl_module, batch, position)
                self._small[index] = _picture(raw_CHW, result, pl_module.spec.heads[head], identity, _SMALL)
            if not 0 <= index < self._count:
                continue
            self._keep(pl_module, batch, position, outputs["results"][position])
            write_png(self._directory / f"{identity}.png", self._pictures[head][index].flat_HWC)
            if _scores_warping(pl_module) and result.prob_KHW is not None:
                # The challenge's picture of splits and merges, at the threshold of a plain decision.
                mismatch_HW = warp(result.label_HW == 1, result.prob_KHW[1], 0.5).mismatch_HW
                raw_CHW = _raw(pl_module, batch, position)
                picture = montage(
                    [grey_to_rgb(raw_CHW), overlay(raw_CHW[0], mismatch_HW)],
                    [identity, "merge red, split light blue; holes yellow, green; objects pink, blue"],
                )
                write_png(self._directory / f"{identity}-splits-merges.png", picture)
                show(trainer, f"test/{identity}-splits-merges", picture)

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first images if a tracker takes pictures."""
        assert isinstance(pl_module, SegmentationTask)
        if trainer.sanity_checking or not _shows_pictures(trainer):
            return
        for position, index in enumerate(batch.indices):
            if 0 <= index < self._count:
                self._keep(pl_module, batch, position, outputs["results"][position])

    def _keep(self, task: SegmentationTask, batch: Batch, position: int, results: Mapping[str, ImageResult]) -> None:
        raw_CHW = _raw(task, batch, position)
        for head, result in results.items():
            picture = _picture(raw_CHW, result, task.spec.heads[head], batch.ids[position], _LARGE)
            self._pictures.setdefault(head, {})[batch.indices[position]] = picture

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Send the pictures."""
        self._send(trainer, "val")

    def on_test_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Send the pictures and the table."""
        assert isinstance(pl_module, SegmentationTask)
        split = pl_module.test_split
        self._send(trainer, split)
        if not (trackers := trackers_of(trainer.loggers)):
            return
        # Collective: every rank has counts of its own images.
        indices, scores = image_scores(pl_module)
        ids = trainer.datamodule.require(split).ids  # type: ignore[attr-defined]
        rows = [
            [ids[index], self._small.get(int(index)), *(float(values[place]) for values in scores.values())]
            for place, index in enumerate(indices)
        ]
        for tracker in trackers:
            tracker.table(f"{split}/per_image", ["id", "image", *scores], rows)
        self._small = {}

    def _send(self, trainer: lightning.Trainer, split: str) -> None:
        for head, pictures in self._pictures.items():
            key = f"{split}/{head}/images" if len(self._pictures) > 1 else f"{split}/images"
            for tracker in trackers_of(trainer.loggers):
                tracker.pictures(key, [pictures[index] for index in sorted(pictures)], trainer.global_step)
        self._pictures = {}


_LARGE, _SMALL = 512, 256
"""Longest sides in pixels of what trackers get; larger images are thinned out to it."""
_WRONG = {0: "right", 1: "wrong"}


def _shows_pictures(trainer: lightning.Trainer) -> bool:
    return any(tracker.shows_pictures for tracker in trackers_of(trainer.loggers))


def _picture(raw_CHW: NDArray[np.float32], result: ImageResult, head: HeadSpec, identity: str, side: int) -> Picture:
    every = -(-max(result.label_HW.shape) // side)
    label_HW, pred_HW = (values[::every, ::every].astype(np.uint8) for values in (result.label_HW, result.pred_HW))
    names = dict(enumerate(head.class_names)) | {head.ignore_index: "void"}
    wrong_HW = ((label_HW != pred_HW) & (label_HW != head.ignore_index)).astype(np.uint8)
    return Picture(
        identity,
        grey_to_rgb(raw_CHW[:, ::every, ::every]),
        {"prediction": Mask(pred_HW, names), "label": Mask(label_HW, names), "errors": Mask(wrong_HW, _WRONG)},
        draw=lambda: draw_panel(raw_CHW, result, head, identity),
    )


def image_scores(task: SegmentationTask) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float64]]]:
    """The indices of a test's images, and each one's scores by name, NaN where it has none; the same on every rank.

    They are from the counts of per_image.npz: each image is scored as a data set of one.
    """
    found: dict[str, NDArray[np.float64]] = {}
    indices = np.zeros(0, np.int64)
    for (head, _), state in task.states_of("test").items():
        indices, counts = state.per_image()
        scores = state.measure.scores(counts) if len(indices) else {}
        for info in state.measure.infos():
            values = np.asarray(scores.get(info.name, ()), np.float64)
            if values.size == len(indices) and "iu/" not in info.name:
                name = info.name if len(task.spec.heads) == 1 else f"{head}/{info.name}"
                found[name] = values.reshape(len(indices))
    return indices, found


def _raw(task: SegmentationTask, batch: Batch, position: int) -> NDArray[np.float32]:
    height, width = batch.sizes[position]
    return task.raw({name: image[position, :, :height, :width] for name, image in batch.images.items()})


def _scores_warping(task: SegmentationTask) -> bool:
    return any(isinstance(state.measure, WarpingError) for state in task.states_of("test").values())


class Inspect(lightning.Callback):
    """What the network really sees: the first training tiles after augmentation, with labels and pixel weights.

    Args:
        directory: the run's `inspect/`.
        count: tiles.
    """

    def __init__(self, directory: str | Path, count: int = 8) -> None:
        check("callbacks.inspect.count", count, count >= 0, "a number of samples, 0 for none", 8)
        self._directory, self._count, self._drawn = Path(directory), count, 0

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Draw the batch's tiles until there are enough."""
        assert isinstance(pl_module, SegmentationTask)
        for position in range(len(batch.ids)):
            if self._drawn >= self._count or not trainer.is_global_zero:
                return
            head, spec = next(iter(pl_module.spec.heads.items()))
            picture = draw_sample(
                pl_module.raw({name: image[position] for name, image in batch.images.items()}),
                batch.targets[head][position].cpu().numpy(),
                None if batch.weight is None else batch.weight[position].cpu().numpy(),
                spec,
                batch.ids[position],
            )
            write_png(self._directory / f"{self._drawn:03d}-{batch.ids[position]}.png", picture)
            show(trainer, f"train/sample-{self._drawn:03d}", picture)
            self._drawn += 1
