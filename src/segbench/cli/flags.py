"""Flags of the commands that Hydra composes, in any position among overrides; `--key=value` is `key=value`."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import NoReturn

from segbench import __version__
from segbench.cli.arguments import of_an_agent
from segbench.errors import SegbenchError
from segbench.tracking.agent import agents_run

_INSTEAD = {
    "--config-path": "--config-dir DIR adds your own configs",
    "--shell-completion": 'eval "$(segbench completion bash)"',
    "--experimental-rerun": "segbench train resume=RUN",
}
"""What does the work of flags that Hydra takes and segbench does not."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors have three parts."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            SegbenchError: always.
        """
        raise SegbenchError(f"{self.prog}: {message}", " ".join(self.format_usage().split()[1:]), f"{self.prog} -h")


def _wide(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, max_help_position=30, width=118)


def parser(verb: str) -> Parser:
    """The parser of a command.

    Args:
        verb: `train`, `evaluate`, `predict` or `export`.
    """
    made = Parser(f"segbench {verb}", add_help=False, allow_abbrev=False, formatter_class=_wide)
    made.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="any key of the config")
    flag = made.add_argument
    flag("-h", "--help", action="store_true", help="show this and exit")
    flag(
        "-m",
        "--multirun",
        action="store_true",
        help="a sweep: KEY=A,B runs each; hydra.launcher.jobs=N at once, hydra.sweep.dir=DIR",
    )
    flag("--dry", action="store_true", help="with -m: show the jobs of the sweep, and a cluster's scripts, and exit")
    flag("-c", "--cfg", choices=["job", "hydra", "all"], help="show the config and exit")
    flag("--resolve", action="store_true", help="with --cfg: interpolations resolved")
    flag("-p", "--package", metavar="KEY", help="with --cfg: only that part")
    flag("-cd", "--config-dir", metavar="DIR", help="your own configs; a file named like a packaged one replaces it")
    flag("-cn", "--config-name", metavar="NAME", help=f"compose NAME instead of {verb}")
    infos = ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"]
    flag(
        "-i",
        "--info",
        nargs="?",
        const="all",
        choices=infos,
        metavar="WHAT",
        help="what Hydra composes, and from where",
    )
    flag("-r", "--run", action="store_true", help="one run (default)")
    flag("--version", action="version", version=__version__, help="show the version and exit")
    flag("--hydra-help", action="store_true", help="Hydra's own keys")
    return made


def read_flags(verb: str, arguments: Sequence[str]) -> argparse.Namespace:
    """The flags of a command line, and its `overrides` in their order.

    Args:
        verb: the command.
        arguments: flags and overrides, mixed.

    Raises:
        SegbenchError: an unknown flag, a value that one does not take, or two that exclude each other.
    """
    reading = parser(verb)
    takes = {name: action.nargs != 0 for action in reading._actions for name in action.option_strings}
    given = reading.parse_intermixed_args([word for argument in arguments for word in _as_overrides(argument, takes)])
    alone = [f"--{name}" for name in ("multirun", "cfg", "info", "run") if getattr(given, name)]
    if len(alone) > 1:
        raise SegbenchError(f"{' and '.join(alone)} together", "one of them", f"leave out {alone[0]}")
    if given.dry and (shown := [flag for flag in alone if flag != "--multirun"]):
        raise SegbenchError(f"--dry and {shown[0]} together", "one of them", f"leave out {shown[0]}")
    if given.resolve and not given.cfg:
        raise SegbenchError("--resolve without --cfg", "a config to show", "add --cfg job")
    return given


def _as_overrides(argument: str, takes: dict[str, bool]) -> list[str]:
    name, pair, value = argument.partition("=")
    if not name.startswith("--") or len(name) == 2 or (name in takes and (takes[name] or not pair)):
        # Without hyphens, and so known by who started it alone.
        return of_an_agent(argument) if pair and agents_run() is not None else [argument]
    if pair and name not in _INSTEAD:
        # W&B's sweep agents write it this way.
        return of_an_agent(f"{name[2:]}={value}")
    near = difflib.get_close_matches(name, takes, n=1)
    known = ", ".join(flag for flag in takes if flag.startswith("--"))
    guess = f"did you mean {near[0]}?" if near else f"write {name[2:]}=VALUE for a key of the config"
    raise SegbenchError(f"unknown flag {name}", f"one of {known}, or key=value", _INSTEAD.get(name, guess))
