"""`segbench sweep status|resume|retry DIR`: how a sweep stands, and going on with it."""

from __future__ import annotations

import argparse
from dataclasses import replace

from segbench.errors import SegbenchError
from segbench.sweep.directory import Sweep

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
    from segbench.sweep.run import TO_RUN, run_jobs
    from segbench.sweep.settings import Launching
    from segbench.sweep.summary import exit_code, show

    with Sweep.open(directory) as sweep:
        settings = Launching.read(sweep.launcher)
        if jobs is not None:
            settings = Launching.read(replace(settings, jobs=jobs).record())
        if devices_per_job is not None:
            settings = Launching.read(replace(settings, devices_per_job=devices_per_job).record())
        wanted = [sweep.named(name) for name in names] or sweep.jobs
        states = (*TO_RUN, "failed") if failed else TO_RUN
        chosen = [job for job in wanted if job.state() in states]
        check_frozen(chosen)
        stopped = run_jobs(sweep, chosen, settings) if chosen else None
        return exit_code(show(sweep), stopped)


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
