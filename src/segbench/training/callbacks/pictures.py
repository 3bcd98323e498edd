"""Pictures of what the network sees and predicts, as PNG in the run directory and in W&B and TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import numpy as np
from numpy.typing import NDArray

from segbench.display.panels import draw_panel, draw_sample, grey_to_rgb, montage, write_png
from segbench.metrics import ImageResult, WarpingError, overlay, warp
from segbench.spec import Batch
from segbench.training.task import SegmentationTask


def show(trainer: lightning.Trainer, key: str, image_HWC: NDArray[np.uint8]) -> None:
    """Send a picture to every logger that takes pictures.

    Args:
        trainer: whose loggers.
        key: the picture's name, `<split>/<what>`.
        image_HWC: uint8 RGB.
    """
    from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [image_HWC], step=trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, image_HWC, trainer.global_step, dataformats="HWC")


def _takes_pictures(trainer: lightning.Trainer) -> bool:
    from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

    return any(isinstance(logger, (TensorBoardLogger, WandbLogger)) for logger in trainer.loggers)


class Panels(lightning.Callback):
    """Image, label, prediction and error map side by side: a test's first images, each validation's first one.

    Args:
        directory: the run's `panels/`.
        count: images at test.
    """

    def __init__(self, directory: str | Path, count: int = 4) -> None:
        self._directory, self._count = Path(directory), count

    def _draw(self, task: SegmentationTask, batch: Batch, position: int, result: ImageResult) -> NDArray[np.uint8]:
        head = next(iter(task.spec.heads.values()))
        return draw_panel(_raw(task, batch, position), result, head, batch.ids[position])

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
        for position, index in enumerate(batch.indices):
            if 0 <= index < self._count:
                result = next(iter(outputs["results"][position].values()))
                pictures = {batch.ids[position]: self._draw(pl_module, batch, position, result)}
                if _scores_warping(pl_module) and result.prob_KHW is not None:
                    # The challenge's picture of splits and merges, at the threshold of a plain decision.
                    mismatch_HW = warp(result.label_HW == 1, result.prob_KHW[1], 0.5).mismatch_HW
                    raw_CHW = _raw(pl_module, batch, position)
                    pictures[f"{batch.ids[position]}-splits-merges"] = montage(
                        [grey_to_rgb(raw_CHW), overlay(raw_CHW[0], mismatch_HW)],
                        [batch.ids[position], "merge red, split light blue; holes yellow, green; objects pink, blue"],
                    )
                for name, picture in pictures.items():
                    write_png(self._directory / f"{name}.png", picture)
                    show(trainer, f"test/{name}", picture)

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the first image if a logger takes pictures."""
        assert isinstance(pl_module, SegmentationTask)
        if 0 in batch.indices and not trainer.sanity_checking and _takes_pictures(trainer):
            position = batch.indices.index(0)
            result = next(iter(outputs["results"][position].values()))
            show(trainer, f"val/{batch.ids[position]}", self._draw(pl_module, batch, position, result))


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
