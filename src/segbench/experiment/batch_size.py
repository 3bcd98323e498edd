"""`data.batch_size=auto`: the largest batch whose training step fits the device's memory, found by trying."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

import torch

from segbench.config.record import Config
from segbench.data.raw import DataSet
from segbench.errors import SegbenchError
from segbench.experiment.axes import make_optimizer
from segbench.experiment.build import build_task
from segbench.experiment.checks import draws_of
from segbench.training.precision import computing_in, precision_named
from segbench.training.task import SegmentationTask, centre_crop

LARGEST = 64
"""The most images of a batch; beyond it a GPU gains little, and an epoch has few steps."""
ON_A_CPU = 4
"""Images of a batch on a CPU, which a larger one makes no faster: enough for statistics of a batch norm."""
_FILLED = 0.9
"""The share of a GPU's memory that a step may take: buckets of gradients and cuDNN's choices need some too."""


def settle_batch_size(config: Config, dataset: DataSet) -> tuple[dict[str, Any], list[str]]:
    """The batch size that `auto` means here, as changes of the configuration, and a sentence for the log.

    Args:
        config: of the run, everything else of it settled.
        dataset: whose training split has at least one batch for each process.

    Raises:
        SegbenchError: the training images have many sizes.
        torch.OutOfMemoryError: not even one image fits.
    """
    if config.data.batch_size != "auto":
        return {}, []
    if not isinstance(config.data.tile, int):
        raise SegbenchError(
            "data.batch_size=auto without data.tile",
            "tiles of one size, of which one step tells what fits",
            "set data.tile=N or data.tile=auto, or give data.batch_size=N",
        )
    source = dataset.split("train")
    images = 0 if source is None else draws_of(config, dataset, source) // config.trainer.processes
    bound = max(1, min(LARGEST, images))
    if config.trainer.on_gpu:
        size = largest(_Trial(config, dataset), bound)
        why = f"the largest power of two up to {bound} whose step fits the GPU's memory"
    else:
        size, why = min(ON_A_CPU, bound), "on a CPU"
    return {"data.batch_size": size}, [f"data.batch_size: {size} ({why}; optimizer.lr stays as it is)"]


def largest(step: Callable[[int], bool], bound: int) -> int:
    """The largest power of two up to `bound` whose step fits.

    Args:
        step: tries a batch of so many images, and says whether there is memory to spare.
        bound: at least 1.

    Raises:
        torch.OutOfMemoryError: a batch of one image does not fit.
    """
    size = 1
    step(size)
    while 2 * size <= bound:
        try:
            if not step(2 * size):
                break
        except torch.OutOfMemoryError:
            break
        size *= 2
    return size


class _Trial:
    """Training steps on images of zeros, whose memory is released after each."""

    def __init__(self, config: Config, dataset: DataSet) -> None:
        devices = config.trainer.devices
        number = int(os.environ.get("LOCAL_RANK", devices[0] if isinstance(devices, list) else 0))
        self._device = torch.device("cuda", number % max(1, torch.cuda.device_count()))
        self._config, self._spec = config, dataset.spec

    def __call__(self, size: int) -> bool:
        """Whether a step of `size` images leaves memory to spare."""
        torch.cuda.reset_peak_memory_stats(self._device)
        try:
            train_step(
                build_task(self._config.replace({"data.batch_size": size}), self._spec),
                self._config,
                size,
                self._device,
            )
            taken = torch.cuda.max_memory_reserved(self._device)
        finally:
            gc.collect()
            torch.cuda.empty_cache()
        return taken <= _FILLED * torch.cuda.get_device_properties(self._device).total_memory


def train_step(task: SegmentationTask, config: Config, size: int, device: torch.device) -> None:
    """One step of the optimiser, with the state that it keeps, on a batch of zeros.

    Args:
        task: on any device.
        config: whose tile and precision are taken.
        size: images of the batch.
        device: to compute on.
    """
    precision, tile = precision_named(config.trainer.precision, device.type), int(config.data.tile or 0)
    task.to(device).train()
    optimizer = make_optimizer(config.optimizer, task.model)
    with computing_in(precision, task.model, device.type):
        images = {
            name: torch.zeros(size, modality.channels, tile, tile, device=device, dtype=precision.weights)
            for name, modality in task.spec.modalities.items()
        }
        logits = task(images)
        losses = []
        for head in task.spec.heads:
            shape = (size, tile, tile)
            target = centre_crop(torch.zeros(shape, dtype=torch.long, device=device), logits[head])
            weight = torch.ones(target.shape, device=device) if config.loss_of(head).weight_map else None
            losses.append(task.losses[head](logits[head], target, weight))
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
