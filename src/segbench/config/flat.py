"""The one flat view of a configuration: dotted keys and plain values.

Comparison, deviations, reports, resume and the recognition of a sweep's jobs all read this view.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings by dotted key. Lists of mappings are numbered; other lists, and empty mappings, are values.

    Example:
        >>> flatten({"model": {"width": 4}, "transforms": [{"p": 0.5}], "sides": [1, 2], "logger": {}})
        {'model.width': 4, 'transforms.0.p': 0.5, 'sides': [1, 2], 'logger': {}}
    """
    flat: dict[str, Any] = {}
    _collect(config, "", flat)
    return flat


_PLAIN = frozenset((str, int, float, bool, type(None)))
"""Most leaves are of these types; asking whether they are mappings takes most of the time for thousands of runs."""


def _collect(value: Any, key: str, flat: dict[str, Any]) -> None:
    parts: Iterable[tuple[Any, Any]]
    if type(value) in _PLAIN:
        parts = ()
    elif isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        parts = enumerate(value)
    else:
        parts = ()
    if not parts and key:
        flat[key] = value
    for name, inner in parts:
        _collect(inner, f"{key}.{name}" if key else str(name), flat)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys in which two flat views differ, with both values; None for a missing key."""
    keys = dict.fromkeys([*before, *now])
    return {key: (before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)}


def changed(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a nested configuration with other values at some dotted keys.

    Args:
        config: nested, plain containers.
        changes: values by dotted key; missing mappings are created.
    """
    tree = copy.deepcopy(dict(config))
    for key, value in changes.items():
        *above, last = key.split(".")
        node: Any = tree
        for name in above:
            if isinstance(node, list):
                node = node[int(name)]
                continue
            if not isinstance(node.get(name), dict | list):
                node[name] = {}
            node = node[name]
        node[int(last) if isinstance(node, list) else last] = value
    return tree
