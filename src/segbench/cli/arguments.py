"""Arguments of the form key=value, beside positional ones."""

from __future__ import annotations

import os
from collections.abc import Sequence

from segbench.errors import SegbenchError


def split_arguments(arguments: Sequence[str], keys: Sequence[str], command: str) -> tuple[list[str], dict[str, str]]:
    """Sources and key=value pairs; a path may hold an equals sign, as the folders of some sweeps do.

    Args:
        arguments: of the command line.
        keys: that the command knows.
        command: the command's name, for its messages.

    Raises:
        SegbenchError: an unknown key, one that is given twice, or no source.
    """
    sources: list[str] = []
    given: dict[str, str] = {}
    for argument in arguments:
        key, is_pair, value = argument.partition("=")
        if is_pair and key in keys and not os.path.exists(argument):
            if key in given:
                raise SegbenchError(f"{key}= given twice", f"{key}= once", "leave one out")
            given[key] = value
        elif is_pair and key.isidentifier() and not os.path.exists(argument):
            import difflib

            near = difflib.get_close_matches(key, keys, n=1)
            expected = f"one of {', '.join(keys)}" + (f"; did you mean {near[0]}=?" if near else "")
            raise SegbenchError(argument, expected, f"segbench {command} --help")
        else:
            sources.append(argument)
    if not sources:
        raise SegbenchError(f"nothing to {command}", "run directories", f"segbench {command} outputs/EXPERIMENT")
    return sources, given
