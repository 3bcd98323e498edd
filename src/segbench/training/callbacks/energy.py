"""Joules of a training, where the machine's meters can be read."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning

from segbench.config.handed_over import read_json
from segbench.runs.directory import Metered
from segbench.runtime.files import write_whole

POWERCAP = Path("/sys/class/powercap")
FILE = "energy.json"
_EVERY_S = 10.0
"""Counters of processors wrap after minutes at full load, so they are read more often than that."""

Meter = Callable[[], tuple[float, float | None]]
"""Joules since an arbitrary start, and the value at which the counter wraps (None: never)."""


def meters(powercap: Path = POWERCAP) -> list[Meter]:
    """Counters of the processors' packages (RAPL) and of the GPUs (NVML, where pynvml is installed).

    Args:
        powercap: the kernel's folder; its files are often readable by root alone.
    """
    found: list[Meter] = []
    # Packages are intel-rapl:N; they include their parts, intel-rapl:N:M.
    for folder in sorted(powercap.glob("intel-rapl:*")):
        if folder.name.count(":") == 1 and os.access(folder / "energy_uj", os.R_OK):
            found.append(_package(folder))
    return found + _gpus()


def _package(folder: Path) -> Meter:
    limit = folder / "max_energy_range_uj"
    wraps = int(limit.read_text()) / 1e6 if limit.is_file() else None
    return lambda: (int((folder / "energy_uj").read_text()) / 1e6, wraps)


def _gpus() -> list[Meter]:
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        devices = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        for device in devices:
            pynvml.nvmlDeviceGetTotalEnergyConsumption(device)
    except pynvml.NVMLError:
        # No driver, or a GPU without a counter.
        return []
    return [_gpu(pynvml.nvmlDeviceGetTotalEnergyConsumption, device) for device in devices]


def _gpu(millijoules: Callable[[Any], int], device: Any) -> Meter:
    return lambda: (millijoules(device) / 1e3, None)


class Energy(lightning.Callback):
    """Add up the energy of a training into `energy.json`: `{"joules", "meters"}`; a resume adds to what is there.

    The meters are the machine's, so other jobs on it count too; where none can be read, no file is written.

    Args:
        directory: the run's.
        powercap: the kernel's folder of counters.
    """

    def __init__(self, directory: str | Path, powercap: str | Path = POWERCAP) -> None:
        self._path, self._powercap = Path(directory) / FILE, Path(powercap)
        self._meters: list[Meter] = []
        self._before: list[float] = []
        self._joules, self._read_at = 0.0, 0.0

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Read the meters for the first time."""
        self._meters = meters(self._powercap) if trainer.is_global_zero else []
        self._before = [meter()[0] for meter in self._meters]
        self._read_at = time.monotonic()
        if self._meters and self._path.is_file():
            read: Metered = read_json(self._path, Metered)
            self._joules = read.joules

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read them every few seconds."""
        if self._meters and time.monotonic() - self._read_at >= _EVERY_S:
            self._add()

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Read them for the last time."""
        if self._meters:
            self._add()

    def _add(self) -> None:
        for number, meter in enumerate(self._meters):
            now, wraps = meter()
            spent = now - self._before[number]
            self._joules += spent if spent >= 0 or wraps is None else spent + wraps
            self._before[number] = now
        self._read_at = time.monotonic()
        write_whole(self._path, json.dumps({"joules": self._joules, "meters": len(self._meters)}))
