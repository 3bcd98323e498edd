"""What a tracker may show of a configuration: no places on this machine, nothing out of its environment."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from typing import Any

from segbench.config.environment import FROM_ENVIRONMENT
from segbench.config.flat import flatten
from segbench.config.places import PLACES
from segbench.config.record import Recorded
from segbench.errors import SegbenchError
from segbench.runtime.processes import is_main_process

log = logging.getLogger(__name__)

_SECRET = re.compile(
    r"(^|_)(secret|token|password|passwd|passphrase|credentials?|api_?key|access_?key|private_?key|auth)(_|$)", re.I
)
"""Names of keys and of variables whose values are nobody else's business."""
_PLACE_ENDINGS = tuple(f".{key.removeprefix('loss.')}" for key in PLACES)


def shown(config: Recorded) -> tuple[dict[str, Any], list[str]]:
    """The nested configuration without what stays here, and the keys that stay.

    Args:
        config: resolved.

    Raises:
        SegbenchError: a secret out of the environment stands in it.
    """
    tree = config.tree
    variables: Mapping[str, str] = tree.pop(FROM_ENVIRONMENT, None) or {}
    secrets = [key for key, variable in variables.items() if _is_secret(key) or _SECRET.search(variable)]
    if secrets:
        raise SegbenchError(
            f"{secrets[0]}=${{oc.env:{variables[secrets[0]]}}}: a secret in a configuration that a tracker would show",
            "a configuration that anyone may read",
            f"let the code that needs it read {variables[secrets[0]]} itself, or leave out logger=",
        )
    stays = []
    for key, value in flatten(tree).items():
        if key in variables or _is_place(key, value) or (isinstance(value, str) and value and _is_secret(key)):
            stays.append(key)
    return _without(tree, stays), stays


def shown_once(config: Recorded, tracker: str) -> dict[str, Any]:
    """As `shown`, with a sentence in the log of the first process on what stays here."""
    tree, stays = shown(config)
    if stays and is_main_process():
        log.info("%s: not shown, as they are this machine's: %s", tracker, ", ".join(stays))
    return tree


def _is_secret(key: str) -> bool:
    return _SECRET.search(key.rpartition(".")[2]) is not None


def _is_place(key: str, value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str) for each in values):
        return False
    if any(each.startswith(("/", "~", "file:")) or os.path.isabs(each) for each in values):
        return True
    return bool(value) and any(f".{part}".endswith(_PLACE_ENDINGS) for part in _prefixes(key))


def _prefixes(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _without(tree: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    for key in keys:
        *above, last = key.split(".")
        node: Any = tree
        for name in above:
            node = node[int(name)] if isinstance(node, list) else node[name]
        if isinstance(node, list):
            node[int(last)] = None
        else:
            node.pop(last, None)
    return tree
