"""Which values of a configuration are out of the environment: they are this machine's, and may be secrets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

FROM_ENVIRONMENT = "from_environment"
"""A key at the top of a configuration: the variable behind each such key; absent where there is none."""


def variables_of(config: DictConfig) -> dict[str, str]:
    """The environment variable that a key's value is out of, by dotted key.

    Whatever way leads there counts: an interpolation of an interpolation, or one inside a text. A default that stands
    in for a missing variable does not.

    Args:
        config: composed, not yet resolved.
    """
    from omegaconf import OmegaConf

    raw = OmegaConf.to_container(config, resolve=False)
    found = {}
    with _noting() as read:
        for key in _interpolated(raw, ""):
            read.clear()
            node = OmegaConf.select(config, key)
            if OmegaConf.is_config(node):
                OmegaConf.to_container(node, resolve=True)
            if read:
                found[key] = read[0]
    return found


def _interpolated(value: Any, key: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _interpolated(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _interpolated(inner, f"{key}.{number}")
    elif isinstance(value, str) and "${" in value:
        yield key


@contextmanager
def _noting() -> Iterator[list[str]]:
    from omegaconf import OmegaConf
    from omegaconf.resolvers import oc

    read: list[str] = []

    def noting(name: str, *default: Any) -> Any:
        if name in os.environ:
            read.append(name)
        return oc.env(name, *default)

    OmegaConf.register_new_resolver("oc.env", noting, replace=True)
    try:
        yield read
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
