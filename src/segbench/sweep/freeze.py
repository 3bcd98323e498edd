"""Composing the jobs of a sweep and freezing their configs, before the first of them starts."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segbench.config.composed import resolved
from segbench.config.former import with_former_targets
from segbench.config.record import Config
from segbench.errors import SegbenchError
from segbench.experiment.stages import Stage, compose_stages, directories, prepare_stages
from segbench.runs.directory import Run
from segbench.sweep.directory import Sweep
from segbench.sweep.job import Job, digest_of
from segbench.sweep.settings import Launching

if TYPE_CHECKING:
    from hydra.types import HydraContext
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Composed:
    """A job as Hydra composed it.

    Attributes:
        name: of its directory below the sweep's.
        config: of the task, unresolved.
        hydra: the whole config with Hydra's own part.
        resolved: what it says.
        overrides: from which it was composed.
        stages: what runs before it.
    """

    name: str
    config: DictConfig
    hydra: DictConfig
    resolved: Config
    overrides: list[str]
    stages: tuple[Stage, ...]

    @property
    def digest(self) -> str:
        """What the job is recognised by."""
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
        context: of the Hydra application.
        master: the sweep's config.
        overrides: of the job.
        number: of the job, `${hydra:job.num}`.

    Raises:
        SegbenchError: a value that must be given is not.
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
        asked = Config.of(resolved(task))
        given = [str(override) for override in composed.hydra.overrides.task]
        return Composed(name, task, composed, asked, given, compose_stages(asked, given))
    finally:
        HydraConfig.instance().cfg = outside


def open_sweep(master: DictConfig, settings: Launching) -> Sweep:
    """The sweep of a Hydra application: the one that is in its directory, else a new one; not yet written.

    Raises:
        SegbenchError: one of another version.
    """
    path = Path(str(master.hydra.sweep.dir))
    sweep = Sweep.open(path) if (path / "sweep.yaml").is_file() else Sweep(path, Path.cwd(), settings.record())
    sweep.launcher = settings.record()
    command = ["segbench", "train", *sys.argv[1:]]
    if command not in sweep.commands:
        sweep.commands.append(command)
    return sweep


def freeze_job(
    sweep: Sweep, context: HydraContext, master: DictConfig, overrides: Sequence[str], number: int
) -> tuple[Job, Composed]:
    """The job of a configuration: the one that the sweep has already, else a new one, frozen in its directory.

    Args:
        sweep: gets the job; `sweep.save` is the caller's.
        context: of the Hydra application.
        master: the sweep's config.
        overrides: of the job.
        number: of the job, where its directory is not taken by another.

    Raises:
        SegbenchError: a directory that two jobs would share, or one that cannot be written.
    """
    composed = compose_job(context, master, overrides, number)
    if (known := sweep.find(composed.digest, composed.former_digest)) is not None:
        if known.state() == "missing":
            # Removed by hand, to begin it anew.
            _freeze(known.directory, composed)
            known.seconds = 0.0
        return known, composed
    if _taken(sweep, composed):
        named, composed = composed.name, compose_job(context, master, overrides, _free_number(sweep))
        if composed.name == named or _taken(sweep, composed):
            raise SegbenchError(
                f"hydra.sweep.subdir={composed.name} for two jobs of {sweep.path}",
                "a directory of its own for each job",
                "put ${hydra:job.num} or ${hydra:job.override_dirname} into hydra.sweep.subdir",
            )
    directory = sweep.path / composed.name
    if not (directory / "config.yaml").is_file():
        _freeze(directory, composed)
    environment = {str(key): str(value) for key, value in composed.hydra.hydra.job.env_set.items()}
    job = Job(sweep.path, composed.name, composed.digest, composed.overrides, environment)
    sweep.jobs.append(job)
    return job, composed


def _freeze(directory: Path, composed: Composed) -> None:
    prepare_stages(directory, composed.stages)
    Run.prepare(directory, composed.resolved, composed.overrides)


def frozen_digest(directory: Path) -> str:
    """The digest of what lies in the directory of a run that has not begun; its beginning settles every `auto`."""
    run = Run.open(directory)
    below = [frozen_digest(stage) for stage in directories(Config.of(run.recorded()), directory)]
    return digest_of(run.as_written(), below)


def _taken(sweep: Sweep, composed: Composed) -> bool:
    if any(job.name == composed.name for job in sweep.jobs):
        return True
    directory = sweep.path / composed.name
    if not (directory / "config.yaml").is_file():
        return False
    # A launcher that was killed before it wrote sweep.yaml leaves frozen jobs, which are taken up.
    return Run(directory).state() != "prepared" or frozen_digest(directory) != composed.digest


def _free_number(sweep: Sweep) -> int:
    used = [*(job.name for job in sweep.jobs), *(path.name for path in sweep.path.iterdir() if path.is_dir())]
    return 1 + max((int(name) for name in used if name.isdecimal()), default=-1)


def check_frozen(jobs: Sequence[Job]) -> None:
    """Refuse jobs that have not begun and whose config is not what was frozen when they were launched.

    Raises:
        SegbenchError: one was edited, or is gone.
    """
    for job in jobs:
        if job.run.state() == "prepared" and frozen_digest(job.directory) != job.digest:
            raise SegbenchError(
                f"{job.directory / 'config.yaml'} is not what was frozen at the launch",
                "the configuration of a job as it was launched",
                "restore it; for another configuration launch another job: segbench train -m ...",
            )
