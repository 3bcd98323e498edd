"""A job of a sweep: one run directory and its state."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segbench.config.handed_over import read_json
from segbench.errors import SegbenchError
from segbench.runs.directory import Run
from segbench.runtime import locks

STATES = ("prepared", "queued", "running", "finished", "pruned", "interrupted", "failed", "missing")
"""States of a job. `missing`: its directory is gone."""
_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
"""Slurm's states of a waiting job."""


def digest_of(config: Mapping[str, Any], stages: Sequence[str] = ()) -> str:
    """Identifies a job: SHA-256 over its configuration and the digests of the stages before it."""
    parts = [config, list(stages)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


@dataclass
class Job:
    """One run of a sweep.

    Attributes:
        sweep: the sweep's directory.
        name: its directory below the sweep's; `check_name` says what it may be.
        digest: of its frozen configuration.
        overrides: those the configuration was composed from.
        environment: variables added to the launcher's (`hydra.job.env_set` of this launch).
        recorded_environment: those that the sweep's file names. They are shown, and never set.
        seconds: run time so far.
        pruned: whether a search ended it early.
        slurm: its number on the cluster, `<job>` or `<array>_<index>`.
        on_cluster: its last known state on the cluster, e.g. PENDING; empty if it is not in the queue, None if not
            asked. Not saved.
    """

    sweep: Path
    name: str
    digest: str
    overrides: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    recorded_environment: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    pruned: bool = False
    slurm: str | None = None
    on_cluster: str | None = None

    @property
    def directory(self) -> Path:
        """The run directory."""
        return self.sweep / self.name

    @property
    def run(self) -> Run:
        """The run, unchecked."""
        return Run(self.directory)

    def state(self) -> str:
        """The job's state, one of `STATES`."""
        if self.pruned:
            return "pruned"
        if not (self.directory / "config.yaml").is_file():
            return "missing"
        state = self.run.state()
        if state in ("finished", "failed"):
            return state
        if self.on_cluster:
            return "queued" if self.on_cluster in _WAITING else "running"
        # A lock tells nothing about a process on another machine.
        held = self.slurm is not None and self.on_cluster is None
        if state == "running" and not held and not is_held(self.directory):
            return "interrupted"
        return state

    def progress(self) -> dict[str, Any]:
        """Progress of the training: step, total, loss, rate (steps per second); empty before the first step."""
        try:
            read: dict[str, Any] = read_json(self.directory / ".progress.json", dict[str, int | float | None])
        except SegbenchError:
            return {}
        return read if {"step", "total"} <= read.keys() else {}


def check_name(name: str, source: str) -> None:
    """Refuse a job's name that is not one folder below the sweep's.

    Args:
        name: the job's.
        source: the file or the key that names it, for the error.

    Raises:
        SegbenchError: it is empty, has a separator or a control character, or leads elsewhere.
    """
    if name in ("", ".", "..") or "/" in name or "\\" in name or not name.isprintable():
        raise SegbenchError(
            f"{source}: a job of the name {name!r}",
            "the name of one folder in the sweep, without separators and control characters",
            "restore the file, or set hydra.sweep.subdir to a plain name, e.g. ${hydra:job.num}",
        )


def is_held(directory: Path) -> bool:
    """Whether a process of this machine works in a run directory."""
    return locks.is_held(directory / ".lock")


def counted(number: int, noun: str = "job") -> str:
    """`1 job`, `2 jobs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def differing(jobs: Sequence[Job], searched: Collection[str] = ()) -> list[str]:
    """The overrides that tell each job apart, one string per job.

    Args:
        jobs: those of a sweep.
        searched: keys of a search; if empty, the overrides that not all jobs share are used.
    """
    if searched:
        # The last override of a key wins.
        chosen = [{key: value for key, _, value in map(_parts, job.overrides) if key in searched} for job in jobs]
        return [" ".join(f"{key}={value}" for key, value in of_job.items()) for of_job in chosen]
    shared = set.intersection(*(set(job.overrides) for job in jobs)) if jobs else set()
    return [" ".join(override for override in job.overrides if override not in shared) for job in jobs]


def _parts(override: str) -> tuple[str, str, str]:
    return override.partition("=")
