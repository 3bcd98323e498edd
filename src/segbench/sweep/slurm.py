"""Jobs on a Slurm cluster, submitted through submitit. The nodes run the same command as this machine would.

One task is one process of the run (`trainer.devices` on each of `trainer.num_nodes`). Before the time limit, and before
a preemption if the cluster is configured for it, Slurm sends SIGUSR1: the run writes its checkpoint and exits, its job
is requeued, and the same command continues the run.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.config.record import Config
from segbench.errors import SegbenchError, not_installed
from segbench.runtime.processes import end_with_parent
from segbench.runtime.workers import MOST_WORKERS
from segbench.sweep.job import Job, counted
from segbench.sweep.launching import Ended
from segbench.sweep.local import child_command, inherited_trust, open_console

if TYPE_CHECKING:
    from submitit import AutoExecutor
    from submitit.helpers import DelayedSubmission

LOOK_EVERY_S = 5.0
"""Polling more often loads a busy cluster."""
_AGAIN = "SUBMITIT_PREEMPT_SIGNAL"
_KEPT = (_AGAIN, "SLURM_CONF")
_CUT_OFF = (128 + signal.SIGTERM, -signal.SIGTERM, -signal.SIGUSR1)


@dataclass(frozen=True)
class SlurmOptions:
    """Settings of the cluster; conf/hydra/launcher/processes.yaml documents each."""

    partition: str | None = None
    time_min: int = 60
    nodes: int | None = None
    gpus_per_node: int | None = None
    cpus_per_task: int | None = None
    mem_gb: float | None = None
    signal_before_s: int = 120
    timeouts: int = 100
    wait: bool = False
    setup: Sequence[str] = ()
    sbatch: Mapping[str, Any] | None = None

    @classmethod
    def read(cls, given: Mapping[str, Any] | None) -> SlurmOptions:
        """Read them from a config or sweep.yaml.

        Raises:
            SegbenchError: an unknown key, or a value out of its range.
        """
        known, given = [entry.name for entry in fields(cls)], given or {}
        for key, value in given.items():
            if key not in known:
                raise _wrong(key, value, f"one of {', '.join(known)}")
        options = cls(**given)
        least = {"time_min": 1, "signal_before_s": 1, "timeouts": 0, "nodes": 1, "gpus_per_node": 0, "cpus_per_task": 1}
        for key, smallest in least.items():
            value = getattr(options, key)
            may_be_none = key in ("nodes", "gpus_per_node", "cpus_per_task")
            if value is None and may_be_none:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
                raise _wrong(key, value, f"a whole number, at least {smallest}")
        if not isinstance(options.wait, bool):
            raise _wrong("wait", options.wait, "true or false")
        if options.signal_before_s >= 60 * options.time_min:
            raise _wrong("signal_before_s", options.signal_before_s, f"less than time_min={options.time_min} minutes")
        return options


def _wrong(key: str, value: Any, expected: str) -> SegbenchError:
    return SegbenchError(f"hydra.launcher.slurm.{key}={value}", expected, f"correct hydra.launcher.slurm.{key}=")


class NodeTask:
    """One task of a Slurm job: runs the job's command and forwards requests to end.

    Args:
        command: the job's, as on the launcher's machine.
        directory: the run's, absolute.
        working_directory: base of relative paths in the configuration.
        environment: variables added to the cluster's.
        grace_s: seconds that a checkpoint may take.
    """

    def __init__(
        self, command: list[str], directory: str, working_directory: str, environment: dict[str, str], grace_s: float
    ) -> None:
        self._given = (command, directory, working_directory, environment, grace_s)
        self._child: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Run the job's command to its end.

        Raises:
            SystemExit: with the command's exit code, if it is not 0.
        """
        command, directory, working_directory, environment, grace_s = self._given
        rank = int(os.environ.get("SLURM_PROCID", "0"))
        console = open_console(Path(directory), command, "console.log" if rank == 0 else f"console.{rank}.log")
        threads = os.environ.get("SLURM_CPUS_PER_TASK")
        given = {"OMP_NUM_THREADS": threads} if threads and "OMP_NUM_THREADS" not in os.environ else {}
        self._child = subprocess.Popen(
            command,
            cwd=working_directory,
            env=os.environ | given | environment,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            # In the process group of this task, so that it gets every signal from Slurm.
            preexec_fn=functools.partial(end_with_parent, os.getpid()),
        )
        console.close()
        # Not `wait`: `checkpoint` could deadlock on its lock.
        while (code := self._child.poll()) is None:
            time.sleep(0.1)
        if code in _CUT_OFF and rank > 0:
            # The first task requeues the job; a task that fails before that would end it.
            time.sleep(grace_s)
        if code != 0:
            raise SystemExit(code if code > 0 else 128 - code)

    def checkpoint(self) -> DelayedSubmission:
        """Make the run write its checkpoint and exit; submitit calls this on SIGUSR1, then requeues the job."""
        from submitit.helpers import DelayedSubmission

        child, until = self._child, time.monotonic() + self._given[-1]
        if child is not None and not _has_ended(child):
            child.send_signal(signal.SIGTERM)
            while not _has_ended(child):
                if time.monotonic() > until:
                    child.kill()
                    break
                time.sleep(0.1)
        return DelayedSubmission(NodeTask(*self._given))


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    # A signal handler may interrupt `poll`, and would then wait for its lock.
    if child.returncode is not None:
        return True
    try:
        return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


class SlurmJobs:
    """Submits, watches and ends jobs on a cluster.

    Args:
        sweep: the sweep's directory, visible to all nodes.
        working_directory: base of relative paths in the configurations.
        options: the cluster's.
        jobs: how many run at once; None: no limit.
        devices_per_job: GPUs for each job on each node; None: as many as its Trainer asks for.

    Raises:
        SegbenchError: submitit is not installed, or there is no Slurm here.
    """

    def __init__(
        self,
        sweep: Path,
        working_directory: Path,
        options: SlurmOptions,
        jobs: int | None = None,
        devices_per_job: int | None = None,
    ) -> None:
        # submitit reads it at import, here and on the nodes: the signal that means preemption.
        os.environ[_AGAIN] = "USR1"
        try:
            import submitit  # noqa: F401
        except ImportError as error:
            raise not_installed("submitit", "slurm") from error
        if shutil.which("sbatch") is None or shutil.which("srun") is None:
            raise SegbenchError(
                "hydra.launcher.cluster=slurm on a machine without sbatch and srun",
                "a login node of a Slurm cluster",
                "launch it there, or leave out hydra.launcher.cluster=",
            )
        self._sweep, self._working_directory = sweep.absolute(), working_directory
        self._options, self._limit, self._devices_per_job = options, jobs, devices_per_job
        self._running: dict[str, tuple[Job, float]] = {}
        self._looked = 0.0

    def check(self, name: str, config: Config) -> None:
        """Refuse a job that cannot be submitted.

        Raises:
            SegbenchError: it wants specific devices.
        """
        devices = config.trainer.devices
        if not isinstance(devices, int) or devices < 1:
            raise SegbenchError(
                f"job {name}: trainer.devices={devices} on a cluster",
                "a number of processes on each node",
                "set trainer.devices=N",
            )

    def submit(self, jobs: Sequence[Job]) -> None:
        """Submit jobs, those of one size as an array.

        Raises:
            SegbenchError: Slurm refuses them.
        """
        for job in jobs:
            if job.run.state() == "failed":
                # Retried; from here on the queue gives its state.
                job.run.set_state("interrupted")
        configs = {job.name: job.run.config() for job in jobs}
        for size, names in self._by_size(configs):
            self._submit([job for job in jobs if job.name in names], size)

    def scripts(self, configs: Mapping[str, Config]) -> list[tuple[list[str], str]]:
        """What `submit` would give to sbatch: the names of jobs of one size, and their script.

        Args:
            configs: of the jobs, by name.
        """
        written = []
        for size, names in self._by_size(configs):
            executor = self._executor(size)._executor
            if len(names) > 1:
                executor.parameters["map_count"] = len(names)
            written.append((names, executor._make_submission_file_text(executor._submitit_command_str, "")))
        return written

    def _by_size(self, configs: Mapping[str, Config]) -> list[tuple[dict[str, Any], list[str]]]:
        by_size: dict[tuple[tuple[str, Any], ...], list[str]] = {}
        for name, config in configs.items():
            by_size.setdefault(tuple(self._size(config).items()), []).append(name)
        return [(dict(size), names) for size, names in by_size.items()]

    def _executor(self, size: Mapping[str, Any]) -> AutoExecutor:
        import submitit

        options = self._options
        executor = submitit.AutoExecutor(
            folder=self._sweep / "slurm", cluster="slurm", slurm_max_num_timeout=options.timeouts
        )
        given = {
            "name": f"segbench-{self._sweep.parent.name}",
            "timeout_min": options.time_min,
            "mem_gb": options.mem_gb,
            "slurm_partition": options.partition,
            "slurm_signal_delay_s": options.signal_before_s,
            "slurm_setup": [f"export {_AGAIN}=USR1", *options.setup],
            "slurm_srun_args": ["--kill-on-bad-exit=1"],
            "slurm_array_parallelism": self._limit,
            "slurm_additional_parameters": {"requeue": True, **(options.sbatch or {})},
        }
        executor.update_parameters(**{key: value for key, value in {**given, **size}.items() if value is not None})
        return executor

    def _submit(self, jobs: Sequence[Job], size: Mapping[str, Any]) -> None:
        from submitit.core.utils import FailedJobError
        from submitit.helpers import clean_env

        executor = self._executor(size)
        grace_s = max(1.0, self._options.signal_before_s - 10.0)
        here, places = str(self._working_directory), [job.directory.absolute() for job in jobs]
        tasks = [
            NodeTask(child_command(place), str(place), here, job.environment | inherited_trust(), grace_s)
            for job, place in zip(jobs, places, strict=True)
        ]
        try:
            kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
            # Inside an allocation, its variables would leak into the new job.
            with clean_env():
                os.environ.update(kept)
                submitted = executor.submit_array(tasks) if len(tasks) > 1 else [executor.submit(tasks[0])]
        except (FailedJobError, subprocess.CalledProcessError, OSError) as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise SegbenchError(
                f"Slurm refuses the job: {lines[-1] if lines else type(error).__name__}",
                "a job that the partition accepts",
                "correct hydra.launcher.slurm.*; the submitted script is in " + str(self._sweep / "slurm"),
            ) from error
        for job, handle in zip(jobs, submitted, strict=True):
            job.slurm, job.on_cluster = str(handle.job_id), "PENDING"

    def _size(self, config: Config) -> dict[str, Any]:
        trainer, options = config.trainer, self._options
        gpus = options.gpus_per_node
        if gpus is None and (trainer.on_gpu or (trainer.accelerator == "auto" and self._partition_has_gpus)):
            gpus = self._devices_per_job or trainer.processes_here
        workers = config.data.num_workers
        if workers == "auto":
            # Settled on the node, within what the job has: on a GPU, what is asked for here.
            workers = MOST_WORKERS if gpus else 0
        threads = config.threads if isinstance(config.threads, int) else 1
        cpus = options.cpus_per_task or max(1 + workers, threads)
        return {
            "nodes": options.nodes or trainer.num_nodes,
            "tasks_per_node": trainer.processes_here,
            "gpus_per_node": gpus or None,
            "cpus_per_task": cpus,
        }

    def told(self, configs: Mapping[str, Config]) -> list[str]:
        """What is asked for each size of job and why, a sentence each."""
        said = []
        for size, names in self._by_size(configs):
            trainer, options = configs[names[0]].trainer, self._options
            if options.gpus_per_node is not None:
                why = "hydra.launcher.slurm.gpus_per_node"
            elif trainer.accelerator == "auto":
                has = "has GPUs" if self._partition_has_gpus else "has none, by sinfo; gpus_per_node=N asks for some"
                why = f"trainer.accelerator=auto, and the partition {has}"
            else:
                why = f"trainer.accelerator={trainer.accelerator}"
            cores = "cpus_per_task" if options.cpus_per_task else "data.num_workers and threads"
            said.append(
                f"{counted(len(names))}: {size['gpus_per_node'] or 0} GPUs a node ({why}), "
                f"{size['cpus_per_task']} cores a task ({cores})"
            )
        return said

    @cached_property
    def _partition_has_gpus(self) -> bool:
        if shutil.which("sinfo") is None:
            return False
        asked = subprocess.run(["sinfo", "--noheader", "--format=%P %G"], capture_output=True, text=True, check=False)
        return asked.returncode == 0 and has_gpus(asked.stdout, self._options.partition)

    def room(self) -> bool:
        """Whether another job may be submitted now."""
        return self._limit is None or len(self._running) < self._limit

    def start(self, job: Job) -> bool:
        """Submit a job, or watch it if an earlier launcher has queued it."""
        if not job.on_cluster:
            self.submit([job])
        self._running[job.name] = (job, time.monotonic())
        return True

    def ended(self) -> list[Ended]:
        """The jobs that have left the queue."""
        now = time.monotonic()
        if not self._running or now - self._looked < LOOK_EVERY_S:
            return []
        self._looked = now
        look([job for job, _ in self._running.values()])
        done = []
        for name, (job, started) in list(self._running.items()):
            if job.on_cluster == "":
                del self._running[name]
                job.seconds += now - started
                done.append(Ended(job, None))
        return done

    def end(self, job: Job) -> None:
        """Ask a job to write its checkpoint and end; a pending one is cancelled."""
        _scancel("--state=PENDING", str(job.slurm))
        _scancel("--signal=TERM", str(job.slurm))

    def kill(self, job: Job) -> None:
        """Kill a job."""
        _scancel("--signal=KILL", str(job.slurm))
        _scancel(str(job.slurm))
        # Slurm does the rest.
        self._running.pop(job.name, None)

    def running(self) -> list[Job]:
        """The jobs submitted and still in the queue."""
        return [job for job, _ in self._running.values()]


def has_gpus(listing: str, partition: str | None) -> bool:
    """Whether a partition has GPUs, by `sinfo --format="%P %G"`: its name and the generic resources of its nodes.

    Args:
        listing: a line for each kind of node; the default partition is marked by a star.
        partition: one or several names with commas; None: the default one.
    """
    wanted = None if partition is None else partition.split(",")
    for line in listing.splitlines():
        name, _, resources = line.strip().partition(" ")
        ours = name.endswith("*") if wanted is None else name.removesuffix("*") in wanted
        if ours and re.search(r"\bgpu\b", resources):
            return True
    return False


def _scancel(*arguments: str) -> None:
    # scancel fails for a job that has just left the queue.
    subprocess.run(["scancel", "--quiet", *arguments], check=False, capture_output=True)


def look(jobs: Sequence[Job]) -> None:
    """Update the queue state of submitted jobs; if the cluster cannot be asked, they stay as they are."""
    submitted = [job for job in jobs if job.slurm is not None]
    if not submitted or shutil.which("squeue") is None:
        return
    asked = subprocess.run(
        ["squeue", "--me", "--array", "--noheader", "--format=%i %T"], capture_output=True, text=True, check=False
    )
    if asked.returncode != 0:
        return
    queue = dict(line.split(maxsplit=1) for line in asked.stdout.splitlines() if line.strip())
    for job in submitted:
        job.on_cluster = queue.get(str(job.slurm), "").strip()
