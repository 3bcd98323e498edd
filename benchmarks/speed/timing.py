"""Time ways of doing one thing in turn and keep the best of each: the ratio is robust on a noisy machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from segbench.config.record import Config


@dataclass(frozen=True)
class Row:
    """One measured figure.

    Attributes:
        name: what is measured.
        seconds: best time of ours.
        reference: what it is compared with; empty for an absolute figure.
        reference_seconds: best time of the reference, or None.
        target: the goal, as text.
        met: whether it is reached.
        note: anything else.
    """

    name: str
    seconds: float
    reference: str
    reference_seconds: float | None
    target: str
    met: bool
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Reference time over our time: above 1 is faster than the reference."""
        return None if self.reference_seconds is None else self.reference_seconds / self.seconds


Benches = dict[str, Callable[[], Iterable[Row]]]
"""Measurements by name."""


def best_of(*ways: Callable[[], Any], repeats: int = 5, warmup: int = 1) -> list[float]:
    """The best time in seconds of each way, run in turn A B A B ...

    Args:
        ways: functions without arguments.
        repeats: counted runs of each.
        warmup: uncounted runs of each (compilation, caches).
    """
    best = [float("inf")] * len(ways)
    for turn in range(warmup + repeats):
        for position, way in enumerate(ways):
            start = time.perf_counter()
            way()
            elapsed = time.perf_counter() - start
            if turn >= warmup:
                best[position] = min(best[position], elapsed)
    return best


def composed(*overrides: str) -> Config:
    """The config of a run with these overrides."""
    from hydra import compose, initialize_config_dir

    from segbench.config.composed import resolved
    from segbench.config.packaged import conf_root

    with initialize_config_dir(str(conf_root()), version_base="1.3"):
        return Config.of(resolved(compose("train", [*overrides])))
