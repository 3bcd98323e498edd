"""Where the configs are, which targets they may name, and how a run is called. Imports nothing heavy."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from segbench.runs import read_yaml


@cache
def conf_root() -> Path:
    """The folder of the packaged configs: `segbench/conf` in a wheel, `conf` at the top of a clone."""
    package = Path(__file__).resolve().parent
    return package / "conf" if (package / "conf").is_dir() else package.parents[1] / "conf"


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

    A prefix would be no boundary (`torch.hub.load` runs code), and a config that is read from a run directory or a
    checkpoint cannot widen the list.
    """
    from_environment = (name.strip() for name in os.environ.get("SEGBENCH_TARGETS", "").split(","))
    return _packaged_targets() | _allowed_by_user | {name for name in from_environment if name}


def added_targets() -> frozenset[str]:
    """Those of `allowed_targets` that no packaged config names."""
    return allowed_targets() - _packaged_targets()


def flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as (dotted key, value), in their order."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def choose_run_id() -> str:
    """Name this run, once, before any process is launched: children inherit the name through the environment."""
    return os.environ.setdefault("SEGBENCH_RUN_ID", f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{secrets.token_hex(2)}")
