"""Trust: which targets a config may name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from typing import Any

from segbench.config.packaged import conf_root, read_yaml


def targets_in(config: Any) -> Iterator[str]:
    """Every `_target_` inside nested containers."""
    if isinstance(config, dict):
        for key, value in config.items():
            if key == "_target_":
                yield str(value)
            else:
                yield from targets_in(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from targets_in(value)


_allowed_by_user: set[str] = set()


def allow_target(name: str) -> None:
    """Let configs name `name` (a dotted path) as a `_target_`; for a user's own Python code.

    On the command line the environment variable SEGBENCH_TARGETS does the same: names joined by commas.
    """
    _allowed_by_user.add(name)


@cache
def _packaged_targets() -> frozenset[str]:
    return frozenset(target for path in conf_root().rglob("*.yaml") for target in targets_in(read_yaml(path)))


def allowed_targets() -> frozenset[str]:
    """Exact names that a config may instantiate: those of the packaged configs and those that the user allowed.

    A prefix would not protect (`torch.hub.load` runs code), and a config that is read from a run directory or a
    checkpoint cannot widen the list.
    """
    from_environment = (name.strip() for name in os.environ.get("SEGBENCH_TARGETS", "").split(","))
    return _packaged_targets() | _allowed_by_user | {name for name in from_environment if name}


def added_targets() -> frozenset[str]:
    """Those of `allowed_targets` that no packaged config names."""
    return allowed_targets() - _packaged_targets()
