"""Train, then score: `segbench train [overrides]`, `segbench train resume=RUN`, `python -m segbench.train`."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.config.flat import differences, flatten
from segbench.config.places import DATA
from segbench.errors import SegbenchError, as_typed
from segbench.experiment.resume import how_it_ended
from segbench.experiment.stages import FOLDER
from segbench.experiment.unchanged import other_machine
from segbench.runs.history import Leg, continuations
from segbench.runtime.frameworks import import_frameworks
from segbench.runtime.signals import Stopped, deferred

if TYPE_CHECKING:
    from segbench.config.record import Config
    from segbench.data.datamodule import SegmentationData
    from segbench.data.raw import DataSet
    from segbench.experiment.build import Experiment
    from segbench.experiment.stages import Stage
    from segbench.runs.directory import Run
    from segbench.runs.partial import Partial
    from segbench.tracking.tracker import Tracker
    from segbench.training.task import SegmentationTask

log = logging.getLogger(__name__)

OF_EVALUATIONS = ("input_scale", "match_histogram", "ensemble")
"""Options of `segbench evaluate`, `segbench predict` and `load` that a training refuses."""


def train(
    config: Config,
    directory: Path,
    given: list[str],
    resume: bool = False,
    stages: Sequence[Stage] = (),
    allow: Sequence[str] = (),
) -> dict[str, float]:
    """Run one experiment in a new directory, or continue one in its own.

    Args:
        config: of the run; for a continued run its effective configuration, changes included.
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
    import_frameworks()
    from segbench.experiment.axes import packages_of_network, settle_network
    from segbench.experiment.build import build_dataset, refuse_misfits_of
    from segbench.experiment.settled_by_data import asks_data, settle_by_data
    from segbench.experiment.stages import prepare_stages
    from segbench.runs.directory import Run
    from segbench.runs.provenance import provenance
    from segbench.runs.running import running
    from segbench.runtime.hardware import impossible, machine, settle
    from segbench.runtime.processes import is_main_process
    from segbench.runtime.ranks import further_ranks
    from segbench.runtime.threads import use_threads

    if not config.callbacks.get("checkpoint"):
        raise SegbenchError(
            "callbacks.checkpoint=null",
            "checkpoints, from which a run is scored",
            "leave callbacks.checkpoint as it is",
        )
    first, asked = is_main_process(), config
    if not resume and (given_run := config.tree.get("resume")) is not None:
        raise SegbenchError(
            f"resume={given_run} in a config",
            "a command that continues a run: it takes nothing else of a config",
            f"segbench train {as_typed('resume', given_run)}",
        )
    legs = Run(directory).legs() if resume else []
    if legs:
        # What another machine settled and this one cannot do is settled again.
        config = config.replace(impossible(config, legs[0].settled))
    config, sentences = settle(config)
    if not legs:
        config = settle_network(config)
    use_threads(int(config.threads))
    # Where data lay that may have moved; only a run that goes on has a record to read.
    began = flatten(Run(directory).recorded()) if resume and (directory / "config.yaml").is_file() else {}
    moved = {key: place for key, place in began.items() if key in DATA and place is not None}
    # A prepared job has no configuration of its own yet. A run of version 0.1.0 has one and no history, as has one
    # that was cut off before its first leg.
    begins = not (first and began) or Run(directory).state() == "prepared"
    changes = {} if begins else _values(Run(directory).config(), config)
    refuse_misfits_of(config)
    late = next((key for key in OF_EVALUATIONS if config.tree.get(key) is not None), None)
    # Only the main process knows whether a run that is resumed begins.
    if late is not None and (not resume or (first and begins)):
        option = as_typed(late, config.tree[late])
        raise SegbenchError(
            f"{option} in a training",
            "an option of segbench evaluate, segbench predict and segbench.load",
            f"leave it out, then segbench evaluate {as_typed('run', directory)} {option}",
        )
    run = Run.create(directory, config, given) if first and not resume else Run(directory)
    if first and resume:
        run.lock()
        if run.state() == "prepared":
            run.begin(config)
    with running(run):
        now = provenance(config.flat, packages_of_network(config.model)) | machine(config)
        if first:
            for sentence in sentences:
                log.info("%s", sentence)
            if not (run.path / "provenance.json").is_file():
                run.write_provenance(now)
            elif others := other_machine(run.provenance(), now):
                log.warning("not bit-identical to an uninterrupted run: %s", "; ".join(others))
            if not resume:
                prepare_stages(directory, stages)
        dataset = None
        if asks_data(config):
            dataset = build_dataset(config.data, config.weights, config.model)
            config, sentences = settle_by_data(config, dataset)
            if first:
                run.begin(config)
                for sentence in sentences:
                    log.info("%s", sentence)
        settled = _values(asked, config)
        arguments = [json.dumps(changes), ",".join(allow)]
        with further_ranks("train", run, config.trainer, config.runtime.timeout_s, arguments):
            _run_stages(config, run, stages, allow, moved)
            return _run_experiment(config, run, resume, Leg(0, changes, settled, now), allow, dataset)


