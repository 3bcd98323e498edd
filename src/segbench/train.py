"""Train, then score: `segbench train [overrides]`, `segbench train resume=RUN`, `python -m segbench.train`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.entry import fail, hydra_entry, job, overrides, plain
from segbench.errors import SegbenchError
from segbench.processes import started_by
from segbench.stages import FOLDER
from segbench.stopping import deferred

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from segbench.build import Experiment
    from segbench.runs import Run
    from segbench.stages import Stage

log = logging.getLogger(__name__)


def train(
    config: dict[str, Any],
    directory: Path,
    given: list[str],
    resume: bool = False,
    stages: Sequence[Stage] = (),
    allow: Sequence[str] = (),
) -> dict[str, float]:
    """Run one experiment in a new directory, or continue one in its own.

    Args:
        config: resolved, plain containers.
        directory: the run's own.
        given: the command line's overrides, for the record.
        resume: `directory` holds a run already: continue from its last checkpoint, or begin where it has none.
        stages: runs that come before this one, in their order, below `directory`.
        allow: what may differ from the run's beginning, of `segbench.resume.ALLOWABLE`.

    Returns:
        the scores that go into results.json.

    Raises:
        Stopped: by a signal, with a checkpoint.
    """
    from segbench.entry import is_main_process
    from segbench.hardware import machine, resolve_hardware
    from segbench.provenance import provenance
    from segbench.ranks import further_ranks
    from segbench.resume import arguments_of
    from segbench.running import running
    from segbench.runs import Run
    from segbench.stages import prepare_stages

    if not config["callbacks"].get("checkpoint"):
        raise SegbenchError(
            "callbacks.checkpoint=null",
            "checkpoints, from which a run is scored",
            "leave callbacks.checkpoint as it is",
        )
    first = is_main_process()
    said = resolve_hardware(config)
    run = Run.create(directory, config, given) if first and not resume else Run(directory)
    if first and resume:
        run.lock()
        if run.state() == "prepared":
            run.begin(config)
    with running(run):
        if first:
            for sentence in said:
                log.info("%s", sentence)
            _record_machine(run, provenance() | machine(config))
            if not resume:
                prepare_stages(directory, stages)
        with further_ranks("train", run, config["trainer"], arguments_of(config, allow)):
            _run_stages(config, run, stages, allow)
            return _run_experiment(config, run, resume, allow)


def _record_machine(run: Run, now: dict[str, Any]) -> None:
    from segbench.resume import other_machine

    began = run.provenance() if (run.path / "provenance.json").is_file() else {}
    if differences := other_machine(began, now):
        log.warning("not bit for bit the run it would have been: %s", "; ".join(differences))
    run.write_provenance(now)


def _run_experiment(config: dict[str, Any], run: Run, resume: bool, allow: Sequence[str]) -> dict[str, float]:
    from segbench.build import build_experiment
    from segbench.callbacks.wandb_run import wandb_ending
    from segbench.entry import is_main_process
    from segbench.initialise import initialise
    from segbench.resume import choose_checkpoint, split_ids
    from segbench.stages import start_of

    first = is_main_process()
    checkpoint, faults = choose_checkpoint(run, first) if resume else (None, [])
    for fault in faults:
        log.warning("%s", fault)
    experiment = build_experiment(config, run.path)
    with wandb_ending(experiment.trainer.loggers):
        if checkpoint is not None:
            _refuse_another_run(run, experiment, checkpoint, allow)
        if first:
            run.write_dataset(experiment.data.spec.to_dict())
            run.write_splits(split_ids(experiment.dataset))
        if checkpoint is None:
            begun = config | {"init_from": start_of(config, run.path)}
            for report in initialise(experiment.task.model, begun, experiment.dataset.spec.modalities):
                log.info("%s", report)
        return _fit_and_test(config, run, experiment, first, checkpoint)


def _refuse_another_run(run: Run, experiment: Experiment, checkpoint: Path, allow: Sequence[str]) -> None:
    from segbench.checkpoint import read_checkpoint
    from segbench.resume import refuse_other_data, refuse_other_model

    saved = read_checkpoint(checkpoint)["state_dict"]
    data = refuse_other_data(run, experiment.dataset, allow)
    model = refuse_other_model(run, saved, experiment.task.state_dict(), allow)
    experiment.task.takes_what_fits = bool(model)
    for difference in (*data, *model):
        log.warning("resume_allow: %s", difference)


def _run_stages(config: dict[str, Any], run: Run, stages: Sequence[Stage], allow: Sequence[str]) -> None:
    from segbench.runs import Run
    from segbench.stages import start_of

    for number, stage in enumerate(stages):
        before = Run(run.path / FOLDER / stage.experiment)
        if before.state() == "finished":
            log.info("stage %d of %d, %s: finished", number + 1, len(stages) + 1, stage.experiment)
            continue
        log.info("stage %d of %d: %s in %s", number + 1, len(stages) + 1, stage.experiment, before.path)
        own = stage.config if stage.stages else stage.config | {"init_from": start_of(config, run.path, number)}
        devices = {"devices": config["trainer"]["devices"]}
        train(own | {"trainer": own["trainer"] | devices}, before.path, stage.overrides, True, stage.stages, allow)
    if stages:
        log.info("stage %d of %d: %s in %s", len(stages) + 1, len(stages) + 1, config["name"], run.path)


def _fit_and_test(
    config: dict[str, Any], run: Run, experiment: Experiment, first: bool, checkpoint: Path | None
) -> dict[str, float]:
    from segbench.callbacks.checkpoints import Checkpoints
    from segbench.checkpoint import load_weights
    from segbench.evaluate import score_split, task_protocol
    from segbench.predict import evaluating, write_split
    from segbench.tables import print_results

    trainer, task, data = experiment.trainer, experiment.task, experiment.data
    with deferred():
        trainer.fit(task, data, ckpt_path=checkpoint, weights_only=True)
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    checkpoints = next(callback for callback in callbacks if isinstance(callback, Checkpoints))
    timing = {"fit_s": checkpoints.seconds, "steps": float(trainer.global_step)}
    scores = dict(task.scores.get("val", {}))
    if experiment.dataset.split("test") is None:
        split, selected = "val" if scores else "none", "last"
    else:
        split, chosen = "test", run.checkpoint()
        selected = chosen.stem
        scored = score_split(run, trainer, task, data, split, chosen, first)
        # The last validation says nothing of an earlier checkpoint.
        scores = scored.scores if selected == "best" else scores | scored.scores
        timing |= scored.timing
    if first and (unlabelled := experiment.dataset.split("predict")) is not None:
        load_weights(task.model, run.checkpoint(selected))
        with evaluating(task, config["trainer"]):
            write_split(task, unlabelled, run.path / "predictions")
    if first:
        protocol = task_protocol(config, data, task, selected)
        run.write_results(scores, timing, run.provenance(), protocol)
        print_results(config, run.path, scores, split, protocol, timing)
    return scores


@job
def run_job(config: DictConfig) -> None:
    """What Hydra calls with the composed config."""
    from hydra.core.hydra_config import HydraConfig

    from segbench.entry import relative
    from segbench.ranks import started_again
    from segbench.runs import Run
    from segbench.stages import compose_stages, read_stages

    directory = relative(Path(HydraConfig.get().runtime.output_dir))
    if started_again() and (directory / "config.yaml").is_file():
        run = Run.open(directory)
        train(run.config(), directory, overrides(), True, read_stages(run.config(), directory))
        return
    resolved = plain(config)
    train(resolved, directory, overrides(), stages=compose_stages(resolved, overrides()))


def resume_run(arguments: list[str]) -> None:
    """Continue a run in place, with its own configuration; Hydra has no part in it."""
    from segbench.entry import is_main_process
    from segbench.resume import changed
    from segbench.runs import Run
    from segbench.stages import read_stages

    try:
        run = Run.open(next(argument for argument in arguments if argument.startswith("resume=")).split("=", 1)[1])
        config, allow = changed(run.config(), arguments)
        if run.state() == "finished" and config == run.config():
            if is_main_process():
                print(f"{run.path} is finished; trainer.max_steps=N (or trainer.max_epochs=N) continues it")
            return
        if run.state() == "finished" and not run.latest():
            run.checkpoint("last")
        train(config, run.path, arguments, True, read_stages(config, run.path), allow)
    except SegbenchError as error:
        fail(error)


def main() -> None:
    """The entry point; sys.argv holds overrides."""
    from segbench.ranks import name_run

    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    name_run()
    # A run's configuration is read before Hydra starts, so nothing of the new command line can rewrite it.
    if any(argument.startswith("resume=") and argument != "resume=null" for argument in sys.argv[1:]):
        resume_run(sys.argv[1:])
        return
    if (starter := started_by()) in ("torchrun", "srun") and {"-m", "--multirun"} & {*sys.argv[1:]}:
        fail(
            SegbenchError(
                f"a sweep (-m) on processes that {starter} started",
                "one process, which starts those of its jobs",
                "leave torchrun or srun away: segbench train -m trainer=ddp trainer.devices=N, or "
                "hydra.launcher.cluster=slurm",
            )
        )
    hydra_entry(run_job, "train")


if __name__ == "__main__":
    main()
