"""The launcher for `-m`: every job is a separate process, run from its frozen config."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher

from segbench.cli.entry import job
from segbench.errors import SegbenchError

if TYPE_CHECKING:
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

    from segbench.sweep.freeze import Composed
    from segbench.sweep.job import Job
    from segbench.sweep.settings import Launching


class Outcome(JobReturn):
    """Result of a job. A failed one has no value and raises nothing, so the others continue."""

    @property
    def return_value(self) -> Any:
        """The score that jobs are compared by, `optimized_metric`; None if the job has none."""
        return self._return_value


class ProcessLauncher(Launcher):
    """Freezes every job's config in its directory and starts a process for each, several at once.

    Args:
        settings: documented in conf/hydra/launcher/processes.yaml; read from the whole config.
    """

    def __init__(self, **settings: Any) -> None: ...

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep Hydra's context, config and task."""
        self.context, self.config, self.task_function = hydra_context, config, task_function

    @job
    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs that are new to the sweep or were interrupted.

        Args:
            job_overrides: overrides of each job.
            initial_job_idx: number of the first job.
        """
        from segbench.config.trust import own
        from segbench.sweep.freeze import check_frozen, freeze_job, open_sweep
        from segbench.sweep.run import run_jobs, to_run
        from segbench.sweep.summary import exit_code, show

        settings = settings_of(self.config)
        with open_sweep(self.config, settings) as sweep:
            frozen = [
                freeze_job(sweep, self.context, self.config, overrides, initial_job_idx + position)
                for position, overrides in enumerate(job_overrides)
            ]
            sweep.save()
            # Two sets of overrides may give one configuration, which is one job.
            jobs = to_run(sweep, list({job.name: job for job, _ in frozen}.values()), settings)
            check_frozen(jobs)
            with own(*(tree for _, composed in frozen for tree in composed.trees)):
                stopped = run_jobs(sweep, jobs, settings) if jobs else None
            if stopped is not None:
                raise SystemExit(exit_code(sweep, show(sweep), stopped))
            return [_outcome(job, composed, str(sweep.working_directory)) for job, composed in frozen]


def settings_of(config: DictConfig) -> Launching:
    """The launcher's settings, checked.

    Args:
        config: the whole config, Hydra's part included.

    Raises:
        SegbenchError: another launcher is set, a key is unknown, or a value is out of range.
    """
    from omegaconf import OmegaConf

    from segbench.sweep.settings import Launching

    given = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    assert isinstance(given, dict)
    if given.pop("_target_") != f"{ProcessLauncher.__module__}.{ProcessLauncher.__name__}":
        raise SegbenchError(
            f"hydra/launcher={config.hydra.runtime.choices['hydra/launcher']}",
            "the launcher whose jobs can be watched, stopped and resumed",
            "leave out hydra/launcher=, or set hydra/launcher=processes",
        )
    return Launching.read({str(key): value for key, value in given.items()})


def _outcome(job: Job, composed: Composed, working_directory: str) -> JobReturn:
    from hydra.core.utils import JobRuntime

    from segbench.sweep.scores import metric_of, score_of

    metric = metric_of(composed.resolved)
    return Outcome(
        overrides=composed.overrides,
        cfg=composed.config,
        hydra_cfg=composed.hydra,
        working_dir=working_directory,
        task_name=JobRuntime.instance().get("name"),
        status=JobStatus.COMPLETED if job.state() == "finished" else JobStatus.FAILED,
        _return_value=None if metric is None else score_of(job.run, metric),
    )


class SweepSummary(Callback):
    """Prints the table when a sweep ends; the command fails if a job has failed."""

    @job
    def on_multirun_end(self, config: DictConfig, **arguments: Any) -> None:
        """Called by Hydra after the last job; by Hydra 1.4 also while an error passes, which is told instead."""
        if sys.exc_info()[0] is not None:
            return
        from segbench.sweep.directory import Sweep
        from segbench.sweep.summary import exit_code, show

        sweep = Sweep.open(str(config.hydra.sweep.dir))
        if code := exit_code(sweep, show(sweep)):
            raise SystemExit(code)
