"""Train, then score: `segbench train [overrides]`, `segbench train resume=RUN`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segbench.cli.arguments import pairs
from segbench.cli.entry import boundary, hydra_entry, overrides
from segbench.config.composed import resolved
from segbench.errors import SegbenchError, say
from segbench.experiment.train import train
from segbench.papers.named import name_deviations
from segbench.runtime.processes import is_main_process, started_by
from segbench.tracking.agent import agents_run, directory_of

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run_job(config: DictConfig) -> Path:
    """Run the composed config; returns the run's directory."""
    from hydra.core.hydra_config import HydraConfig

    from segbench.cli.entry import relative
    from segbench.config.record import Config
    from segbench.config.trust import own
    from segbench.experiment.stages import compose_stages, read_stages, trees_of
    from segbench.runs.directory import Run
    from segbench.runtime.ranks import started_again

    directory = relative(Path(HydraConfig.get().runtime.output_dir))
    asked = Config.of(resolved(config, overrides=overrides(), hydra=HydraConfig.get()))
    stages = compose_stages(asked, overrides())
    with own(asked.tree, *trees_of(stages)):
        if started_again() and (directory / "config.yaml").is_file():
            recorded = Run.open(directory).config()
            train(recorded, directory, overrides(), True, read_stages(recorded, directory))
        else:
            train(asked, directory, overrides(), stages=stages)
    return directory


def resumes(arguments: Sequence[str]) -> bool:
    """Whether a command line continues a run."""
    return any(argument.startswith("resume=") and argument != "resume=null" for argument in arguments)


def resume_run(arguments: Sequence[str]) -> Path:
    """Continue a run in place, with its own configuration and without Hydra; returns its directory."""
    from segbench.config.trust import names_in, refuse_handed_over, trusting, typed
    from segbench.experiment.resume import continuation
    from segbench.experiment.stages import read_stages, trees_of
    from segbench.runs.directory import Run

    bare, given = pairs(arguments)
    trusted = names_in(given.pop("trust", None))
    asked = continuation(given | dict.fromkeys(bare, ""))
    if isinstance(asked, str):
        if is_main_process():
            say(asked)
            if not Run(Path(given["resume"])).deviations():
                name_deviations(Path(given["resume"]))
        return Path(given["resume"])
    run, config = asked.run, asked.config
    stages = read_stages(config, run.path)
    with typed("train", arguments), trusting(trusted):
        refuse_handed_over([config.tree, *trees_of(stages)])
        train(config, run.path, list(arguments), True, stages, allow=asked.allow)
    if is_main_process():
        name_deviations(run.path)
    return run.path


def _begun_by_agent(arguments: list[str]) -> Path | None:
    """The directory of a run that W&B's agent resumes; it names the run, and gives its whole configuration.

    Raises:
        SegbenchError: there is none.
    """
    if (identity := agents_run()) is None:
        return None
    given = [word.partition("=")[2] for word in arguments if word.lstrip("-+").startswith("hydra.run.dir=")]
    # Up to what differs from run to run.
    own = [Path(place.partition("${")[0]) for place in given]
    roots = [place if place.is_dir() else place.parent for place in own]
    roots.append(Path(os.environ.get("SEGBENCH_OUTPUTS", "outputs")))
    if (found := directory_of(identity, roots)) is not None:
        return found
    whole = [word for word in arguments if word.lstrip("-+").startswith("trainer={") and "_target_" in word]
    if whole:
        raise SegbenchError(
            f"the agent resumes the run {identity}, which is not in {', '.join(map(str, dict.fromkeys(roots)))}",
            "the directory of that run, with its checkpoints",
            "start the agent where the run began, or set SEGBENCH_OUTPUTS to a folder that all machines share",
        )
    return None


def _trusted_of_agent(arguments: list[str]) -> list[str]:
    """`trust=` with the classes that the agent's command line names: it is the user's own, as it was at the start."""
    from segbench.config.trust import packaged_targets

    found = [name for word in arguments for name in re.findall(r"_target_['\"]?\s*[:=]\s*['\"]?([\w.]+)", word)]
    names = [name for name in dict.fromkeys(found) if name not in packaged_targets()]
    return [f"trust={','.join(names)}"] if names else []


@boundary()
def main() -> None:
    """The entry point; sys.argv holds overrides."""
    from segbench.cli.flags import read_flags
    from segbench.runtime.ranks import name_run

    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    name_run()
    # A run's configuration is read before Hydra starts, so nothing of the new command line can rewrite it.
    arguments = read_flags("train", sys.argv[1:]).overrides
    if (begun := _begun_by_agent(sys.argv[1:])) is not None:
        arguments = [f"resume={begun}", *_trusted_of_agent(arguments)]
    if resumes(arguments):
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
