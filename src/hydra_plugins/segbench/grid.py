"""The default sweeper: a job for every combination of values; keys of `hydra.sweeper.zip` go together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.plugins.sweeper import Sweeper

from hydra_plugins.segbench.launcher import settings_of
from segbench.cli.entry import job
from segbench.errors import SegbenchError
from segbench.runtime.files import write_whole

if TYPE_CHECKING:
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig


class GridSweeper(Sweeper):
    """Launches every combination.

    Args:
        zip: keys whose values go together; this and the others are documented in conf/hydra/sweeper/grid.yaml.
        max_batch_size: jobs launched together.
        params: values kept in a file.
    """

    def __init__(self, zip: Any = None, max_batch_size: int | None = None, params: Any = None) -> None:
        self.zip, self.max_batch_size, self.params = zip, max_batch_size, params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep Hydra's context, config and task."""
        self.hydra_context, self.config, self.task_function = hydra_context, config, task_function

    @job
    def sweep(self, arguments: list[str]) -> list[Any]:
        """Launch the jobs, batch by batch; returns what the launcher does of each batch.

        Args:
            arguments: overrides, some with several values.
        """
        from hydra.core.plugins import Plugins
        from omegaconf import OmegaConf

        jobs = self._jobs(arguments)
        assert self.hydra_context is not None and self.config is not None
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=self.task_function, config=self.config
        )
        directory = Path(str(self.config.hydra.sweep.dir))
        directory.mkdir(parents=True, exist_ok=True)
        # As Hydra's own sweeper leaves it there.
        write_whole(directory / "multirun.yaml", OmegaConf.to_yaml(self.config))
        done, size = [], self.max_batch_size or len(jobs)
        for first in range(0, len(jobs), size):
            batch = jobs[first : first + size]
            # Every job is composed once before anything is written for one of them.
            self.validate_batch_is_legal(batch)
            results = launcher.launch(batch, initial_job_idx=first)
            for result in results:
                # Raises what the job did, if it ran in this process.
                _ = result.return_value
            done.append(results)
        return done

    @job
    def show(self, arguments: list[str]) -> None:
        """Print what `sweep` would launch.

        Args:
            arguments: as of `sweep`.
        """
        from segbench.sweep.plan import show_plan

        assert self.hydra_context is not None and self.config is not None
        show_plan(self.hydra_context, self.config, settings_of(self.config), self._jobs(arguments))

    def _jobs(self, arguments: list[str]) -> list[list[str]]:
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from segbench.sweep.grid import combinations, parsed, read_zip

        assert self.hydra_context is not None
        size = self.max_batch_size
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise SegbenchError(
                f"hydra.sweeper.max_batch_size={size}",
                "a number of jobs, at least 1, or null",
                "correct hydra.sweeper.max_batch_size=",
            )
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        return combinations(parsed(parser, self.params, arguments), read_zip(self.zip))
