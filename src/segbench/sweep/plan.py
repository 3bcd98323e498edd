"""What a sweep would run: its jobs, their commands and, on a cluster, the scripts. Nothing is written or started."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from segbench.errors import say
from segbench.sweep.freeze import open_sweep, place_job
from segbench.sweep.job import counted
from segbench.sweep.local import child_command
from segbench.sweep.run import TO_RUN, machine_of
from segbench.sweep.slurm import SlurmJobs

if TYPE_CHECKING:
    from hydra.types import HydraContext
    from omegaconf import DictConfig

    from segbench.config.record import Config
    from segbench.sweep.job import Job
    from segbench.sweep.settings import Launching


def show_plan(
    context: HydraContext, master: DictConfig, settings: Launching, overrides: Sequence[Sequence[str]]
) -> None:
    """Print the jobs of a sweep, each with the overrides it is composed from, and how they are started.

    Args:
        context: the Hydra application's.
        master: the sweep's config.
        settings: the launcher's.
        overrides: of each job.

    Raises:
        SegbenchError: what a launch would refuse.
    """
    sweep = open_sweep(master, settings)
    sweep.look()
    planned: dict[str, tuple[Job, Config]] = {}
    for number, each in enumerate(overrides):
        job, composed = place_job(sweep, context, master, each, number)
        planned.setdefault(job.name, (job, composed.resolved))
    states = {name: job.state() for name, (job, _) in planned.items()}
    started = {name: config for name, (_, config) in planned.items() if states[name] in (*TO_RUN, "missing")}
    machine = machine_of(sweep, settings, len(started))
    for name, config in started.items():
        machine.check(name, config)
    width = max(map(len, planned), default=0)
    say(f"{sweep.path}: {counted(len(planned))}, of which {len(started)} would start; --dry starts and writes nothing")
    for name, (job, _) in planned.items():
        state = "" if states[name] == "missing" else f"  ({states[name]})"
        say(f"  {name:<{width}}  {shlex.join(job.overrides)}{state}")
    if (again := len(overrides) - len(planned)) > 0:
        say(f"{counted(again, 'combination')} left out: the same config as a job above")
    if started:
        say(f"command of job {next(iter(started))}: {shlex.join(child_command(sweep.path / next(iter(started))))}")
    if isinstance(machine, SlurmJobs):
        for sentence in machine.told(started):
            say(sentence)
        for names, script in machine.scripts(started):
            say(f"\nsbatch script of {'job' if len(names) == 1 else 'jobs'} {', '.join(names)}:\n{script.rstrip()}")
