"""`segbench sweep status|resume|retry DIR`: how a sweep stands, and going on with it."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace

from segbench.errors import SegbenchError
from segbench.sweep.directory import Sweep
from segbench.sweep.job import Job
from segbench.sweep.settings import Launching

_WHAT = {
    "status": "every job with its state, score and time",
    "resume": "continue what was cut off and begin what has not begun; failed jobs are left",
    "retry": "as resume, and failed jobs once more, each from its last checkpoint",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("segbench sweep", description="A sweep on disk: how it stands, and going on.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, what in _WHAT.items():
        command = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        command.add_argument("directory", metavar="DIR", help="as printed by segbench train -m")
        if name != "status":
            command.add_argument("names", nargs="*", metavar="JOB", help="these jobs only")
            command.add_argument("--jobs", type=int, metavar="N", help="how many at once, instead of the launch's")
            command.add_argument("--devices-per-job", type=int, metavar="N", help="GPUs of each job, likewise")
    return parser


def resume(directory: str, names: list[str], failed: bool, jobs: int | None, devices_per_job: int | None) -> int:
    """Go on with a sweep.

    Args:
        directory: of the sweep.
        names: of the jobs; empty: all of them.
        failed: whether failed jobs run again.
        jobs: how many run at once; None: as it was launched.
        devices_per_job: GPUs of each job; None: as it was launched.

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
    return _search_on(sweep, settings)


def _tell_study(sweep: Sweep, jobs: list[Job]) -> None:
    from segbench.sweep.search import Searching, add_retried, open_study

    assert sweep.search is not None
    settings = Searching(storage=sweep.search["storage"])
    add_retried(open_study(sweep.path, settings, sweep.search["direction"]), jobs, sweep.search["metric"])


def _search_on(sweep: Sweep, settings: Launching) -> int:
    """Propose and run further trials: what was launched, once more, in the same directory."""
    from segbench import train

    directory = str(sweep.path.absolute()).replace("'", "\\'")
    launching = {"launcher.jobs": settings.jobs, "launcher.devices_per_job": settings.devices_per_job}
    now = {"sweep.dir": f"'{directory}'"} | {key: value or "null" for key, value in launching.items()}
    here = [f"hydra.{key}={value}" for key, value in now.items()]
    before = [word for word in sweep.commands[-1][2:] if not word.startswith(tuple(f"hydra.{key}=" for key in now))]
    os.chdir(sweep.working_directory)
    sys.argv = [str(train.__file__), *before, *here]
    try:
        train.main()
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def main() -> None:
    """The entry point; sys.argv holds a sub-command and its arguments."""
    given = _parser().parse_args()
    try:
        if given.command == "status":
            from segbench.sweep.summary import show

            show(Sweep.open(given.directory))
            return
        retry = given.command == "retry"
        code = resume(given.directory, given.names, retry, given.jobs, given.devices_per_job)
    except SegbenchError as error:
        from segbench.entry import fail

        fail(error)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
