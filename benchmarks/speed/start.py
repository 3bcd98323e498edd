"""The start of a job and of the other commands: seconds, and seconds of processor, from the shell."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from speed.timing import Benches, Row

REPEATS = 3
COMMANDS = {
    "train trainer.max_steps=1": 6.0,
    "train --cfg job": 1.0,
    "list": 0.5,
    "--help": 0.4,
}
"""Commands and the most seconds each may take on two quiet cores with warm caches."""


def job_start() -> Iterator[Row]:
    """The best of some runs of each command."""
    with tempfile.TemporaryDirectory() as folder:
        for command, most in COMMANDS.items():
            wall, processor = float("inf"), float("inf")
            for _ in range(1 + REPEATS):
                began, used = time.perf_counter(), _used()
                words = [sys.executable, "-P", "-m", "segbench", *command.split()]
                environment = os.environ | {"SEGBENCH_OUTPUTS": folder}
                subprocess.run(words, check=True, capture_output=True, env=environment)
                wall = min(wall, time.perf_counter() - began)
                processor = min(processor, _used() - used)
            note = f"{processor:.2f} s of processor"
            yield Row(f"segbench {command}", wall, "", None, f"at most {most} s", wall <= most, note)


def _used() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


BENCHES: Benches = {"job_start": job_start}
