"""A sweep of thousands of jobs on disk: what its table, its comparison and its report cost."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from segbench.config.record import Config
from segbench.runs.directory import Run
from segbench.runs.history import Leg
from segbench.sweep.directory import Sweep
from segbench.sweep.job import Job, digest_of
from speed.timing import Benches, Row, composed

SIZES = (1000, 10_000)
SEEDS = 4
COMMANDS = {"sweep status": 15.0, "compare": 15.0, "report": 60.0}
"""Commands and the most seconds each may take over ten thousand jobs."""


def made_sweep(folder: Path, jobs: int) -> Path:
    """A finished sweep of a rate and four seeds, without checkpoints and pictures.

    Args:
        folder: it is made in.
        jobs: how many.

    Returns:
        its directory.
    """
    config = composed("name=drawn")
    sweep = Sweep(folder / "sweep", folder, {"jobs": 2})
    sweep.path.mkdir()
    for number in range(jobs):
        values = {"seed": number % SEEDS, "optimizer.lr": (1 + number // SEEDS) * 1e-6}
        overrides = [f"{key}={value}" for key, value in values.items()]
        _finished(sweep.path / str(number), config.replace(values), overrides, number / jobs)
        sweep.jobs.append(Job(sweep.path, str(number), digest_of(values), overrides, seconds=60.0))
    sweep.save()
    return sweep.path


def _finished(directory: Path, config: Config, overrides: list[str], score: float) -> None:
    with Run.create(directory, config, overrides) as run:
        run.set_state("finished")
        run.add_leg(Leg(0, provenance={"command": "segbench train", "git": None, "versions": {}}))
        scores = {"test/mean_iu": score, "test/pixel_acc": score, "val/mean_iu": score}
        run.write_results(scores, {"fit_s": 60.0, "steps": 300.0}, {"git": None}, {"dataset": "drawn"})
    (directory / "metrics.csv").write_text("step,val/mean_iu\n299," + f"{score}\n")


def large_sweep(sizes: tuple[int, int] = SIZES) -> Iterator[Row]:
    """Status, comparison and report of a thousand and of ten thousand jobs: seconds, memory, and growth in line."""
    seconds: dict[tuple[str, int], float] = {}
    for jobs in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = made_sweep(Path(folder), jobs)
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            for command, most in COMMANDS.items():
                taken, memory, printed = _measured(command, path)
                seconds[command, jobs] = taken
                few = seconds[command, sizes[0]]
                grown = taken / few <= 1.2 * jobs / sizes[0]
                limit = most * jobs / SIZES[1] if jobs != sizes[0] else most
                yield Row(
                    f"segbench {command}, {jobs} jobs",
                    taken,
                    "",
                    None,
                    f"at most {limit:g} s, no worse than linear",
                    taken <= limit and grown,
                    f"peak {memory / 1e6:.0f} MB, prints {printed / 1e6:.2f} MB, reads {size / 1e6:.0f} MB of runs",
                )


def _measured(command: str, path: Path) -> tuple[float, float, int]:
    """Seconds, peak memory in bytes, and bytes that are printed or written."""
    output = path.parent / "output"
    words = [sys.executable, "-P", "-m", "segbench", *command.split(), str(path)]
    words += [f"output={path.parent / 'report.html'}"] if command == "report" else []
    began = time.perf_counter()
    with output.open("w") as file:
        started = subprocess.Popen(words, stdout=file)
        _, status, usage = os.wait4(started.pid, 0)
    taken = time.perf_counter() - began
    started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode:
        raise subprocess.CalledProcessError(started.returncode, words)
    written = path.parent / "report.html" if command == "report" else output
    return taken, 1024 * usage.ru_maxrss, written.stat().st_size


BENCHES: Benches = {"large_sweep": large_sweep}
