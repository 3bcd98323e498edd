"""Continue a sweep: its interrupted or failed jobs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import replace

from segbench.config.trust import refuse_untrusted
from segbench.errors import SegbenchError
from segbench.sweep.directory import Sweep
from segbench.sweep.job import Job
from segbench.sweep.settings import Launching


def resume(
    directory: str,
    names: list[str],
    failed: bool,
    jobs: int | None,
    devices_per_job: int | None,
    search_on: Callable[[Sweep, Launching], int],
) -> int:
    """Continue a sweep.

    Args:
        directory: the sweep's.
        names: jobs to continue; empty: all.
        failed: whether to run failed jobs again.
        jobs: how many run at once; None: as launched.
        devices_per_job: GPUs for each job; None: as launched.
        search_on: proposes and runs further trials of a search; returns an exit code.

    Returns:
        an exit code: 0 if every job is finished (or queued on a cluster), else 1; 128 + the signal that ended it.

    Raises:
        SegbenchError: there is no such sweep or job, or another process is launching it.
    """
    from segbench.sweep.freeze import check_frozen
    from segbench.sweep.run import run_jobs, to_run
    from segbench.sweep.summary import exit_code, show

    with Sweep.open(directory) as sweep:
        settings = Launching.read(sweep.launcher)
        if jobs is not None:
            settings = Launching.read(replace(settings, jobs=jobs).record())
        if devices_per_job is not None:
            settings = Launching.read(replace(settings, devices_per_job=devices_per_job).record())
        wanted = [sweep.named(name) for name in names] or sweep.jobs
        chosen = to_run(sweep, wanted, settings, failed)
        check_frozen(chosen)
        _refuse_environment(chosen)
        refuse_untrusted([job.run.recorded() for job in chosen])
        if sweep.search is not None and not names:
            # The search itself continues open trials.
            chosen = [job for job in chosen if job.state() == "failed"]
        stopped = run_jobs(sweep, chosen, settings) if chosen else None
        if sweep.search is not None and stopped is None and chosen:
            _tell_study(sweep, chosen)
        if sweep.search is None or stopped is not None or names:
            return exit_code(sweep, show(sweep), stopped)
    return search_on(sweep, settings)


def _refuse_environment(jobs: list[Job]) -> None:
    """Refuse variables out of the sweep's file that are not those of this process.

    Raises:
        SegbenchError: names them, and the command that sets them.
    """
    wanted = {key: value for job in jobs for key, value in job.environment.items() if os.environ.get(key) != value}
    if wanted:
        words = " ".join(f"{key}={shlex.quote(value)}" for key, value in wanted.items())
        raise SegbenchError(
            f"a sweep whose file sets environment variables (hydra.job.env_set): {', '.join(wanted)}",
            "variables of your own: a file that is handed over sets none",
            f"if you trust them: {words} segbench sweep resume ...",
        )


def _tell_study(sweep: Sweep, jobs: list[Job]) -> None:
    from segbench.sweep.search import Searching, add_retried, open_study

    assert sweep.search is not None
    settings = Searching(storage=sweep.search["storage"])
    add_retried(open_study(sweep.path, settings, sweep.search["direction"]), jobs, sweep.search["metric"])
