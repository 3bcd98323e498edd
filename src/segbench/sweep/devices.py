"""GPUs and CPU threads, divided among the jobs that run at once on this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from segbench.config.record import Trainer
from segbench.errors import SegbenchError
from segbench.runtime.workers import CORES


def visible_gpus(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; does not load CUDA."""
    given = environment.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        names = [name.strip() for name in given.split(",") if name.strip()]
        # CUDA stops at the first invalid name.
        return tuple(names[: names.index("-1")] if "-1" in names else names)
    if shutil.which("nvidia-smi") is None:
        return ()
    asked = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    return listed_gpus(asked.stdout) if asked.returncode == 0 else ()


def listed_gpus(listing: str) -> tuple[str, ...]:
    """The devices of `nvidia-smi --list-gpus`: numbers of GPUs, and identifiers of the parts that one is divided into.

    A GPU that is divided (MIG) is no device itself, and a process uses one of its parts, by its identifier.
    """
    names: list[str] = []
    gpus = 0
    for line in listing.splitlines():
        if line.startswith("GPU "):
            names.append(str(gpus))
            gpus += 1
        elif part := re.search(r"^\s+MIG .*\(UUID: (MIG-[^)]+)\)", line):
            if names and names[-1] == str(gpus - 1):
                names.pop()
            names.append(part[1])
    return tuple(names)


class Pool:
    """The free GPUs and the CPU threads of each job.

    Args:
        gpus: their names.
        cores: CPU cores.
        jobs: how many run at once.
        devices_per_job: GPUs for each; None: as many as its Trainer asks for.

    Raises:
        SegbenchError: a job wants more than there is.
    """

    def __init__(self, gpus: Sequence[str], cores: int, jobs: int, devices_per_job: int | None) -> None:
        self._all, self._free = tuple(gpus), list(gpus)
        self._threads = max(1, cores // jobs)
        self._jobs, self._per_job = jobs, devices_per_job
        if devices_per_job is not None and devices_per_job > len(gpus):
            raise SegbenchError(
                f"hydra.launcher.devices_per_job={devices_per_job}",
                f"at most the {len(gpus)} GPUs here",
                "lower it, or leave it out where there is no GPU",
            )

    def check(self, trainer: Trainer, name: str) -> None:
        """Refuse a job that cannot run here, whatever else runs.

        Raises:
            SegbenchError: it wants more GPUs than there are, specific GPUs, or several machines.
        """
        if self._wanted(trainer) > len(self._all):
            wanted = f"job {name}: trainer.devices={trainer.devices}"
            raise SegbenchError(wanted, f"at most the {len(self._all)} GPUs here", "lower it")
        if not isinstance(trainer.devices, (int, str)) and self._on_gpu(trainer) and self._jobs > 1:
            raise SegbenchError(
                f"job {name}: trainer.devices={trainer.devices} beside other jobs",
                "a number of devices, which the launcher picks",
                "set trainer.devices=N, or hydra.launcher.jobs=1",
            )
        if trainer.num_nodes > 1:
            raise SegbenchError(
                f"job {name}: trainer.num_nodes={trainer.num_nodes} on one machine",
                "one machine",
                "use hydra.launcher.cluster=slurm, or torchrun without -m",
            )

    def _on_gpu(self, trainer: Trainer) -> bool:
        return bool(self._all) and trainer.accelerator in ("auto", "gpu", "cuda")

    def _wanted(self, trainer: Trainer) -> int:
        if not self._on_gpu(trainer):
            return 0
        if self._per_job is not None:
            return self._per_job
        return len(self._all) if str(trainer.devices) in ("auto", "-1") else trainer.processes_here

    def take(self, trainer: Trainer) -> tuple[str, ...] | None:
        """GPUs for a job, an empty tuple for one on the CPU; None if too few are free."""
        wanted = self._wanted(trainer)
        if wanted > len(self._free):
            return None
        taken, self._free = tuple(self._free[:wanted]), self._free[wanted:]
        return taken

    def give_back(self, gpus: Sequence[str]) -> None:
        """Return GPUs to the pool."""
        self._free = [name for name in self._all if name in (*self._free, *gpus)]

    def environment(self, trainer: Trainer, gpus: Sequence[str]) -> dict[str, str]:
        """Environment variables for a job's process.

        Args:
            trainer: the job's settings.
            gpus: from `take`.
        """
        by_number = not isinstance(trainer.devices, (int, str))
        variables = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus and not by_number else {}
        # A number set by the user applies to every job.
        if self._jobs > 1 and "OMP_NUM_THREADS" not in os.environ:
            variables["OMP_NUM_THREADS"] = str(max(1, self._threads // (1 if gpus else trainer.processes_here)))
        if self._jobs > 1:
            variables[CORES] = str(self._threads)
        return variables