def _values(before: Config, now: Config) -> dict[str, Any]:
    return {key: value for key, (_, value) in differences(before.flat, now.flat).items()}


def _run_experiment(
    config: Config, run: Run, resume: bool, leg: Leg, allow: Sequence[str], dataset: DataSet | None
) -> dict[str, float]:
    from segbench.experiment.build import build_experiment
    from segbench.experiment.initialise import initialise
    from segbench.experiment.items import data_item
    from segbench.experiment.resume import choose_checkpoint, stretched
    from segbench.experiment.stages import start_of
    from segbench.experiment.unchanged import data_digests, split_ids, weights_digest
    from segbench.runtime.processes import is_main_process
    from segbench.tracking.agent import heed_agent
    from segbench.tracking.tracker import tracked

    heed_agent()
    first = is_main_process()
    checkpoint, faults = choose_checkpoint(run, first) if resume else (None, [])
    for fault in faults:
        log.warning("%s", fault)
    experiment = build_experiment(config, run.path, dataset)
    with tracked(experiment.trainer.loggers) as trackers:
        for tracker in trackers:
            tracker.describe(experiment.task.infos("val"), config.optimized_metric or config.monitor)
        step, accepted = _refuse_another_run(run, experiment, config, checkpoint, allow) if checkpoint else (0, ())
        if first:
            for sentence in stretched(config, leg.changes, step):
                log.warning("%s", sentence)
            run.write_dataset(experiment.data.spec.to_dict())
            run.write_splits(split_ids(experiment.dataset))
            digests = data_digests(experiment.dataset)
            run.write_digests(digests)
            counts = {split: len(ids) for split, ids in run.splits().items()}
            for tracker in trackers:
                tracker.used(data_item(config, experiment.dataset, digests, counts))
            made = {**leg.provenance, **({} if checkpoint else weights_digest(config))}
            run.add_leg(replace(leg, step=step, accepted=accepted, provenance=made))
        if checkpoint is None:
            begun_from = start_of(config, run.path)
            modalities = experiment.dataset.spec.modalities
            intended = None if config.paper is None else config.paper.weights
            for report in initialise(experiment.task.model, config.weights, begun_from, modalities, intended):
                log.info("%s", report)
        return _fit_and_test(config, run, experiment, first, checkpoint, trackers)


def _refuse_another_run(
    run: Run, experiment: Experiment, config: Config, checkpoint: Path, allow: Sequence[str]
) -> tuple[int, tuple[str, ...]]:
    """Refuse to continue with other data, another network or fewer steps.

    Returns:
        the step of the checkpoint, and the differences that `allow` lets pass.
    """
    from segbench.experiment.resume import refuse_fewer_steps
    from segbench.experiment.unchanged import refuse_other_data, refuse_other_model
    from segbench.training.checkpoint import read_checkpoint

    saved = read_checkpoint(checkpoint)
    refuse_fewer_steps(run, config, saved)
    data = refuse_other_data(run, experiment.dataset, allow)
    model = refuse_other_model(run, saved["state_dict"], experiment.task.state_dict(), allow)
    experiment.task.takes_what_fits = bool(model)
    for difference in (*data, *model):
        log.warning("resume_allow: %s", difference)
    return int(saved["global_step"]), (*data, *model)


def _run_stages(
    config: Config, run: Run, stages: Sequence[Stage], allow: Sequence[str], moved: Mapping[str, Any]
) -> None:
    from segbench.experiment.stages import start_of
    from segbench.runs.directory import Run

    for number, stage in enumerate(stages):
        before = Run(run.path / FOLDER / stage.experiment)
        if before.state() == "finished":
            log.info("stage %d of %d, %s: finished", number + 1, len(stages) + 1, stage.experiment)
            continue
        log.info("stage %d of %d: %s in %s", number + 1, len(stages) + 1, stage.experiment, before.path)
        own: dict[str, Any] = {"trainer.devices": config.trainer.devices}
        if not stage.stages:
            own["init_from"] = start_of(config, run.path, number)
        if stage.config.threads == "auto":
            # Settled once for all stages and all processes; a stage that has begun keeps its own.
            own["threads"] = config.threads
        if stage.config.data.num_workers == "auto":
            own["data.num_workers"] = config.data.num_workers
        # Data that moved have moved for the stages too.
        own |= {key: config.flat[key] for key, place in moved.items() if stage.config.flat.get(key) == place}
        train(stage.config.replace(own), before.path, stage.overrides, True, stage.stages, allow=allow)
    if stages:
        log.info("stage %d of %d: %s in %s", len(stages) + 1, len(stages) + 1, config.name, run.path)


