"""The sweeper `hydra/sweeper=optuna`: trials are jobs of the process launcher, several at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.plugins.sweeper import Sweeper

from hydra_plugins.segbench.launcher import settings_of
from segbench.cli.entry import job
from segbench.errors import SegbenchError, say

if TYPE_CHECKING:
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

    from segbench.config.record import Components
    from segbench.sweep.job import Job
    from segbench.sweep.search import Searching
    from segbench.sweep.settings import Launching
    from segbench.sweep.space import Space


class OptunaSweeper(Sweeper):
    """Searches with an Optuna study in the sweep's directory.

    Args:
        settings: `segbench.sweep.search.Searching`, documented in conf/hydra/sweeper/optuna.yaml.
    """

    def __init__(self, **settings: Any) -> None:
        self.given = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep Hydra's context and config."""
        self.hydra_context, self.config = hydra_context, config

    @job
    def sweep(self, arguments: list[str]) -> None:
        """Run the search.

        Args:
            arguments: overrides; those with several values are the search space.
        """
        from segbench.config.trust import own
        from segbench.sweep.freeze import freeze_job, open_sweep
        from segbench.sweep.run import machine_of, run_work
        from segbench.sweep.search import Search, answering, counts, open_study
        from segbench.sweep.summary import exit_code, show

        context, config = self.hydra_context, self.config
        assert context is not None and config is not None
        settings, launching, space, base, search = self._asked(arguments)
        with open_sweep(config, launching) as sweep:
            study = open_study(sweep.path, settings, search["direction"])
            sweep.begin_search(search, base)

            def freeze(overrides: Sequence[str], number: int) -> Job:
                job, composed = freeze_job(sweep, context, config, overrides, number)
                machine.check(job.name, composed.resolved)
                return job

            # Every trial composes the same choices of classes; those that are searched stand in the space.
            with answering(sweep.path, settings), own(base, [_targets(space)]):
                trials = Search(study, space, sweep, freeze, search["metric"], settings.n_trials)
                sweep.save()
                left = trials.left()
                machine = machine_of(sweep, launching, left)
                stopped = run_work(sweep, machine, trials, launching, left) if left else None
                sweep.save()
                say(counts(study))
            if stopped is not None:
                raise SystemExit(exit_code(sweep, show(sweep), stopped))

    @job
    def show(self, arguments: list[str]) -> None:
        """Print the space, and the trials whose values depend on no score.

        Args:
            arguments: as of `sweep`.
        """
        from segbench.sweep.directory import Sweep
        from segbench.sweep.job import counted
        from segbench.sweep.plan import show_plan
        from segbench.sweep.search import first_trials

        assert self.hydra_context is not None and self.config is not None
        settings, launching, space, base, search = self._asked(arguments)
        say(f"search by {search['metric']} ({search['direction']}), {counted(settings.n_trials, 'trial')}, over")
        for text in space.texts.values():
            say(f"  {text}")
        for group in search["zip"]:
            say(f"  together: {', '.join(group)}")
        path = Path(str(self.config.hydra.sweep.dir))
        if (path / "sweep.yaml").is_file():
            sweep = Sweep.open(path)
            sweep.begin_search(search, base)
            say(f"{path} has {counted(len(sweep.jobs))} already: the values of further trials depend on their scores")
            return
        first = first_trials(settings, space) if settings.storage is None else []
        if settings.n_trials > len(first):
            known = f"the values of the first {len(first)} are known; those of the others" if first else "their values"
            say(f"{known} depend on the scores before them")
        show_plan(self.hydra_context, self.config, launching, first)

    def _asked(self, arguments: list[str]) -> tuple[Searching, Launching, Space, dict[str, Any], dict[str, Any]]:
        """The search's settings, the launcher's, the space, the shared configuration, and what is recorded of all."""
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from segbench.sweep.grid import parsed, read_zip
        from segbench.sweep.objective import objective_of
        from segbench.sweep.run import waits
        from segbench.sweep.search import Searching
        from segbench.sweep.space import search_space

        assert self.hydra_context is not None and self.config is not None
        settings, launching = Searching.read(self.given), settings_of(self.config)
        if not waits(launching):
            raise SegbenchError(
                "a search whose launcher exits after submitting the jobs",
                "a launcher that waits for the result of each trial",
                "set hydra.launcher.slurm.wait=true",
            )
        groups = read_zip(settings.zip)
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        space = search_space(parsed(parser, settings.params, arguments), groups)
        base = self._base(space)
        metric, direction = objective_of(*_compared_by(base), settings.direction)
        search = {"metric": metric, "direction": direction, "space": space.texts, "storage": settings.storage}
        return settings, launching, space, base, {**search, "zip": [list(group) for group in groups]}

    def _base(self, space: Space) -> dict[str, Any]:
        """The configuration that all trials share; searched keys have their defaults."""
        from omegaconf import OmegaConf, open_dict

        assert self.hydra_context is not None and self.config is not None
        composed = self.hydra_context.config_loader.load_sweep_config(self.config, space.fixed)
        with open_dict(composed):
            composed.pop("hydra")
        # Unresolved: searched keys may have no default.
        container = OmegaConf.to_container(composed, resolve=False)
        assert isinstance(container, dict)
        return {str(key): value for key, value in container.items()}


def _targets(space: Space) -> list[dict[str, str]]:
    """The classes that a search chooses among, as nodes."""
    words = [word for key, text in space.texts.items() if key.endswith("_target_") for word in re.split(r"[(),]", text)]
    return [{"_target_": word.strip("'\" ")} for word in words]


def _compared_by(base: Mapping[str, Any]) -> tuple[str | None, Components]:
    """The score that trials are compared by, and the metrics, from an unresolved configuration."""
    from segbench.config.record import Component

    monitor = ((base.get("callbacks") or {}).get("checkpoint") or {}).get("monitor")
    metrics = (base.get("metrics") or {}).items()
    known = {str(name): None if metric is None else Component.model_validate(metric) for name, metric in metrics}
    return base.get("optimized_metric") or monitor, known
