"""Train, then score: `segbench train [overrides]`, `segbench train resume=RUN`, `python -m segbench.train`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.errors import SegbenchError
from segbench.experiment.stages import FOLDER
from segbench.runtime.signals import deferred

if TYPE_CHECKING:
    from segbench.experiment.build import Experiment
    from segbench.experiment.stages import Stage
    from segbench.runs.directory import Run

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
        allow: what may differ from the run's beginning, of `segbench.experiment.resume.ALLOWABLE`.

    Returns:
        the scores that go into results.json.

    Raises:
        Stopped: by a signal, with a checkpoint.
    """
    from segbench.experiment.resume import arguments_of
    from segbench.experiment.stages import prepare_stages
    from segbench.runs.directory import Run
    from segbench.runs.provenance import provenance
    from segbench.runs.running import running
    from segbench.runtime.hardware import machine, resolve_hardware
    from segbench.runtime.processes import is_main_process
    from segbench.runtime.ranks import further_ranks

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
    from segbench.experiment.resume import other_machine

    began = run.provenance() if (run.path / "provenance.json").is_file() else {}
    if differences := other_machine(began, now):
        log.warning("not bit for bit the run it would have been: %s", "; ".join(differences))
    run.write_provenance(now)


def _run_experiment(config: dict[str, Any], run: Run, resume: bool, allow: Sequence[str]) -> dict[str, float]:
    from segbench.experiment.build import build_experiment
    from segbench.experiment.initialise import initialise
    from segbench.experiment.resume import choose_checkpoint, split_ids
    from segbench.experiment.stages import start_of
    from segbench.runtime.processes import is_main_process
    from segbench.tracking.wandb_run import wandb_ending

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
    from segbench.experiment.resume import refuse_other_data, refuse_other_model
    from segbench.training.checkpoint import read_checkpoint

    saved = read_checkpoint(checkpoint)["state_dict"]
    data = refuse_other_data(run, experiment.dataset, allow)
    model = refuse_other_model(run, saved, experiment.task.state_dict(), allow)
    experiment.task.takes_what_fits = bool(model)
    for difference in (*data, *model):
        log.warning("resume_allow: %s", difference)


def _run_stages(config: dict[str, Any], run: Run, stages: Sequence[Stage], allow: Sequence[str]) -> None:
    from segbench.experiment.stages import start_of
    from segbench.runs.directory import Run

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
    from segbench.display.tables import print_results
    from segbench.experiment.evaluate import score_split, task_protocol
    from segbench.experiment.predict import evaluating, write_split
    from segbench.training.callbacks.checkpoints import Checkpoints
    from segbench.training.checkpoint import load_weights

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
