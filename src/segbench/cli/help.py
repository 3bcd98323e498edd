"""`--help` of the commands that Hydra composes: the comments of their config files, and what each axis offers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

from segbench.cli.flags import parser
from segbench.cli.list import options
from segbench.config.installed import roots
from segbench.config.packaged import conf_root, read_yaml

_WIDTH = 118
_NOT_SHOWN = ("defaults", "hydra", "name", "paper")
"""Keys that a user does not set: what a command is composed of, and what an experiment fills in."""


def help_text(verb: str, own: Path | None = None) -> str:
    """The help of a command.

    Args:
        verb: also the name of its config.
        own: a user's config directory, whose options are listed too.
    """
    file = conf_root() / f"{verb}.yaml"
    blocks = dict(_blocks(file.read_text().splitlines()))
    header = [line.lstrip("# ") for line in blocks["defaults"] if line.startswith("#")]
    keys = [f"  {line}" for name, block in blocks.items() if name not in _NOT_SHOWN for line in block]
    shown = [f"usage: segbench {verb} [FLAG ...] [KEY=VALUE ...]", "", *header]
    if axes := axes_of(verb):
        shown += ["", "axes, AXIS=OPTION picks one (segbench list AXIS describes them; * is the default):"]
        for axis, default in axes.items():
            names = [f"{name}*" if name == default else name for name in sorted(options(axis, roots(own)))]
            shown += textwrap.wrap(f"  {axis:<14} {', '.join(names)}", _WIDTH, subsequent_indent=" " * 17)
    shown += ["", "keys, with their defaults:", *keys, "", "flags, in any position:"]
    return "\n".join(shown) + "\n" + parser(verb).format_help().partition("options:\n")[2]


def axes_of(verb: str) -> dict[str, str]:
    """The axes that a command's config picks from, each with its default."""
    defaults = read_yaml(conf_root() / f"{verb}.yaml")["defaults"]
    picked = {key: value for entry in defaults if isinstance(entry, dict) for key, value in entry.items()}
    return {key: value for key, value in picked.items() if not key.startswith("override ") and key != "run_directory"}


def _blocks(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Each key at the top of a YAML file with its lines and the comment above it."""
    above: list[str] = []
    name, block = "", list[str]()
    for line in lines:
        if line[:1].isalpha():
            if name:
                yield name, block
            name, block, above = line.partition(":")[0], [*above, line], []
        elif line.startswith("#"):
            above.append(line)
        elif line.strip():
            block.append(line)
    yield name, block
