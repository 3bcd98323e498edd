"""Compose the jobs of a sweep and freeze their configs before the first one starts."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.config.composed import resolved
from segbench.config.former import with_former_targets
from segbench.config.record import Config
from segbench.errors import SegbenchError
from segbench.experiment.stages import Stage, compose_stages, directories, prepare_stages, trees_of
from segbench.runs.directory import Run
from segbench.sweep.directory import Sweep
from segbench.sweep.job import Job, check_name, digest_of
from segbench.sweep.settings import Launching

if TYPE_CHECKING:
    from hydra.types import HydraContext
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Composed:
    """A job as Hydra composed it.

    Attributes:
        name: its directory below the sweep's.
        config: the task's config, unresolved.
        hydra: the whole config, Hydra's part included.
        resolved: the task's config, resolved.
        overrides: those it was composed from.
        stages: those that run before it.
    """

    name: str
    config: DictConfig
    hydra: DictConfig
    resolved: Config
    overrides: list[str]
    stages: tuple[Stage, ...]

    @property
    def trees(self) -> list[dict[str, Any]]:
        """The configs of the job and of its stages, as plain containers."""
        return [self.resolved.tree, *trees_of(self.stages)]

    @property
    def digest(self) -> str:
        """Identifies the job."""
        return digest_of(self.resolved.tree, [_digest(stage) for stage in self.stages])

    @property
    def former_digest(self) -> str:
        """What version 0.1.0 recognised it by."""
        former = [_digest(stage, former=True) for stage in self.stages]
        return digest_of(with_former_targets(self.resolved.tree), former)


def _digest(stage: Stage, former: bool = False) -> str:
    tree = with_former_targets(stage.config.tree) if former else stage.config.tree
    return digest_of(tree, [_digest(before, former) for before in stage.stages])


def compose_job(context: HydraContext, master: DictConfig, overrides: Sequence[str], number: int) -> Composed:
    """Compose one job, as Hydra's own launcher does.

    Args:
        context: the Hydra application's.
        master: the sweep's config.
        overrides: the job's.
        number: the job's, `${hydra:job.num}`.

    Raises:
        SegbenchError: a mandatory value is missing.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf, open_dict, read_write

    composed = context.config_loader.load_sweep_config(master, list(overrides))
    with open_dict(composed):
        composed.hydra.job.id = composed.hydra.job.num = number
    outside = HydraConfig.instance().cfg
    try:
        HydraConfig.instance().set_config(composed)
        name = str(OmegaConf.select(composed, "hydra.sweep.subdir"))
        with read_write(composed.hydra.runtime), open_dict(composed.hydra.runtime):
            composed.hydra.runtime.output_dir = os.path.abspath(os.path.join(str(master.hydra.sweep.dir), name))
        task = copy.deepcopy(composed)
        with read_write(task), open_dict(task):
            del task["hydra"]
        given = [str(override) for override in composed.hydra.overrides.task]
        asked = Config.of(resolved(task, overrides=given, hydra=composed.hydra))
        return Composed(name, task, composed, asked, given, compose_stages(asked, given))
    finally:
        HydraConfig.instance().cfg = outside


def open_sweep(master: DictConfig, settings: Launching) -> Sweep:
    """Open the sweep in the application's directory, or make a new one, not yet written.

    Raises:
        SegbenchError: it was written by another version.
    """
    path = Path(str(master.hydra.sweep.dir))
    sweep = Sweep.open(path) if (path / "sweep.yaml").is_file() else Sweep(path, Path.cwd(), settings.record())
    sweep.launcher, sweep.working_directory = settings.record(), Path.cwd()
    command = ["segbench", "train", *sys.argv[1:]]
    if command not in sweep.commands:
        sweep.commands.append(command)
    return sweep


def freeze_job(
    sweep: Sweep, context: HydraContext, master: DictConfig, overrides: Sequence[str], number: int
) -> tuple[Job, Composed]:
    """Find the job of a configuration in the sweep, or freeze a new one in its directory.

    Args:
        sweep: gets the job; the caller calls `sweep.save`.
        context: this and the others as in `place_job`.
        master: the sweep's config.
        overrides: the job's.
        number: the job's.

    Raises:
        SegbenchError: two jobs would share a directory, or it cannot be written.
    """
    job, composed = place_job(sweep, context, master, overrides, number)
    # New, or its directory was removed by hand, to start it again.
    if job.state() == "missing":
        _freeze(job.directory, composed)
        job.seconds = 0.0
    return job, composed


def place_job(
    sweep: Sweep, context: HydraContext, master: DictConfig, overrides: Sequence[str], number: int
) -> tuple[Job, Composed]:
    """Find the job of a configuration in the sweep, or add a new one to it; nothing is written.

    Args:
        sweep: gets the job.
        context: the Hydra application's.
        master: the sweep's config.
        overrides: the job's.
        number: the job's, unless another job has that directory.

    Raises:
        SegbenchError: two jobs would share a directory.
    """
    composed = compose_job(context, master, overrides, number)
    check_name(composed.name, "hydra.sweep.subdir")
    environment = {str(key): str(value) for key, value in composed.hydra.hydra.job.env_set.items()}
    if (known := sweep.find(composed.digest, composed.former_digest)) is not None:
        # Of this launch, not of the sweep's file.
        known.environment = environment
        return known, composed
    if _taken(sweep, composed):
        named, composed = composed.name, compose_job(context, master, overrides, _free_number(sweep))
        if composed.name == named or _taken(sweep, composed):
            raise SegbenchError(
                f"hydra.sweep.subdir={composed.name} for two jobs of {sweep.path}",
                "a separate directory for each job",
                "put ${hydra:job.num} or ${hydra:job.override_dirname} into hydra.sweep.subdir",
            )
    job = Job(sweep.path, composed.name, composed.digest, composed.overrides, environment)
    sweep.jobs.append(job)
    return job, composed


def _freeze(directory: Path, composed: Composed) -> None:
    prepare_stages(directory, composed.stages)
    Run.prepare(directory, composed.resolved, composed.overrides)


def frozen_digest(directory: Path) -> str:
    """The digest of a prepared run's directory; once it begins, every `auto` is settled and the digest changes."""
    run = Run.open(directory)
    below = [frozen_digest(stage) for stage in directories(Config.of(run.recorded()), directory)]
    return digest_of(run.as_written(), below)


def _taken(sweep: Sweep, composed: Composed) -> bool:
    if any(job.name == composed.name for job in sweep.jobs):
        return True
    directory = sweep.path / composed.name
    if not (directory / "config.yaml").is_file():
        return False
    # A launcher killed before it wrote sweep.yaml leaves frozen jobs, which are adopted.
    return Run(directory).state() != "prepared" or frozen_digest(directory) != composed.digest


def _free_number(sweep: Sweep) -> int:
    used = [*(job.name for job in sweep.jobs), *(path.name for path in sweep.path.glob("*/"))]
    return 1 + max((int(name) for name in used if name.isdecimal()), default=-1)


def check_frozen(jobs: Sequence[Job]) -> None:
    """Refuse prepared jobs whose config has changed since the launch.

    Raises:
        SegbenchError: a config was edited or is missing.
    """
    for job in jobs:
        if job.run.state() == "prepared" and frozen_digest(job.directory) != job.digest:
            raise SegbenchError(
                f"{job.directory / 'config.yaml'} differs from the config frozen at launch",
                "the job's config as launched",
                "restore it; to run another config, launch another job: segbench train -m ...",
            )
