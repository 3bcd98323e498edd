"""A job of a sweep: one run directory, and how it stands."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.runs.directory import Run

if TYPE_CHECKING:
    pass

STATES = ("prepared", "queued", "running", "finished", "pruned", "interrupted", "failed", "missing")
"""How a job may stand. `missing`: its directory is gone."""
_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
"""What Slurm says of a job that waits."""


def digest_of(config: Mapping[str, Any], stages: Sequence[str] = ()) -> str:
    """What a job is recognised by: SHA-256 over its configuration and the digests of the stages before it."""
    parts = [config, list(stages)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


@dataclass
class Job:
    """One run of a sweep.

    Attributes:
        sweep: directory of the sweep.
        name: of the job, its directory below the sweep's.
        digest: of its frozen configuration.
        overrides: from which the configuration was composed.
        environment: variables that its process gets beside the launcher's (`hydra.job.env_set`).
        seconds: that its processes took so far.
        pruned: whether a search ended it before its time.
        slurm: its number on the cluster, `<job>` or `<array>_<index>`.
        on_cluster: what the cluster said of it last, e.g. PENDING; empty where it is not in the queue, None where
            nobody has asked. It is not kept.
    """

    sweep: Path
    name: str
    digest: str
    overrides: list[str]
    environment: dict[str, str] = field(default_factory=dict)
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
        """How the job stands, one of `STATES`."""
        if self.pruned:
            return "pruned"
        if not (self.directory / "config.yaml").is_file():
            return "missing"
        state = self.run.state()
        if state in ("finished", "failed"):
            return state
        if self.on_cluster:
            return "queued" if self.on_cluster in _WAITING else "running"
        # A lock says nothing of a process on another machine.
        held = self.slurm is not None and self.on_cluster is None
        if state == "running" and not held and not is_held(self.directory):
            return "interrupted"
        return state

    def progress(self) -> dict[str, Any]:
        """What the run says of its training: step, total, loss, rate (steps a second); empty before its first step."""
        try:
            read: dict[str, Any] = json.loads((self.directory / ".progress.json").read_text())
        except (OSError, ValueError):
            return {}
        return read


def is_held(directory: Path) -> bool:
    """Whether a process of this machine works in a run directory."""
    try:
        with (directory / ".lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def counted(number: int, noun: str = "job") -> str:
    """`1 job`, `2 jobs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def differing(jobs: Sequence[Job], searched: Collection[str] = ()) -> list[str]:
    """Of each job the overrides that set it apart, as one string.

    Args:
        jobs: of a sweep.
        searched: keys of a search; none: the overrides that not all jobs share.
    """
    if searched:
        # The last of a key is the one that holds.
        chosen = [{key: value for key, _, value in map(_parts, job.overrides) if key in searched} for job in jobs]
        return [" ".join(f"{key}={value}" for key, value in of_job.items()) for of_job in chosen]
    shared = set.intersection(*(set(job.overrides) for job in jobs)) if jobs else set()
    return [" ".join(override for override in job.overrides if override not in shared) for job in jobs]


def _parts(override: str) -> tuple[str, str, str]:
    return override.partition("=")
