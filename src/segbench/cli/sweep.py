"""`segbench sweep status|resume|retry|sync DIR`: show the state of a sweep, continue it, send it to W&B."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from segbench.cli.flags import Parser
from segbench.cli.sync import ONLINE, sync
from segbench.errors import SegbenchError
from segbench.sweep.directory import Sweep
from segbench.sweep.resume import LAUNCHER, launched_by, resume
from segbench.sweep.settings import Launching

_WHAT = {
    "status": "every job with its state, score and time",
    "resume": "continue interrupted jobs and start pending ones; failed jobs are left",
    "retry": "as resume, and failed jobs again, each from its last checkpoint",
    "sync": "send to W&B what the jobs kept offline; also beside running jobs, and again for the rest",
}


_OF_A_SEARCH = ("n_trials", "sampler", "seed", "startup_trials", "pruner", "warmup_steps", "direction", "params", "zip")
"""What of Hydra's own config is data: numbers and words of `hydra.sweeper`."""


def _parser() -> Parser:
    parser = Parser("segbench sweep", description="Show the state of a sweep, and continue it.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, what in _WHAT.items():
        command = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        command.add_argument("directory", metavar="DIR", help="as printed by segbench train -m")
        if name == "sync":
            command.add_argument("--online", action="store_true", help=ONLINE)
        elif name != "status":
            command.add_argument(
                "names", nargs="*", metavar="JOB", help="these jobs only; hydra.launcher.KEY=VALUE: a cluster"
            )
            command.add_argument("--jobs", type=int, metavar="N", help="jobs at once, instead of the launch's")
            command.add_argument("--devices-per-job", type=int, metavar="N", help="GPUs per job, likewise")
    return parser


def _search_on(sweep: Sweep, settings: Launching, typed: Sequence[str] = ()) -> int:
    """Propose and run further trials: launch the same command again in the same directory.

    The command is read from the sweep's directory, so it is no config of the user's own.

    Args:
        sweep: the search.
        settings: the launcher's.
        typed: further words on the launcher.

    Raises:
        SegbenchError: the command holds more than settings of the experiment and of the search.
    """
    from segbench.cli import train
    from segbench.config.trust import handed_over

    launching = {"launcher.jobs": settings.jobs, "launcher.devices_per_job": settings.devices_per_job}
    now = {"sweep.dir": str(sweep.path.absolute())} | {key: value or "null" for key, value in launching.items()}
    here = [f"hydra.{key}={value}" for key, value in now.items()]
    written = sweep.commands[-1][2:] if sweep.commands else []
    # A cluster is typed, its number of jobs is known.
    before = [word for word in written if not word.startswith(("hydra.sweep.dir=", LAUNCHER))]
    if foreign := [word for word in before if not _is_data(word)]:
        raise SegbenchError(
            f"{sweep.path / 'sweep.yaml'}: a command with {', '.join(foreign)}",
            "settings of an experiment and of the search: a file that is handed over names no configs, interpolations, "
            "paths of configs or commands",
            f"if you trust it, launch it again: {launched_by(sweep)}",
        )
    sys.argv = [str(train.__file__), *before, *typed, *here]
    try:
        with handed_over():
            train.main()
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def _is_data(word: str) -> bool:
    """Whether a word of a command out of a file sets values, and nothing that is found, resolved or called."""
    if word in ("-m", "--multirun", "hydra/sweeper=optuna"):
        return True
    key, equals, value = word.lstrip("+~").partition("=")
    if word.startswith("-") or not equals or "$" in word or "@" in key:
        return False
    if key.split(".")[0].split("/")[0] == "hydra":
        return key.removeprefix("hydra.sweeper.").split(".")[0] in _OF_A_SEARCH
    # The options of an axis are names, not places of files.
    return "." in key or (".." not in value and "/" not in value)


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
    typed = [word for word in given.names if word.startswith(LAUNCHER)]
    names = [word for word in given.names if word not in typed]
    search_on = partial(_search_on, typed=typed)
    raise SystemExit(resume(given.directory, names, retry, given.jobs, given.devices_per_job, search_on, typed))
