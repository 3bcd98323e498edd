"""Running jobs of a sweep where its settings say, with a view of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from segbench.errors import SegbenchError
from segbench.sweep.directory import Sweep
from segbench.sweep.job import Job, counted
from segbench.sweep.launching import Listed, Machine, Work, launch
from segbench.sweep.settings import Launching
from segbench.sweep.view import JobsView

TO_RUN = ("prepared", "interrupted")
"""States of jobs that a launch begins or continues; failed ones are left, unless a retry asks for them."""


def machine_of(sweep: Sweep, settings: Launching, count: int) -> Machine:
    """Where the jobs of a sweep run.

    Args:
        sweep: whose.
        settings: of the launcher.
        count: how many jobs there are: fewer than may run at once share more cores.

    Raises:
        SegbenchError: fewer devices than asked for, or no such cluster here.
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
        return SlurmJobs(sweep.path, sweep.working_directory, options, settings.jobs, settings.devices_per_job)
    from segbench.sweep.local import LocalJobs

    return LocalJobs(sweep.working_directory, max(1, min(settings.jobs or 1, count)), settings.devices_per_job)


def run_jobs(sweep: Sweep, jobs: Sequence[Job], settings: Launching) -> int | None:
    """Run jobs of a sweep that are frozen and wait, or were cut off; on a cluster, unless told to wait, submit them.

    Args:
        sweep: which this process has taken.
        jobs: of it.
        settings: of the launcher.

    Returns:
        the signal that ended the launcher early, else None.

    Raises:
        SegbenchError: a job that cannot run here.
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
    """Of some jobs those that a launch begins, continues or, on a cluster, waits for.

    Args:
        sweep: whose.
        jobs: some of it.
        settings: of the launcher.
        failed: whether failed ones are tried again.
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
    """Do the work, writing down in sweep.yaml what came of each job."""
    with JobsView(_Labels(sweep), total) as view:
        view.say(f"sweep: {sweep.path}, {counted(total)}")
        return launch(machine, _Saving(sweep, work), view, settings.grace_s)


class _Saving:
    """Work whose ends are written down."""

    def __init__(self, sweep: Sweep, work: Work) -> None:
        self._sweep, self._work = sweep, work
        self.next, self.watch = work.next, work.watch

    def started(self, job: Job) -> None:
        if job.slurm is not None:
            # Its number on the cluster.
            self._sweep.save()

    def ended(self, job: Job) -> None:
        self._work.ended(job)
        self._sweep.save()


class _Labels(Mapping[str, str]):
    """What sets each job apart; a search adds jobs meanwhile."""

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
