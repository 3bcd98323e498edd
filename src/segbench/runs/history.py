"""What a run really did: the configuration that it began with, and what each continuation changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from segbench.config.flat import changed, flatten


@dataclass(frozen=True)
class Leg:
    """A stretch of a run, from its beginning or a resume to its end or the next resume.

    Attributes:
        step: of the training at which it began.
        changes: other values than before, by dotted key.
        settled: what `auto` means on the machine of this leg, by dotted key; of the first leg the keys that were left
            to the machine.
        provenance: command, code, versions and machine.
    """

    step: int
    changes: Mapping[str, Any] = field(default_factory=dict)
    settled: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """A line of history.jsonl."""
        return json.dumps(asdict(self), default=str) + "\n"


def read_legs(text: str) -> list[Leg]:
    """The legs in the text of history.jsonl; a line that a full disk or a kill cut short is none.

    Raises:
        ValueError: a whole line that is no leg.
    """
    legs = []
    for line in text.splitlines(keepends=True):
        if line.endswith("\n"):
            read = json.loads(line)
            try:
                leg = Leg(int(read["step"]), *(dict(read[name]) for name in ("changes", "settled", "provenance")))
            except (TypeError, KeyError) as error:
                raise ValueError(f"no leg of a run: {line[:80]}") from error
            legs.append(leg)
    return legs


def effective(config: Mapping[str, Any], legs: Sequence[Leg], steps: float | None = None) -> dict[str, Any]:
    """The configuration that holds at a run's end.

    Args:
        config: that it began with, nested.
        legs: of the run.
        steps: that it was trained for, as far as is known. A run of version 0.1.0 kept no history: more steps than its
            configuration asks for tell that it was continued.
    """
    for leg in legs[1:] if legs and legs[0].step == 0 else legs:
        config = changed(config, leg.changes)
    asked = (config.get("trainer") or {}).get("max_steps")
    if not legs and steps is not None and isinstance(asked, int) and 0 <= asked < steps:
        config = changed(config, {"trainer.max_steps": int(steps)})
    return dict(config)


def continuations(config: Mapping[str, Any], legs: Sequence[Leg], steps: float | None = None) -> list[str]:
    """What a run's continuations changed, a sentence each; empty for a run that was at most cut off and went on.

    Args:
        config: that it began with, nested.
        legs: of the run.
        steps: as for `effective`.
    """
    said, before = [], flatten(config)
    for leg in legs:
        if leg.step and leg.changes:
            parts = [f"{key} {before.get(key)} -> {value}" for key, value in leg.changes.items()]
            said.append(f"at step {leg.step}: {', '.join(parts)}")
        before |= leg.changes
    now = flatten(effective(config, legs, steps))
    if not legs and now != before:
        said.append(f"trainer.max_steps {before['trainer.max_steps']} -> {now['trainer.max_steps']}, at a step unknown")
    return said
