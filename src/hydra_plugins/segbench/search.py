"""The sweeper `hydra/sweeper=optuna`: trials are jobs of the process launcher, several at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.plugins.sweeper import Sweeper

from hydra_plugins.segbench.launcher import settings_of
from segbench.cli.entry import job
from segbench.errors import SegbenchError

if TYPE_CHECKING:
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

    from segbench.config.record import Components
    from segbench.sweep.job import Job
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
        from segbench.sweep.objective import objective_of
        from segbench.sweep.run import machine_of, run_work, waits
        from segbench.sweep.search import Search, Searching, answering, counts, open_study
        from segbench.sweep.summary import exit_code, show

        context, config = self.hydra_context, self.config
        assert context is not None and config is not None
        settings, launching = Searching.read(self.given), settings_of(config)
        if not waits(launching):
            raise SegbenchError(
                "a search whose launcher exits after submitting the jobs",
                "a launcher that waits for the result of each trial",
                "set hydra.launcher.slurm.wait=true",
            )
        space = self._space(settings.params or {}, arguments)
        base = self._base(space)
        metric, direction = objective_of(*_compared_by(base), settings.direction)
        with open_sweep(config, launching) as sweep:
            study = open_study(sweep.path, settings, direction)
            sweep.begin_search(
                {"metric": metric, "direction": direction, "space": space.texts, "storage": settings.storage}, base
            )

            def freeze(overrides: Sequence[str], number: int) -> Job:
                job, composed = freeze_job(sweep, context, config, overrides, number)
                machine.check(job.name, composed.resolved)
                return job

            # Every trial composes the same choices of classes; those that are searched stand in the space.
            with answering(sweep.path, settings), own(base, [_targets(space)]):
                search = Search(study, space, sweep, freeze, metric, settings.n_trials)
                sweep.save()
                left = search.left()
                machine = machine_of(sweep, launching, left)
                stopped = run_work(sweep, machine, search, launching, left) if left else None
                sweep.save()
                print(counts(study))
            if stopped is not None:
                raise SystemExit(exit_code(sweep, show(sweep), stopped))

    def _space(self, params: Any, arguments: Sequence[str]) -> Space:
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from segbench.sweep.space import search_space

        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        given = parser.parse_overrides(list(arguments))
        keys = {override.get_key_element() for override in given}
        kept = [f"{key}={value}" for key, value in params.items() if key not in keys]
        return search_space([*parser.parse_overrides(kept), *given])

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
