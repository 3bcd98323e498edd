"""Current names of classes that recorded runs name by former ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FORMER = {
    "segbench.callbacks.": "segbench.training.callbacks.",
    "segbench.optim.": "segbench.training.optim.",
    "lightning.pytorch.loggers.WandbLogger": "segbench.tracking.wandb_run.RunWandb",
}
"""Beginnings of dotted names, as version 0.1.0 wrote them, and of today's."""


def with_current_targets(config: Any) -> Any:
    """A recorded configuration, nested or a part of one, with every `_target_` by its present name."""
    return _renamed(config, _FORMER)


def with_former_targets(config: Any) -> Any:
    """The same by former names, as version 0.1.0 wrote and hashed it."""
    return _renamed(config, {current: former for former, current in _FORMER.items()})


def _renamed(config: Any, names: Mapping[str, str]) -> Any:
    if isinstance(config, dict):
        return {
            key: _name(value, names) if key == "_target_" else _renamed(value, names) for key, value in config.items()
        }
    return [_renamed(value, names) for value in config] if isinstance(config, list) else config


def _name(target: Any, names: Mapping[str, str]) -> Any:
    for old, new in names.items():
        if isinstance(target, str) and target.startswith(old):
            return new + target.removeprefix(old)
    return target
