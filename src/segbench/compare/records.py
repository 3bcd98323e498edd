"""A run as a comparison sees it: its settings, its scores, and where its counts are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segbench.config.no_effect import counting
from segbench.runs.partial import Partial


@dataclass(frozen=True, eq=False)
class RunRecord:
    """One scored run.

    Attributes:
        source: its directory as the user would type it, or its address in W&B or MLflow.
        path: its directory; None for a run that is read from a tracker.
        name: the experiment's.
        seed: None if the configuration has none.
        settings: the configuration by dotted key, with what its evaluation set.
        metrics: scores by `<split>/<head, if several>/<metric>`; NaN if one is not defined.
        versions: of the scores' definitions, by the same keys; empty if not recorded.
        config: the nested configuration of the training.
        protocol: how the scores were computed.
        provenance: command, code, versions, machine.
        legs: those of every stretch of the training; empty if not recorded.
        timing: seconds and steps.
        data_digest: of some of its images and labels; None if not recorded.
        trained: where the network was trained, resolved; of an evaluation another directory than `path`.
        ensemble: what identifies each network of an ensemble, that of `trained` first; empty if it is alone.
        partial: how much of the split was counted; None: each image once.
        tracked: the ids of its runs in W&B and MLflow.
        folds: the runs whose images are pooled in this one; empty for a plain run.
        settled: the settings that were `auto` and that its training images decided.
    """

    source: str
    path: Path | None
    name: str
    seed: int | None
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]
    versions: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    legs: tuple[Mapping[str, Any], ...] = ()
    timing: Mapping[str, float] = field(default_factory=dict)
    data_digest: str | None = None
    trained: Path | None = None
    ensemble: tuple[str, ...] = ()
    partial: Partial | None = None
    tracked: tuple[str, ...] = ()
    folds: tuple[RunRecord, ...] = ()
    settled: tuple[str, ...] = ()

    @property
    def asked(self) -> dict[str, Any]:
        """The settings, with `auto` where the training images decided: folds of one setting have the same."""
        decided = tuple(f"{key}." for key in self.settled)
        kept = {
            key: value
            for key, value in self.settings.items()
            if key not in self.settled and not (decided and key.startswith(decided))
        }
        return kept | dict.fromkeys(self.settled, "auto")

    @property
    def provenances(self) -> tuple[Mapping[str, Any], ...]:
        """Everything that made the run: its stretches, and what scored it."""
        return (*self.legs, self.provenance)

    @property
    def network(self) -> str:
        """What identifies the network that was scored, or those of an ensemble in any order; empty if unknown."""
        return " + ".join(sorted(self.ensemble)) or str(self.trained or "")

    @property
    def split(self) -> str:
        """The split that was scored: `test` if there is one."""
        splits = [key.split("/")[0] for key in self.metrics if "/" in key]
        return "test" if "test" in splits or not splits else splits[0]


@dataclass(frozen=True)
class LeftOut:
    """A run that does not enter the comparison.

    Attributes:
        source: its directory or address.
        reason: why, and how to fix it.
        wrong: whether a file is damaged or the run was named explicitly; a failed job of a sweep is not wrong.
    """

    source: str
    reason: str
    wrong: bool = False


def separating(settings: Mapping[str, Any], ignore: tuple[str, ...] = ()) -> dict[str, Any]:
    """The settings that separate runs.

    Args:
        settings: by dotted key.
        ignore: keys that do not, with all below them, in addition to those that change no score.
    """
    below = tuple(f"{key}." for key in ignore)
    return {
        key: value
        for key, value in counting(settings).items()
        if not (key in ignore or (below and key.startswith(below)))
    }


def identity(settings: Mapping[str, Any], ignore: tuple[str, ...] = ()) -> str:
    """A digest of the settings that separate runs: equal for runs that differ only in their seed."""
    kept = {key: _whole(value) for key, value in separating(settings, ignore).items()}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def _whole(value: Any) -> Any:
    # A server may return 1 for 1.0.
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        return {key: _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list | tuple) else value


def written(value: Any) -> str:
    """A setting as text, the same for equal ones."""
    return json.dumps(_whole(value), sort_keys=True, default=str)