def _fit_and_test(
    config: Config,
    run: Run,
    experiment: Experiment,
    first: bool,
    checkpoint: Path | None,
    trackers: Sequence[Tracker],
) -> dict[str, float]:
    from segbench.display.tables import print_results
    from segbench.experiment.calibrate import prepare_finishing
    from segbench.experiment.evaluate import score_split, task_protocol
    from segbench.experiment.evaluating import evaluating
    from segbench.experiment.items import model_item, predictions_item, scores_item
    from segbench.experiment.predict import write_split
    from segbench.runs.curves import validation_of
    from segbench.training.callbacks.checkpoints import Checkpoints
    from segbench.training.callbacks.data_wait import DataWait
    from segbench.training.checkpoint import load_weights

    trainer, task, data = experiment.trainer, experiment.task, experiment.data
    given_up = False
    try:
        with deferred():
            trainer.fit(task, data, ckpt_path=checkpoint, weights_only=True)
    except Stopped as stopped:
        if not stopped.early or not run.latest():
            raise
        given_up = True
    ended = "a search that gave it up" if given_up else how_it_ended(trainer)
    if ended is not None and first:
        log.info("step %d: ended by %s", trainer.global_step, ended)
    for path in sorted(run.path.glob("*profile*.txt")) if first else ():
        log.info("%s:\n%s", path, "\n".join(path.read_text().splitlines()[:40]))
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    checkpoints = next(callback for callback in callbacks if isinstance(callback, Checkpoints))
    wait = next(callback for callback in callbacks if isinstance(callback, DataWait))
    timing = {"fit_s": checkpoints.seconds, "steps": float(trainer.global_step)}
    timing |= {"data_wait_s": wait.waited_s, "train_s": wait.trained_s}
    scores, best = dict(task.scores.get("val", {})), {}
    validated = _partial_validation(task, data) if scores else None
    partial = validated
    chosen = run.checkpoint()
    if given_up or not experiment.dataset.split("test"):
        # Whoever gave it up does not wait for a test.
        if not given_up:
            log.info("no test images: %s", "the last validation is reported" if scores else "nothing is scored")
        selected = chosen.stem if given_up else "last"
        chosen = run.checkpoint(selected)
        step = float(load_weights(task.model, chosen))
        best = validation_of(run.path, step) if first else {}
        if given_up:
            scores, timing["checkpoint_step"] = best, step
        split = "val" if scores else "none"
    else:
        split, selected = "test", chosen.stem
        into, root = (run if first else None), trainer.strategy.root_device
        for sentence in prepare_finishing(task, config, run, chosen, experiment.dataset, (), into, root):
            log.info("%s", sentence)
        scored = score_split(run, trainer, task, data, split, chosen, first)
        # The last validation does not apply to an earlier checkpoint.
        scores = scored.scores if selected == "best" else scores | scored.scores
        partial = scored.partial
        timing |= scored.timing
        best = validation_of(run.path, timing["checkpoint_step"]) if first else {}
    predicted = None
    if first and not given_up and (unlabelled := experiment.dataset.split("predict")) is not None:
        reported = run.checkpoint(selected)
        prepare_finishing(task, config, run, reported, experiment.dataset, (), run)
        load_weights(task.model, reported)
        with evaluating(task, config.trainer):
            write_split(task, unlabelled, run.path / "predictions")
        predicted = predictions_item(run, run.path / "predictions", "predict")
    if first:
        protocol = task_protocol(config, data, task, selected, tested=split == "test")
        protocol |= {"debug": config.debug} if config.debug else {}
        protocol |= {"ended_by": ended, "continued": continuations(run.recorded(), run.legs())}
        made = run.provenance() | {"legs": len(run.legs())}
        run.write_results(scores, timing, made, protocol, partial, validated)
        print_results(config, run.path, scores, split, protocol, timing, partial, validated)
        # The agent of a search reads a run's score in its summary: that of the reported checkpoint, not the last one.
        summary: dict[str, Any] = {f"best/{key.removeprefix('val/')}": value for key, value in best.items()}
        summary |= best | {"reported/checkpoint": selected}
        if validated is not None:
            summary |= {f"partial_validation/{name}": number for name, number in validated.record().items()}
        summary |= {"reported/step": timing.get("checkpoint_step", timing["steps"])}
        for tracker in trackers:
            tracker.summary(summary | ({"ended_by": ended} if ended else {}))
            tracker.made(model_item(run, config, chosen, scores))
            tracker.made(scores_item(run))
            if predicted is not None:
                tracker.made(predicted)
    return scores


def _partial_validation(task: SegmentationTask, data: SegmentationData) -> Partial | None:
    from segbench.runs.partial import Partial

    return Partial.of_visits(task.visits["val"], len(data.require("val"))) if "val" in task.visits else None
