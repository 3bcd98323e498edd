"""`segbench sweep status|resume|retry|sync DIR`: show the state of a sweep, continue it, send it to W&B."""

from __future__ import annotations

import os
import sys

from segbench.cli.flags import Parser
from segbench.cli.sync import ONLINE, sync
from segbench.errors import SegbenchError
from segbench.sweep.directory import Sweep
from segbench.sweep.resume import resume
from segbench.sweep.settings import Launching

_WHAT = {
    "status": "every job with its state, score and time",
    "resume": "continue interrupted jobs and start pending ones; failed jobs are left",
    "retry": "as resume, and failed jobs again, each from its last checkpoint",
    "sync": "send to W&B what the jobs kept offline; also beside running jobs, and again for the rest",
}


_OF_HYDRA = (
    *("hydra.callbacks", "hydra.job", "hydra.searchpath", "hydra.hydra_logging"),
    *("hydra.launcher._", "hydra.sweeper._"),
)
"""What of Hydra's own config names code, commands or environment variables."""


def _parser() -> Parser:
    parser = Parser("segbench sweep", description="Show the state of a sweep, and continue it.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, what in _WHAT.items():
        command = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        command.add_argument("directory", metavar="DIR", help="as printed by segbench train -m")
        if name == "sync":
            command.add_argument("--online", action="store_true", help=ONLINE)
        elif name != "status":
            command.add_argument("names", nargs="*", metavar="JOB", help="these jobs only")
            command.add_argument("--jobs", type=int, metavar="N", help="jobs at once, instead of the launch's")
            command.add_argument("--devices-per-job", type=int, metavar="N", help="GPUs per job, likewise")
    return parser


def _search_on(sweep: Sweep, settings: Launching) -> int:
    """Propose and run further trials: launch the same command again in the same directory.

    The command is read from the sweep's directory, so it is no config of the user's own.

    Raises:
        SegbenchError: it configures Hydra by more than the sweep's settings.
    """
    from segbench.cli import train
    from segbench.config.trust import handed_over

    launching = {"launcher.jobs": settings.jobs, "launcher.devices_per_job": settings.devices_per_job}
    now = {"sweep.dir": str(sweep.path.absolute())} | {key: value or "null" for key, value in launching.items()}
    here = [f"hydra.{key}={value}" for key, value in now.items()]
    before = [word for word in sweep.commands[-1][2:] if not word.startswith(tuple(f"hydra.{key}=" for key in now))]
    keys = [word.lstrip("+~").partition("=")[0] for word in before]
    if foreign := [key for key in keys if key.startswith(_OF_HYDRA)]:
        raise SegbenchError(
            f"{sweep.path / 'sweep.yaml'}: a command with {', '.join(foreign)}",
            "one that sets no code or environment of Hydra's",
            f"launch the command again yourself if you trust it: {' '.join(sweep.commands[-1])}",
        )
    os.chdir(sweep.working_directory)
    sys.argv = [str(train.__file__), *before, *here]
    try:
        with handed_over():
            train.main()
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def main() -> None:
    """The entry point; sys.argv holds a sub-command and its arguments."""
    given = _parser().parse_args()
    if given.command == "status":
        from segbench.sweep.summary import show

        show(Sweep.open(given.directory))
        return
    if given.command == "sync":
        raise SystemExit(sync([str(Sweep.open(given.directory).path)], given.online))
    retry = given.command == "retry"
    raise SystemExit(resume(given.directory, given.names, retry, given.jobs, given.devices_per_job, _search_on))
