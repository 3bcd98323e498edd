"""What a run really did: its first configuration and the changes of each continuation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from segbench.config.flat import changed, flatten
from segbench.config.handed_over import parse_json, refuse_interpolations
from segbench.config.places import DATA


@dataclass(frozen=True)
class Leg:
    """A leg of a run, from its start or a resume to its end or the next resume.

    Attributes:
        step: the training step at which it began.
        changes: changed values, by dotted key.
        settled: values of `auto` on this leg's machine, by dotted key; the first leg lists the keys that were `auto`.
        provenance: command, code, versions and machine.
        accepted: differences of data or network that `resume_allow=` let pass.
    """

    step: int
    changes: Mapping[str, Any] = field(default_factory=dict)
    settled: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    accepted: tuple[str, ...] = ()

    def line(self) -> str:
        """A line of history.jsonl."""
        return json.dumps(asdict(self), default=str) + "\n"


def read_legs(text: str) -> list[Leg]:
    """The legs in the text of history.jsonl; a line cut short by a full disk or a kill is skipped.

    Raises:
        SegbenchError: a complete line is not a leg, or changes the configuration to an interpolation.
    """
    legs: list[Leg] = []
    for line in text.splitlines(keepends=True):
        if line.endswith("\n"):
            leg: Leg = parse_json(line, f"history.jsonl, line {len(legs) + 1},", Leg)
            refuse_interpolations([leg.changes, leg.settled], f"history.jsonl at step {leg.step}")
            legs.append(leg)
    return legs


def effective(config: Mapping[str, Any], legs: Sequence[Leg], steps: float | None = None) -> dict[str, Any]:
    """The configuration in force at the end of a run.

    Args:
        config: the one it began with, nested.
        legs: those of the run.
        steps: that it trained for, if known. A run of version 0.1.0 has no history: more steps than configured mean
            that it was continued.
    """
    for leg in legs:
        config = changed(config, leg.changes)
    trainer = config.get("trainer")
    asked = trainer.get("max_steps") if isinstance(trainer, Mapping) else None
    if not legs and steps is not None and isinstance(asked, int) and 0 <= asked < steps:
        config = changed(config, {"trainer.max_steps": int(steps)})
    return dict(config)


def continuations(config: Mapping[str, Any], legs: Sequence[Leg], steps: float | None = None) -> list[str]:
    """What the continuations of a run changed, a sentence each; empty if none changed anything but a place.

    Args:
        config: the one it began with, nested.
        legs: those of the run.
        steps: as for `effective`.
    """
    if not legs:
        now = effective(config, legs, steps)
        if now == config:
            return []
        first, last = config["trainer"]["max_steps"], now["trainer"]["max_steps"]
        return [f"trainer.max_steps {first} -> {last}, at an unknown step"]
    sentences, before = [], flatten(config)
    for leg in legs:
        parts = [f"{key} {before.get(key)} -> {value}" for key, value in leg.changes.items() if key not in DATA]
        parts += leg.accepted
        if leg.step and parts:
            sentences.append(f"at step {leg.step}: {', '.join(parts)}")
        before |= leg.changes
    return sentences
