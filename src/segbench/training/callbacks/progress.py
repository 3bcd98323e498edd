"""A progress bar over the whole run: loss, rate and time left; lines in the log where there is no terminal."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from segbench.runtime.console import Console
from segbench.runtime.files import write_whole
from segbench.training.lightning_internals import step_to_read

log = logging.getLogger(__name__)


class RunProgress(ProgressBar):
    """One bar from the first step to the last, whatever the number of epochs.

    What it shows is also written to `.progress.json` in the run directory, for the launcher of a sweep.

    Args:
        log_every_s: seconds between log lines where standard error is no terminal.
        refresh_every_s: seconds between two drawings of the bar.
        file_every_s: seconds between two writings of the file.
    """

    def __init__(self, log_every_s: float = 15.0, refresh_every_s: float = 0.2, file_every_s: float = 1.0) -> None:
        super().__init__()
        self._log_every, self._refresh_every, self._file_every = log_every_s, refresh_every_s, file_every_s
        self._written = 0.0
        self._enabled = True
        self._bar: Progress | None = None
        self._task: Any = None
        self._started = self._shown = 0.0
        self._first_step = self._total = self._before = 0
        self._loss = math.nan

    def disable(self) -> None:
        """Lightning calls this on ranks other than 0."""
        self._enabled = False

    def enable(self) -> None:
        """Lightning calls this on rank 0."""
        self._enabled = True

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Open the bar."""
        self._loss = math.nan
        self._started = self._shown = time.monotonic()
        self._first_step, self._total = trainer.global_step, int(trainer.estimated_stepping_batches)
        console = Console(stderr=True)
        if self._enabled and console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[loss]}"),
                console=console,
                auto_refresh=False,
            )
            self._task = self._bar.add_task("train", total=self._total, completed=self._first_step, rate="", loss="")
            self._bar.start()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the step."""
        self._before = trainer.global_step

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw, at most every `refresh_every_s` seconds.

        The loss is the batch's on a CPU. On a GPU it is that of the last step that was logged, since reading it waits.
        """
        now = time.monotonic()
        step = trainer.global_step
        loss = _loss(outputs)
        if loss.device.type == "cpu" or step == self._total or step_to_read(trainer, self._before):
            self._loss = float(loss)
        if self._enabled and (now - self._written >= self._file_every or step == self._total):
            self._written = now
            self._write(Path(trainer.default_root_dir), step, now)
        wait = self._refresh_every if self._bar is not None else self._log_every
        if not self._enabled or (now - self._shown < wait and step != self._total):
            return
        self._shown = now
        rate = self._rate(step, now)
        # Not NaN: none is read in the first steps on a GPU.
        shown = "loss not read yet" if math.isnan(self._loss) else f"loss {self._loss:.4f}"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, rate=_rate(rate), loss=shown, refresh=True)
        else:
            left = (self._total - step) / rate if rate else float("inf")
            log.info("step %d of %d, %s, %s, %s left", step, self._total, shown, _rate(rate), _clock(left))

    def _rate(self, step: int, now: float) -> float:
        return (step - self._first_step) / max(now - self._started, 1e-9)

    def _write(self, directory: Path, step: int, now: float) -> None:
        progress = {
            "step": step,
            "total": self._total,
            "loss": self._loss if math.isfinite(self._loss) else None,
            "rate": self._rate(step, now),
        }
        # A full disk is reported where it matters, by the checkpoint.
        with contextlib.suppress(OSError):
            write_whole(directory / ".progress.json", json.dumps(progress))

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Print the validation's scores."""
        if not self._enabled or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        scores = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        names = ("mean_iu", "rand_error", "pixel_error", "v_rand", "v_info", "seg")
        shown = [f"{k} {v:.4f}" for k, v in scores.items() if k.rsplit("/", 1)[-1] in names]
        line = f"step {trainer.global_step}: {', '.join(shown)}"
        if self._bar is not None:
            self._bar.console.print(line, highlight=False)
        log.info(line, extra={"file_only": self._bar is not None})

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar, so that the message stands below it."""
        self._close()


def _loss(outputs: Any) -> Tensor:
    # Lightning's own entry is divided by the batches that a step accumulates.
    return outputs.get("batch_loss", outputs["loss"]) if outputs else torch.tensor(math.nan)


def _rate(per_second: float) -> str:
    return f"{per_second:.2f} steps/s" if per_second >= 1 else f"{1 / max(per_second, 1e-9):.2f} s/step"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(min(seconds, 359_999)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
