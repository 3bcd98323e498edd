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
from segbench.runtime.processes import started_by

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run_job(config: DictConfig) -> None:
    """What Hydra calls with the composed config."""
    from hydra.core.hydra_config import HydraConfig

    from segbench.cli.entry import relative
    from segbench.config.record import Config
    from segbench.config.trust import own
    from segbench.experiment.stages import compose_stages, read_stages, trees_of
    from segbench.runs.directory import Run
    from segbench.runtime.ranks import started_again

    directory = relative(Path(HydraConfig.get().runtime.output_dir))
    asked = Config.of(resolved(config, overrides=overrides()))
    stages = compose_stages(asked, overrides())
    with own(asked.tree, *trees_of(stages)):
        if started_again() and (directory / "config.yaml").is_file():
            recorded = Run.open(directory).config()
            train(recorded, directory, overrides(), True, read_stages(recorded, directory))
        else:
            train(asked, directory, overrides(), stages=stages)


def resume_run(arguments: list[str]) -> None:
    """Continue a run in place, with its own configuration and without Hydra."""
    from segbench.config.trust import command_line, names_in, refuse_untrusted, trusting
    from segbench.experiment.resume import continuation
    from segbench.experiment.stages import read_stages, trees_of
    from segbench.runtime.processes import is_main_process

    bare, given = pairs(arguments)
    trusted = names_in(given.pop("trust", None))
    asked = continuation(given | dict.fromkeys(bare, ""))
    if isinstance(asked, str):
        if is_main_process():
            print(asked)
        return
    run, config = asked.run, asked.config
    stages = read_stages(config, run.path)
    with trusting(trusted):
        refuse_untrusted([config.tree, *trees_of(stages)], command_line("train", arguments))
        train(config, run.path, arguments, True, stages, allow=asked.allow)


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
    hydra_entry(run_job, "train")
