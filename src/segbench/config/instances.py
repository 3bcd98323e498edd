"""A node of a config to an object: its `_target_` called with the arguments beside it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pkgutil import resolve_name
from typing import Any

from segbench.config.trust import refuse_untrusted
from segbench.errors import SegbenchError


def located(target: str, key: str = "") -> Any:
    """The class or function of a dotted name.

    Args:
        target: its name; the caller has checked that it is trusted.
        key: where a config names it, for the error.

    Raises:
        SegbenchError: it cannot be imported.
    """
    try:
        found = resolve_name(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise SegbenchError(
            f"{key and f'{key}.'}_target_={target}: {error}",
            "a class or function that Python can import",
            "correct it, or put the folder of its module into PYTHONPATH",
        ) from error
    if not callable(found):
        raise SegbenchError(f"{key and f'{key}.'}_target_={target}, a {type(found).__name__}", "a class", "correct it")
    return found


def instance(node: Mapping[str, Any], /, **given: Any) -> Any:
    """The object that a node stands for; nodes inside it are made first.

    Hydra's keys `_args_`, `_partial_` and `_recursive_` work; values are passed as they are, and nothing in them is
    resolved: interpolations of a config that was handed over stay text.

    Args:
        node: plain containers with a `_target_`.
        given: further arguments, which win.

    Raises:
        SegbenchError: a target that is not trusted or cannot be imported.
    """
    refuse_untrusted(node)
    return _instance(node, given)


def _instance(node: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    plain = _plain if node.get("_recursive_", True) is False else _made
    keywords = {
        name: plain(value) for name, value in node.items() if not str(name).startswith("_") and name not in given
    }
    positional = [plain(value) for value in node.get("_args_", ())]
    call = partial(located(str(node["_target_"])), *positional, **keywords, **given)
    return call if node.get("_partial_", False) else call()


def _made(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _instance(value, {}) if "_target_" in value else {name: _made(each) for name, each in value.items()}
    return [_made(each) for each in value] if isinstance(value, (list, tuple)) else value


def _plain(value: Any) -> Any:
    return value
