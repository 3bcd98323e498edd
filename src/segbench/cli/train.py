"""Train, then score: `segbench train [overrides]`, `segbench train resume=RUN`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from segbench.cli.arguments import pairs
from segbench.cli.entry import boundary, hydra_entry, overrides
from segbench.config.composed import resolved
from segbench.errors import SegbenchError
from segbench.experiment.train import train
from segbench.papers.named import name_deviations
from segbench.runtime.processes import is_main_process, started_by

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run_job(config: DictConfig) -> Path:
    """Run the composed config; returns the run's directory."""
    from hydra.core.hydra_config import HydraConfig

    from segbench.cli.entry import relative
    from segbench.config.record import Config
    from segbench.experiment.stages import compose_stages, read_stages
    from segbench.runs.directory import Run
    from segbench.runtime.ranks import started_again

    directory = relative(Path(HydraConfig.get().runtime.output_dir))
    if started_again() and (directory / "config.yaml").is_file():
        run = Run.open(directory)
        recorded = run.config()
        train(recorded, directory, overrides(), True, read_stages(recorded, directory))
        return directory
    asked = Config.of(resolved(config))
    train(asked, directory, overrides(), stages=compose_stages(asked, overrides()))
    return directory


def resume_run(arguments: list[str]) -> None:
    """Continue a run in place, with its own configuration and without Hydra."""
    from segbench.experiment.resume import continuation
    from segbench.experiment.stages import read_stages
    from segbench.runs.directory import Run

    bare, given = pairs(arguments)
    asked = continuation(given | dict.fromkeys(bare, ""))
    if isinstance(asked, str):
        if is_main_process():
            print(asked)
            if not Run(Path(given["resume"])).deviations():
                name_deviations(Path(given["resume"]))
        return
    run, config = asked.run, asked.config
    train(config, run.path, arguments, True, read_stages(config, run.path), allow=asked.allow)
    if is_main_process():
        name_deviations(run.path)


@boundary()
def main() -> None:
    """The entry point; sys.argv holds overrides."""
    from segbench.cli.flags import read_flags
    from segbench.runtime.ranks import name_run

    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    name_run()
    # A run's configuration is read before Hydra starts, so nothing of the new command line can rewrite it.
    arguments = read_flags("train", sys.argv[1:]).overrides
    if any(argument.startswith("resume=") and argument != "resume=null" for argument in arguments):
        resume_run(arguments)
        return
    if (starter := started_by()) in ("torchrun", "srun") and {"-m", "--multirun"} & {*sys.argv[1:]}:
        raise SegbenchError(
            f"a sweep (-m) on processes that {starter} started",
            "one process, which starts those of its jobs",
            "leave out torchrun or srun: segbench train -m trainer=ddp trainer.devices=N, or "
            "hydra.launcher.cluster=slurm",
        )
    done: list[Path] = []
    hydra_entry(lambda config: done.append(run_job(config)), "train")
    # Hydra has ended: the paper's own experiment is composed from the packaged configs alone.
    for directory in done if is_main_process() else ():
        name_deviations(directory)
