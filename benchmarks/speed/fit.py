"""Cost of the framework: `fit` beside a bare PyTorch loop over the same batches."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import lightning
import torch

from segbench.config.record import Config
from segbench.spec import Batch
from segbench.training.task import SegmentationTask, centre_crop
from speed.timing import Benches, Row, composed

STEPS, PAIRS = 30, 9


class _Clock(lightning.Callback):
    """Times the steps after the first, which compiles and allocates."""

    def __init__(self) -> None:
        self.start = self.stop = 0.0

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.stop = time.perf_counter()
        if trainer.global_step == 1:
            self.start = self.stop


def _config() -> Config:
    from segbench.runtime.hardware import settle

    # Checkpoints, validation and pictures are work that the bare loop does not do.
    config = composed(
        *("name=bench", "data.repeats=20", "callbacks.checkpoint=null", "callbacks.panels=null"),
        *("trainer.val_check_interval=1.0", "trainer.check_val_every_n_epoch=1000"),
        f"trainer.max_steps={STEPS + 1}",
    )
    return settle(config)[0]


def _fit(config: Config) -> float:
    from segbench.experiment.build import build_data, build_dataset, build_task
    from segbench.experiment.trainer import build_callbacks, build_trainer
    from segbench.inference.forward import geometry_of

    with tempfile.TemporaryDirectory() as folder:
        dataset = build_dataset(config.data, config.weights, config.model)
        task = build_task(config, dataset.spec)
        data = build_data(config, dataset, geometry_of(task.model))
        clock = _Clock()
        callbacks = [*build_callbacks(config.callbacks, Path(folder), task), clock]
        trainer = build_trainer(config, Path(folder), callbacks, [])
        trainer.fit(task, data)
    return (clock.stop - clock.start) / STEPS


def _bare(config: Config) -> float:
    from segbench.experiment.axes import make, make_optimizer
    from segbench.experiment.build import build_data, build_dataset, build_task
    from segbench.inference.forward import geometry_of

    dataset = build_dataset(config.data, config.weights, config.model)
    task: SegmentationTask = build_task(config, dataset.spec)
    data = build_data(config, dataset, geometry_of(task.model))
    model, criterion = task.model.train(), task.losses["semantic"]
    optimizer = make_optimizer(config.optimizer, model)
    schedule = make(config.scheduler, optimizer=optimizer, total_steps=STEPS + 1)
    start = 0.0
    batch: Batch
    for step, batch in enumerate(map(data.normalised, data.train_dataloader())):
        if step > STEPS:
            break
        image = batch.images["em"].contiguous(memory_format=task.memory_format)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.trainer.precision == "bf16-mixed"):
            logits_BKHW = model(image)
            loss = criterion(logits_BKHW, centre_crop(batch.targets["semantic"], logits_BKHW))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step == 0:
            start = time.perf_counter()
    return (time.perf_counter() - start) / STEPS


def fit_overhead() -> list[Row]:
    """A step of `fit` on the quickstart, beside a bare loop with the same loader, network, loss and optimiser."""
    import logging
    import warnings

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    config = _config()
    ours, bare = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(PAIRS):
            bare.append(_bare(config))
            ours.append(_fit(config))
    # Two runs of one loop differ by more than three percent, so this is the median over pairs.
    ratios = sorted(reference / own for reference, own in zip(bare, ours, strict=True))
    median = ratios[PAIRS // 2]
    note = f"median of {PAIRS} pairs {median:.3f}, from {ratios[0]:.3f} to {ratios[-1]:.3f}; times are medians"
    times = sorted(ours)[PAIRS // 2], sorted(bare)[PAIRS // 2]
    return [Row("a step of fit, quickstart", times[0], "bare loop", times[1], ">= 0.97", median >= 0.97, note)]


BENCHES: Benches = {"fit_overhead": fit_overhead}
