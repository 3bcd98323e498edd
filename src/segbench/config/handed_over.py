"""The one door for files that were handed over: YAML and JSON of a run, a sweep or a study, as finished data.

Whoever wrote such a file may be a stranger. Nothing in it is resolved, so an interpolation is refused as soon as it is
read; so is everything but texts, numbers, booleans, null, lists and mappings.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from segbench.errors import SegbenchError, refuse_no_file

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MOST = 500_000
"""Values in a file: an anchor repeated in an anchor gives more in a few lines."""
_DEEPEST = 64
_SURELY_READ = 900
"""Levels that libyaml's reader takes on any stack."""


def read_config(path: Path) -> Any:
    """A recorded config, or a part of one.

    Raises:
        SegbenchError: it cannot be read, or holds anything but plain values, or an interpolation.
    """
    return parse_config(text_of(path, str(path)), str(path))


def parse_config(text: str, source: str) -> Any:
    """As `read_config`, of a text.

    Args:
        text: YAML.
        source: where it is from, for errors.

    Raises:
        SegbenchError: as `read_config`.
    """
    return refuse_interpolations(_parse(text, source), source)


def read_record(path: Path) -> Any:
    """What was typed, as a file keeps it: plain values. An interpolation in it is text, and is never composed.

    Raises:
        SegbenchError: it cannot be read, or holds anything but plain values.
    """
    return plain(_parse(text_of(path, str(path)), str(path)), str(path))


def read_json(path: Path, kind: Any = dict[str, Any]) -> Any:
    """What segbench wrote as JSON, by its schema: nothing in it is resolved either.

    Args:
        path: the file.
        kind: the type of its content, as pydantic checks it.

    Raises:
        SegbenchError: it cannot be read, or holds anything else.
    """
    return parse_json(text_of(path, str(path)), str(path), kind)


def parse_json(text: str, source: str, kind: Any = dict[str, Any]) -> Any:
    """As `read_json`, of a text.

    Args:
        text: JSON.
        source: where it is from, for errors.
        kind: as in `read_json`.

    Raises:
        SegbenchError: as `read_json`.
    """
    try:
        value = json.loads(text)
    except Exception as error:
        # Of the parser, of Python's numbers, and of its stack.
        raise _damaged(source, error) from error
    return fitting(value, source, kind)


def fitting(value: Any, source: str, kind: Any) -> Any:
    """A value that was read, by its schema.

    Args:
        value: plain containers.
        source: where it is from, for errors.
        kind: as in `read_json`.

    Raises:
        SegbenchError: it is of another kind.
    """
    try:
        return _schema(kind).validate_python(value)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise _unlike(f"{source} is damaged: {f'{where}: ' if where else ''}{fault['msg']}") from error
    except Exception as error:
        raise _damaged(source, error) from error


@functools.cache
def _schema(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def refuse_interpolations(value: Any, source: str) -> Any:
    """The value itself, nested plain containers, if nothing in it is left to be resolved.

    Args:
        value: a config or a part of one.
        source: where it is from, for errors.

    Raises:
        SegbenchError: an interpolation, or anything but plain values.
    """
    return plain(value, source, _refuse_interpolation)


def _refuse_interpolation(key: str, text: str, source: str) -> None:
    if "${" in text:
        shown = text if len(text) < 100 else f"{text[:100]}..."
        raise SegbenchError(
            f"{source}: {key}: {shown}, an interpolation",
            "values as they are: a recorded config has no interpolation, and nothing in it is resolved",
            f"write the value of {key} into it if you trust the file, or use another one",
        )


def plain(value: Any, source: str, check: Any = None) -> Any:
    """The value itself, if it holds nothing but texts, numbers, booleans, null, lists and mappings.

    Args:
        value: what a file or a program gave.
        source: where it is from, for errors.
        check: called with key, text and source for every text.

    Raises:
        SegbenchError: anything else, or more of it than a config has.
    """
    left = [(value, "", 0)]
    seen = 0
    while left:
        node, key, depth = left.pop()
        seen += 1
        if seen > _MOST or depth > _DEEPEST:
            raise _too_much(source)
        if node is None or isinstance(node, (bool, int, float)):
            continue
        if isinstance(node, str):
            if check is not None:
                check(key or "it", node, source)
        elif isinstance(node, Mapping):
            for name, inner in node.items():
                if not isinstance(name, (str, int, float, bool)):
                    raise _unlike(f"{source}: {key or 'it'} has a key of the type {type(name).__name__}")
                if check is not None and isinstance(name, str):
                    check(key or "a key", name, source)
                left.append((inner, f"{key}.{name}" if key else str(name), depth + 1))
        elif isinstance(node, (list, tuple)):
            left += [(inner, f"{key}.{number}" if key else str(number), depth + 1) for number, inner in enumerate(node)]
        else:
            raise SegbenchError(
                f"{source} holds a value that is not a number, text, list or mapping ({key}: {type(node).__name__})",
                "plain values: YAML reads 2020-01-01 as a date",
                "quote the value",
            )
    return value


def _unlike(found: str) -> SegbenchError:
    return SegbenchError(found, "the file as segbench wrote it", "restore it from a copy, or use another one")


def text_of(path: Path, source: str) -> str:
    """The text of a file.

    Args:
        path: the file.
        source: its name in errors.

    Raises:
        SegbenchError: it cannot be read.
    """
    try:
        refuse_no_file(path)
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(source, error) from error


def _parse(text: str, source: str) -> Any:
    try:
        # A block needs a space for each level. Too deep a nest ends libyaml's reader in a segmentation fault.
        if text.count("[") + text.count("{") + 2 * max(map(len, text.split("\n"))) > _SURELY_READ:
            _refuse_depth(text, source)
        return yaml.load(text, Loader=_LOADER)
    except SegbenchError:
        raise
    except Exception as error:
        # Beside its own errors the reader raises those of Python's numbers and dates, and of its stack.
        raise _damaged(source, error) from error


def _refuse_depth(text: str, source: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise _too_much(source)


def _too_much(source: str) -> SegbenchError:
    return _unlike(f"{source} holds more than {_MOST} values, or nests them over {_DEEPEST} deep")


def _damaged(source: str, fault: Exception) -> SegbenchError:
    reason = " ".join(str(fault).split()) or type(fault).__name__
    return _unlike(f"{source} is damaged: {reason}")
