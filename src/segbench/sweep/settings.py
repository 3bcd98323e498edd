"""Settings that launch the jobs of a sweep: `hydra.launcher.*`, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from segbench.errors import SegbenchError

CLUSTERS = ("local", "slurm")


@dataclass(frozen=True)
class Launching:
    """Settings of the launcher; conf/hydra/launcher/processes.yaml documents each.

    Attributes:
        cluster: `local` or `slurm`.
        jobs: how many run at once; None: one on this machine, no limit on a cluster.
        devices_per_job: GPUs for each job; None: as many as its Trainer asks for.
        grace_s: seconds that a job gets to write its checkpoint when the sweep is stopped.
        slurm: the cluster's settings.
    """

    cluster: str = "local"
    jobs: int | None = None
    devices_per_job: int | None = None
    grace_s: float = 120.0
    slurm: Mapping[str, Any] | None = None

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Launching:
        """Read them from a config or sweep.yaml.

        Raises:
            SegbenchError: an unknown key, or a value out of its range.
        """
        known = [field.name for field in fields(cls)]
        unknown = [key for key in given if key not in known]
        if unknown:
            raise _wrong(unknown[0], given[unknown[0]], f"one of {', '.join(known)}")
        settings = cls(**{key: given[key] for key in known if key in given})
        if settings.cluster not in CLUSTERS:
            raise _wrong("cluster", settings.cluster, " or ".join(CLUSTERS))
        if settings.jobs is not None and not _count(settings.jobs):
            raise _wrong("jobs", settings.jobs, "a number of jobs, at least 1, or null")
        if settings.devices_per_job is not None and not _count(settings.devices_per_job):
            raise _wrong("devices_per_job", settings.devices_per_job, "a number of GPUs, at least 1, or null")
        if isinstance(settings.grace_s, bool) or not isinstance(settings.grace_s, (int, float)) or settings.grace_s < 0:
            raise _wrong("grace_s", settings.grace_s, "seconds, at least 0")
        if settings.cluster == "slurm":
            from segbench.sweep.slurm import SlurmOptions

            SlurmOptions.read(settings.slurm)
        return settings

    def record(self) -> dict[str, Any]:
        """As written to sweep.yaml."""
        return asdict(self)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _wrong(key: str, value: Any, expected: str) -> SegbenchError:
    return SegbenchError(f"hydra.launcher.{key}={value}", expected, f"correct hydra.launcher.{key}=")
