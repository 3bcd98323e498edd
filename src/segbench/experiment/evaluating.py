"""A network on its device, computing as a run does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from segbench.config.record import Trainer
    from segbench.training.task import SegmentationTask


def devices_of(trainer: Trainer) -> tuple[torch.device, ...]:
    """What `trainer.devices` names: GPUs by number, or the first so many; the CPU is one device."""
    import torch

    if not trainer.on_gpu:
        return (torch.device("cpu"),)
    numbers = trainer.devices if isinstance(trainer.devices, list) else range(trainer.processes_here)
    return tuple(torch.device("cuda", number) for number in numbers)


@contextlib.contextmanager
def evaluating(task: SegmentationTask, trainer: Trainer, device: torch.device | None = None) -> Iterator[torch.device]:
    """The network on a device, None for the first, in eval mode, under the run's precision and thread count.

    Raises:
        SegbenchError: an unknown precision.
    """
    import torch

    from segbench.runtime.threads import use_threads
    from segbench.training.precision import algorithms, computing_in, precision_named, round_to_tf32

    device = devices_of(trainer)[0] if device is None else device
    precision = precision_named(trainer.precision, device.type)
    use_threads(task.evaluation.threads)
    round_to_tf32(trainer.allow_tf32)
    algorithms(trainer.deterministic, trainer.benchmark)
    task.to(device).eval()
    with torch.no_grad(), computing_in(precision, task.model, device.type):
        yield device
