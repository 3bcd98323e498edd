"""Images larger than memory: rate and peak memory of `segbench predict` from 2,000 to 20,000 pixels a side.

`python -m speed.large_image SIDE` predicts only one and prints its figures as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from speed.timing import Benches, Row, composed
from speed.unet import peak_bytes

if TYPE_CHECKING:
    from segbench.config.record import Trainer
    from segbench.prediction.loop import Job

_HERE = Path(__file__).resolve().parents[1]
SIDES = (2000, 8000, 20000)
MEMORY_LIMIT = 6 * 2**30
SPREAD = 0.1
"""How far the rates may differ."""

_TILE = 512


def large_image() -> list[Row]:
    """An 8-bit TIFF in tiles to float32 TIFF in tiles, by a U-Net of width 16 on one thread, a process a size."""
    measured = [_measured(side) for side in SIDES]
    rates = [side**2 / figures["seconds"] for side, figures in zip(SIDES, measured, strict=True)]
    rows = []
    for side, figures, rate in zip(SIDES, measured, rates, strict=True):
        gib = figures["peak_bytes"] / 2**30
        constant = max(rates) <= min(rates) * (1 + SPREAD)
        own = side**2 / figures["cpu_seconds"]
        rows.append(
            Row(
                name=f"predict {side} x {side}, U-Net of width 16, 1 thread",
                seconds=figures["seconds"],
                reference=f"at the rate of {SIDES[0]} x {SIDES[0]}",
                reference_seconds=side**2 / rates[0],
                target=f"rates within {SPREAD:.0%} of each other, under {MEMORY_LIMIT / 2**30:.0f} GiB",
                met=constant and figures["peak_bytes"] < MEMORY_LIMIT,
                note=f"{rate / 1e6:.3f} Mpixel/s, {own / 1e6:.3f} a second of processor time; peak {gib:.2f} GiB",
            )
        )
    return rows


def _measured(side: int) -> dict[str, float]:
    command = [sys.executable, "-m", "speed.large_image", str(side)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=_HERE, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _write_image(path: Path, side: int) -> None:
    """Drawn EM, repeated: the content does not affect the time."""
    import tifffile

    from segbench.data.drawn_em.slices import draw_slice

    drawn: NDArray[np.uint8] = draw_slice(0, 0, _TILE, _TILE)[0]

    def tiles() -> Iterator[NDArray[np.uint8]]:
        for _ in range((-(-side // _TILE)) ** 2):
            yield drawn

    tifffile.imwrite(
        path, tiles(), shape=(side, side), dtype=np.uint8, tile=(_TILE, _TILE), photometric="minisblack",
        compression="zlib",
    )  # fmt: skip


def _job(folder: Path) -> tuple[Job, Trainer]:
    from segbench.experiment.build import build_dataset, build_task
    from segbench.prediction.loop import Job
    from segbench.prediction.settings import Settings
    from segbench.runtime.hardware import settle

    network = ("model=unet", "model.width=16", "model.depth=4", "model.norm=none", "model.padding=valid")
    config, _ = settle(composed(*network, "trainer=cpu", "threads=1", "tta=none", "name=bench"))
    task = build_task(config, build_dataset(config.data, config.weights, config.model).spec)
    return Job(task, task.spec, folder, lambda _: Settings(("probabilities",))), config.trainer


def _predict(side: int) -> dict[str, float]:
    from segbench.experiment.evaluating import evaluating
    from segbench.prediction.inputs import find_inputs
    from segbench.prediction.loop import predict_inputs
    from segbench.prediction.progress import Progress

    with tempfile.TemporaryDirectory(prefix="segbench-large-") as name:
        folder = Path(name)
        # The small image first, to set up what is set up once.
        for number, size in enumerate((min(SIDES) // 2, side)):
            _write_image(folder / f"{number}.tif", size)
        job, trainer = _job(folder / "out")
        with evaluating(job.task, trainer):
            for number in range(2):
                inputs = find_inputs(str(folder / f"{number}.tif"), None, job.spec, job.folder)
                start, cpu = time.perf_counter(), time.process_time()
                with Progress(1) as progress:
                    list(predict_inputs(job, inputs, {}, progress, lambda given, paths: None))
                seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        written = (folder / "out" / "1.tif").stat().st_size
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": peak_bytes(), "written": written}


BENCHES: Benches = {"large_image": large_image}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(_predict(int(sys.argv[1]))))
