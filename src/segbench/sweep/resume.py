"""Going on with a sweep: jobs that were cut off, or failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

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
    """Go on with a sweep.

    Args:
        directory: of the sweep.
        names: of the jobs; empty: all of them.
        failed: whether failed jobs run again.
        jobs: how many run at once; None: as it was launched.
        devices_per_job: GPUs of each job; None: as it was launched.
        search_on: proposes and runs further trials of a search, in the sweep's directory; returns an exit code.

    Returns:
        an exit code: 0 where every job is finished (or queued on a cluster), 1 where one is not, 128 and the signal
        where one ended it.

    Raises:
        SegbenchError: no such sweep or job, or one that is being launched.
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
        if sweep.search is not None and not names:
            # Trials that are open are the search's own to go on with.
            chosen = [job for job in chosen if job.state() == "failed"]
        stopped = run_jobs(sweep, chosen, settings) if chosen else None
        if sweep.search is not None and stopped is None and chosen:
            _tell_study(sweep, chosen)
        if sweep.search is None or stopped is not None or names:
            return exit_code(sweep, show(sweep), stopped)
    return search_on(sweep, settings)


def _tell_study(sweep: Sweep, jobs: list[Job]) -> None:
    from segbench.sweep.search import Searching, add_retried, open_study

    assert sweep.search is not None
    settings = Searching(storage=sweep.search["storage"])
    add_retried(open_study(sweep.path, settings, sweep.search["direction"]), jobs, sweep.search["metric"])
