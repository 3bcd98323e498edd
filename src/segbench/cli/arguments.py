"""Arguments of the form key=value: parsed here, or quoted so that Hydra leaves paths as they are."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from segbench.config.flat import flatten
from segbench.config.grammar import in_hydra
from segbench.config.places import PLACES
from segbench.errors import SegbenchError
from segbench.runtime.files import write_whole

PATHS = (
    *("run", "predictions", "labels", "input", "output", "ids"),
    *PLACES,
    *("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"),
    *("data.pairing", "data.group"),
)
"""Keys of the configuration whose values are paths, or patterns of paths."""

_BY_NAME = ("input", "init_from")
"""Those that may be mappings of paths, or a key for each."""


def pairs(
    arguments: Sequence[str], keys: Collection[str] | None = None, command: str = "", quotes: bool = False
) -> tuple[list[str], dict[str, str]]:
    """Split arguments into bare ones and key=value pairs.

    Args:
        arguments: of the command line.
        keys: that the command knows; None: any.
        command: the command's name, for its messages.
        quotes: leave values their quotes.

    Returns:
        those without a key, in their order, and values by key.

    Raises:
        SegbenchError: an unknown key, or one that is given twice.
    """
    bare: list[str] = []
    given: dict[str, str] = {}
    for argument in arguments:
        key, is_pair, value = argument.partition("=")
        if not is_pair:
            bare.append(unquoted(argument))
            continue
        if keys is not None and key not in keys:
            import difflib

            near = difflib.get_close_matches(key, keys, n=1)
            expected = f"one of {', '.join(keys)}" + (f"; did you mean {near[0]}=?" if near else "")
            raise SegbenchError(argument, expected, f"segbench {command} --help")
        if key in given:
            raise SegbenchError(f"{key}= given twice", f"{key}= once", "leave one out")
        given[key] = value if quotes else unquoted(value)
    return bare, given


def split_arguments(arguments: Sequence[str], keys: Sequence[str], command: str) -> tuple[list[str], dict[str, str]]:
    """Sources and key=value pairs; a path may hold an equals sign, as the folders of some sweeps do.

    Args:
        arguments: of the command line.
        keys: that the command knows.
        command: the command's name, for its messages.

    Raises:
        SegbenchError: an unknown key, one that is given twice, or no source.
    """
    sources, keyed = list[str](), list[str]()
    for argument in arguments:
        key, is_pair, _ = argument.partition("=")
        (keyed if is_pair and key.isidentifier() and not os.path.exists(argument) else sources).append(argument)
    if not sources:
        raise SegbenchError(f"nothing to {command}", "run directories", f"segbench {command} outputs/EXPERIMENT")
    return [unquoted(source) for source in sources], pairs(keyed, keys, command)[1]


def of_an_agent(argument: str) -> list[str]:
    """The overrides that an argument of W&B's agent means: it writes values as Python does.

    `None` is null, a mapping is one override for each of its leaves (a whole one would name a config group), and a text
    with commas or brackets is a text, not a list.

    Args:
        argument: `key=value`; the key may have a plus or two.
    """
    key, _, text = argument.partition("=")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        # Paths are quoted by `quoted`, as everybody's.
        plain = key.lstrip("+") in PATHS or _is_one_value(argument)
        return [argument if plain else f"{key}={in_hydra(text)}"]
    if isinstance(value, dict) and value:
        return [f"{key}.{name}={in_hydra(inner)}" for name, inner in flatten(value).items()]
    return [f"{key}={in_hydra(value)}"] if value is None or isinstance(value, dict | list | tuple) else [argument]


def _is_one_value(argument: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return not OverridesParser.create().parse_override(argument).is_sweep_override()
    except HydraException:
        return False


def write_output(path: Path, text: str) -> None:
    """Write a text in one piece to the file that `output=` names; creates its folder.

    Raises:
        SegbenchError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise SegbenchError(
            f"{path} cannot be written: {error.strerror or error}",
            "a file in a folder that this user may write to",
            "choose another output=FILE",
        ) from error


def unquoted(value: str) -> str:
    """A value without the quotes that Hydra's grammar removes; the name of an existing file keeps them."""
    mark = value[:1]
    if not re.fullmatch(r"""'(\\.|[^'\\])*'|"(\\.|[^"\\])*\"""", value, re.DOTALL) or os.path.exists(value):
        return value
    # In Hydra a backslash is literal, except before a quote and at the end.
    return re.sub(rf"\\+(?={mark}|\Z)", lambda found: "\\" * (len(found[0]) // 2), value[1:-1])


def quoted(arguments: Sequence[str]) -> list[str]:
    """Arguments for Hydra, in which a path that its grammar would refuse, split or read as a number is quoted.

    Left as they are: what is quoted, `null`, mappings by name and, in a sweep (`-m`), what lists several values.

    Args:
        arguments: of the command line.
    """
    several = bool({"-m", "--multirun"} & {*arguments})
    return [_quoted(argument, several) for argument in arguments]


def _quoted(argument: str, several: bool) -> str:
    key, _, value = argument.partition("=")
    name, first = key.lstrip("+"), key.lstrip("+").split(".")[0]
    if not value or not (name in PATHS or (first in _BY_NAME and name != first)):
        return argument
    if first in _BY_NAME and value.startswith("{"):
        return argument
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Quote, QuotedString
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        pass
    else:
        taken = override.value()
        listed = several and override.is_sweep_override()
        if listed or taken is None or taken == value or isinstance(override._value, QuotedString):
            return argument
    return f"{key}={QuotedString(value, Quote.single).with_quotes()}"
