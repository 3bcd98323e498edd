"""Where classes are now that recorded runs name by a former place."""

from __future__ import annotations

from typing import Any

_FORMER = {
    "segbench.callbacks.": "segbench.training.callbacks.",
    "segbench.optim.": "segbench.training.optim.",
}
"""Beginnings of dotted names, as version 0.1.0 wrote them, and of today's."""


def with_current_targets(config: Any) -> Any:
    """A recorded configuration, nested or a part of one, with every `_target_` by its present name."""
    if isinstance(config, dict):
        return {
            key: _current(value) if key == "_target_" else with_current_targets(value) for key, value in config.items()
        }
    if isinstance(config, list):
        return [with_current_targets(value) for value in config]
    return config


def _current(target: Any) -> Any:
    for former, current in _FORMER.items():
        if isinstance(target, str) and target.startswith(former):
            return current + target.removeprefix(former)
    return target
