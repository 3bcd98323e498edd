"""Jobs as processes of this machine: each a session of its own, ended with the launcher however that ends."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from segbench.config.record import Config
from segbench.runtime.processes import end_with_parent
from segbench.sweep.devices import Pool, cores, visible_gpus
from segbench.sweep.job import Job
from segbench.sweep.launching import Ended

_OF_THE_LAUNCHER = (
    *("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_NUM_TASKS"),
    *("WANDB_RUN_ID", "WANDB_SWEEP_ID"),
)
"""Inside an allocation of a cluster a job is no task of it: it starts its own ranks. In W&B it is a run of its own."""


def child_command(directory: Path) -> list[str]:
    """What runs a job, on this machine or a node of a cluster, for the first time or after any interruption."""
    # As in the launcher's own process, a module in the working directory hides none of the library unless -m asked.
    safe = [] if "" in sys.path or os.getcwd() in sys.path else ["-P"]
    return [sys.executable, *safe, "-m", "segbench.train", f"resume={directory.absolute()}"]


def open_console(directory: Path, command: list[str], name: str = "console.log") -> int:
    """A descriptor of the file that takes what a job prints, behind a line that says when it was started."""
    descriptor = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(descriptor, f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(command)}\n".encode())
    return descriptor


@dataclass
class _Process:
    job: Job
    process: subprocess.Popen[bytes]
    gpus: tuple[str, ...]
    started: float


class LocalJobs:
    """Starts, watches and ends jobs on this machine.

    Args:
        working_directory: where they run.
        jobs: how many run at once.
        devices_per_job: GPUs of each; None: as many as its Trainer asks for.
        gpus: that may be used; None: those that are visible.

    Raises:
        SegbenchError: fewer GPUs than asked for.
    """

    def __init__(
        self,
        working_directory: Path,
        jobs: int,
        devices_per_job: int | None = None,
        gpus: tuple[str, ...] | None = None,
    ) -> None:
        self._working_directory, self._limit = working_directory, jobs
        self._pool = Pool(visible_gpus() if gpus is None else gpus, cores(), jobs, devices_per_job)
        self._running: dict[str, _Process] = {}

    def check(self, name: str, config: Config) -> None:
        """Refuse a job that cannot run here.

        Args:
            name: of the job.
            config: its configuration.

        Raises:
            SegbenchError: it wants more than there is.
        """
        self._pool.check(config.trainer, name)

    def room(self) -> bool:
        """Whether a further job may run beside those that do."""
        return len(self._running) < self._limit

    def start(self, job: Job) -> bool:
        """Start a job; False where the GPUs that it wants are not free now."""
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
                env=inherited | self._pool.environment(trainer, gpus) | job.environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                # Ctrl-C in the terminal reaches the launcher alone, which then ends each job in its own time.
                start_new_session=True,
                # The kernel keeps it over exec. The launcher has one thread, so nothing is locked after the fork.
                preexec_fn=functools.partial(end_with_parent, os.getpid()),
            )
        finally:
            os.close(console)
        job.slurm = job.on_cluster = None
        self._running[job.name] = _Process(job, process, gpus, time.monotonic())
        return True

    def ended(self) -> list[Ended]:
        """The jobs whose process has ended since the last call; nothing of theirs is left running."""
        done = []
        for name, running in list(self._running.items()):
            if (code := running.process.poll()) is None:
                continue
            # What it started and left: the group keeps its number as long as one of them lives.
            _kill_group(running.process.pid)
            running.job.seconds += time.monotonic() - running.started
            self._pool.give_back(running.gpus)
            del self._running[name]
            done.append(Ended(running.job, code))
        return done

    def end(self, job: Job) -> None:
        """Ask a running job to write its checkpoint and end."""
        # Its own process alone: a data worker that ended at once would spoil the checkpoint.
        self._running[job.name].process.send_signal(signal.SIGTERM)

    def kill(self, job: Job) -> None:
        """End a running job at once, with all that it started."""
        _kill_group(self._running[job.name].process.pid)

    def running(self) -> list[Job]:
        """The jobs whose process has not ended."""
        return [running.job for running in self._running.values()]


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass
