"""Jobs as processes on this machine: each in a separate session, killed when the launcher dies."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from segbench.config.record import Config
from segbench.config.trust import VARIABLE, added_targets
from segbench.runtime.files import open_itself
from segbench.runtime.processes import end_with_parent
from segbench.runtime.threads import allowed_cores
from segbench.sweep.devices import Pool, visible_gpus
from segbench.sweep.job import Job
from segbench.sweep.launching import Ended

_OF_THE_LAUNCHER = (
    *("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_NUM_TASKS"),
    *("WANDB_RUN_ID", "WANDB_SWEEP_ID"),
)
"""Not passed on: inside a cluster's allocation a job still starts its own ranks, and W&B gets a run for each job."""


def child_command(directory: Path) -> list[str]:
    """The command that starts or continues a job, on this machine or a cluster's node."""
    # As in the launcher: modules in the working directory do not shadow the library unless -m was used.
    safe = [] if "" in sys.path or os.getcwd() in sys.path else ["-P"]
    return [sys.executable, *safe, "-m", "segbench.train", f"resume={directory.absolute()}"]


def inherited_trust() -> dict[str, str]:
    """The variable by which a job trusts what its launcher trusts, and nothing else."""
    return {VARIABLE: ",".join(sorted(added_targets()))}


def open_console(directory: Path, command: list[str], name: str = "console.log") -> IO[bytes]:
    """Open the file for a job's output, unbuffered, and write the start time and the command to it."""
    console = open_itself(directory / name, "ab")
    console.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(command)}\n".encode())
    console.flush()
    return console


@dataclass
class _Process:
    job: Job
    process: subprocess.Popen[bytes]
    gpus: tuple[str, ...]
    started: float


class LocalJobs:
    """Starts, watches and ends jobs on this machine.

    Args:
        working_directory: of the jobs.
        jobs: how many run at once.
        devices_per_job: GPUs for each; None: as many as its Trainer asks for.
        gpus: those to use; None: all visible ones.

    Raises:
        SegbenchError: there are fewer GPUs than asked for.
    """

    def __init__(
        self,
        working_directory: Path,
        jobs: int,
        devices_per_job: int | None = None,
        gpus: tuple[str, ...] | None = None,
    ) -> None:
        self._working_directory, self._limit = working_directory, jobs
        self._pool = Pool(visible_gpus() if gpus is None else gpus, len(allowed_cores()), jobs, devices_per_job)
        self._running: dict[str, _Process] = {}

    def check(self, name: str, config: Config) -> None:
        """Refuse a job that cannot run here.

        Args:
            name: the job's.
            config: the job's.

        Raises:
            SegbenchError: it wants devices or machines that are not here.
        """
        self._pool.check(config.trainer, name)

    def room(self) -> bool:
        """Whether another job may start now."""
        return len(self._running) < self._limit

    def start(self, job: Job) -> bool:
        """Start a job; False if its GPUs are not free yet."""
        trainer = job.run.config().trainer
        gpus = self._pool.take(trainer)
        if gpus is None:
            return False
        inherited = {key: value for key, value in os.environ.items() if key not in _OF_THE_LAUNCHER}
        command = child_command(job.directory)
        console = open_console(job.directory, command)
        try:
            process = subprocess.Popen(
                command,
                cwd=self._working_directory,
                env=inherited | self._pool.environment(trainer, gpus) | job.environment | inherited_trust(),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                # Ctrl-C in the terminal reaches only the launcher, which then ends the jobs.
                start_new_session=True,
                # It survives exec. The launcher has one thread, so no lock is held after the fork.
                preexec_fn=functools.partial(end_with_parent, os.getpid()),
            )
        finally:
            console.close()
        job.slurm = job.on_cluster = None
        self._running[job.name] = _Process(job, process, gpus, time.monotonic())
        return True

    def ended(self) -> list[Ended]:
        """The jobs that have ended since the last call; processes they left behind are killed."""
        done = []
        for name, running in list(self._running.items()):
            if (code := running.process.poll()) is None:
                continue
            # The group keeps its id as long as one of its processes lives.
            _kill_group(running.process.pid)
            running.job.seconds += time.monotonic() - running.started
            self._pool.give_back(running.gpus)
            del self._running[name]
            done.append(Ended(running.job, code))
        return done

    def end(self, job: Job) -> None:
        """Ask a running job to write its checkpoint and end."""
        # Only the main process: ending a data worker now would spoil the checkpoint.
        self._running[job.name].process.send_signal(signal.SIGTERM)

    def kill(self, job: Job) -> None:
        """Kill a running job and all its processes."""
        _kill_group(self._running[job.name].process.pid)

    def running(self) -> list[Job]:
        """The jobs whose process has not ended."""
        return [running.job for running in self._running.values()]


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass
