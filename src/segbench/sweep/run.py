"""Run the jobs of a sweep on this machine or a cluster, with a live view."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segbench.errors import SegbenchError
from segbench.sweep.directory import Sweep
from segbench.sweep.job import Job, counted
from segbench.sweep.launching import Listed, Machine, Work, launch
from segbench.sweep.settings import Launching
from segbench.sweep.view import JobsView

TO_RUN = ("prepared", "interrupted")
"""States of jobs that a launch starts or continues; failed ones wait for a retry."""


def machine_of(sweep: Sweep, settings: Launching, count: int) -> Machine:
    """Where the jobs of a sweep run.

    Args:
        sweep: the sweep.
        settings: the launcher's.
        count: number of jobs; if fewer than may run at once, each gets more cores.

    Raises:
        SegbenchError: there are fewer devices than asked for, or no such cluster.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SegbenchError(
            f"a sweep as one of WORLD_SIZE={os.environ['WORLD_SIZE']} processes",
            "one launcher, which starts each job's processes",
            "call segbench train -m without torchrun; set trainer=ddp trainer.devices=N",
        )
    if settings.cluster == "slurm":
        from segbench.sweep.slurm import SlurmJobs, SlurmOptions

        options = SlurmOptions.read(settings.slurm)
        return SlurmJobs(sweep.path, Path.cwd(), options, settings.jobs, settings.devices_per_job)
    from segbench.sweep.local import LocalJobs

    return LocalJobs(Path.cwd(), max(1, min(settings.jobs or 1, count)), settings.devices_per_job)


def run_jobs(sweep: Sweep, jobs: Sequence[Job], settings: Launching) -> int | None:
    """Run prepared or interrupted jobs of a sweep; on a cluster, submit them, and wait only if configured to.

    Args:
        sweep: locked by this process.
        jobs: some of its jobs.
        settings: the launcher's.

    Returns:
        the signal that ended the launcher early, or None.

    Raises:
        SegbenchError: a job cannot run here.
    """
    machine = machine_of(sweep, settings, len(jobs))
    for job in jobs:
        machine.check(job.name, job.run.config())
    if settings.cluster == "slurm" and not waits(settings):
        _submit(sweep, machine, jobs)
        return None
    return run_work(sweep, machine, Listed(jobs), settings, len(jobs))


def waits(settings: Launching) -> bool:
    """Whether the launcher stays until the last job has ended."""
    return settings.cluster != "slurm" or bool((settings.slurm or {}).get("wait"))


def to_run(sweep: Sweep, jobs: Sequence[Job], settings: Launching, failed: bool = False) -> list[Job]:
    """The jobs among the given ones that a launch starts, continues or, on a cluster, waits for.

    Args:
        sweep: the sweep.
        jobs: some of its jobs.
        settings: the launcher's.
        failed: whether to include failed ones.
    """
    sweep.look()
    states = {*TO_RUN, *(("failed",) if failed else ())}
    if settings.cluster == "slurm" and waits(settings):
        states |= {"queued", "running"}
    return [job for job in jobs if job.state() in states]


def _submit(sweep: Sweep, machine: Machine, jobs: Sequence[Job]) -> None:
    from segbench.sweep.slurm import SlurmJobs

    assert isinstance(machine, SlurmJobs)
    try:
        machine.submit(jobs)
    finally:
        sweep.save()


def run_work(sweep: Sweep, machine: Machine, work: Work, settings: Launching, total: int) -> int | None:
    """Run the jobs and record each result in sweep.yaml."""
    with JobsView(_Labels(sweep), total) as view:
        view.say(f"sweep: {sweep.path}, {counted(total)}")
        return launch(machine, _Saving(sweep, work), view, settings.grace_s)


class _Saving:
    """Saves sweep.yaml as jobs are queued and end."""

    def __init__(self, sweep: Sweep, work: Work) -> None:
        self._sweep, self._work = sweep, work
        self.next, self.watch = work.next, work.watch

    def started(self, job: Job) -> None:
        if job.slurm is not None:
            # To keep its number on the cluster.
            self._sweep.save()

    def ended(self, job: Job) -> None:
        self._work.ended(job)
        self._sweep.save()


class _Labels(Mapping[str, str]):
    """Labels that tell the jobs apart; a search adds jobs as it runs."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep, self._known = sweep, dict[str, str]()

    def _all(self) -> dict[str, str]:
        if len(self._known) != len(self._sweep.jobs):
            self._known = self._sweep.labels()
        return self._known

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Any:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())
