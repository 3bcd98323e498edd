"""Cost of the sweep launcher per job, and the gain of two jobs at once on two cores."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from segbench.runtime.threads import allowed_cores
from speed.timing import Benches, Row

JOBS = 10
TINY = (
    *("trainer=cpu", "trainer.precision=32-true", "trainer.max_steps=60", "trainer.val_check_interval=30"),
    *("model.width=8", "data.train=8", "data.val=2", "data.test=4", "callbacks.panels=null", "name=bench"),
)


def _run(*arguments: str) -> float:
    started = time.perf_counter()
    command = [sys.executable, "-P", "-m", "segbench.train", *arguments]
    # One thread per job, so that two jobs share two cores.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.perf_counter() - started


def launching() -> list[Row]:
    """Ten small runs by hand, by the launcher one after the other, and by the launcher two at a time."""
    with tempfile.TemporaryDirectory() as folder:
        seeds = "seed=" + ",".join(map(str, range(JOBS)))
        # Fills numba's cache, so that no measured run compiles.
        _run(*TINY, f"hydra.run.dir={Path(folder) / 'first'}")
        by_hand = sum(
            _run(*TINY, f"seed={seed}", f"hydra.run.dir={Path(folder) / 'hand' / str(seed)}") for seed in range(JOBS)
        )
        in_a_row = _run("-m", *TINY, seeds, f"hydra.sweep.dir={Path(folder) / 'row'}")
        at_once = _run("-m", *TINY, seeds, f"hydra.sweep.dir={Path(folder) / 'two'}", "hydra.launcher.jobs=2")
    more, share = (in_a_row - by_hand) / JOBS, at_once / in_a_row
    each = f"{more:+.2f} s a job"
    return [
        Row("a job of a sweep", in_a_row / JOBS, "by hand", by_hand / JOBS, "at most 0.5 s more", more <= 0.5, each),
        Row(
            f"{JOBS} jobs two at a time, one thread each",
            at_once,
            "in a row",
            in_a_row,
            "at most 0.6 of the time on two cores",
            share <= 0.6,
            f"{share:.2f} of the time, {len(allowed_cores())} cores",
        ),
    ]


BENCHES: Benches = {"large_launcher": launching}
