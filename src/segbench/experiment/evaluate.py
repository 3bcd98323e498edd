"""Score a run: `segbench evaluate run=RUN [split=test] [checkpoint=best|last]`, `python -m segbench.evaluate`."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.config.trust import names_in, own, refuse_untrusted, trusting
from segbench.errors import SegbenchError, as_typed
from segbench.runs.calibration import file_digest
from segbench.runs.directory import Run
from segbench.runs.partial import Partial
from segbench.runtime.frameworks import import_frameworks
from segbench.runtime.signals import deferred

if TYPE_CHECKING:
    import lightning

    from segbench.config.record import Config
    from segbench.config.requests import EvaluateRequest
    from segbench.data.datamodule import SegmentationData
    from segbench.experiment.ensemble import Member
    from segbench.training.task import SegmentationTask

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scored:
    """A split's scores and what it took.

    Attributes:
        scores: by key.
        timing: seconds and steps.
        partial: how much of the split was counted; None: each image once.
    """

    scores: dict[str, float]
    timing: dict[str, float]
    partial: Partial | None


def score_split(
    run: Run,
    trainer: lightning.Trainer,
    task: SegmentationTask,
    data: SegmentationData,
    split: str,
    checkpoint: Path,
    first: bool,
    trained: Path | None = None,
    members: Sequence[Member] = (),
) -> Scored:
    """Score a checkpoint on a split and write per_image.npz.

    Args:
        run: the directory that takes the counts.
        trainer: whose devices and precision are used.
        task: whose weights are replaced by the checkpoint's.
        data: the DataModule.
        split: `train`, `val` or `test`.
        checkpoint: the file.
        first: whether this process writes.
        trained: the directory of the run whose checkpoint it is; None: `run` itself.
        members: networks whose probabilities are averaged with its own.
    """
    from segbench.experiment.ensemble import load_networks

    source = data.require(split)
    step = load_networks(task, checkpoint, members)
    log.info("scoring %s on %s: %d images, tta=%s", checkpoint.name, split, len(source), task.evaluation.tta)
    task.test_split = data.test_split = split
    started = time.monotonic()
    with deferred():
        trainer.test(task, datamodule=data, verbose=False, weights_only=True)
    seconds = time.monotonic() - started
    indices, counts = task.per_image("test")
    if first:
        versions = {f"{head}/{name}": state.measure.version for (head, name), state in task.states_of("test").items()}
        run.write_per_image(split, [source.ids[index] for index in indices], counts, versions)
    partial = Partial.of_visits(task.visits["test"], len(source)) if "test" in task.visits else None
    if first and partial is not None:
        again = f"segbench evaluate {as_typed('run', trained or run.path)}{f' split={split}' * (split != 'test')}"
        log.warning("partial: %s of %s were counted. Score it whole: %s", partial, split, again)
        for logger in trainer.loggers:
            logged = {f"partial/{name}": float(number) for name, number in partial.record().items()}
            logger.log_metrics(logged, step=trainer.global_step)
    return Scored(task.scores["test"], {"evaluate_s": seconds, "checkpoint_step": float(step)}, partial)


def evaluate(given: EvaluateRequest, directory: Path, overrides: list[str]) -> dict[str, float]:
    """Score `run` in a new directory.

    Args:
        given: what is asked for; `run` is given.
        directory: the evaluation's own.
        overrides: of the command line.

    Returns:
        the scores that go into results.json.
    """
    import_frameworks()
    from segbench.display.tables import print_results
    from segbench.experiment.axes import packages_of_network
    from segbench.experiment.build import build_data, build_dataset, build_dataset_spec, build_task
    from segbench.experiment.calibrate import prepare_finishing
    from segbench.experiment.check_decoding import refuse_idle_decoding
    from segbench.experiment.checks import refuse_limits
    from segbench.experiment.choose_decoding import chosen, with_each_decoding
    from segbench.experiment.ensemble import left_out, members_of, refuse_trained_on
    from segbench.experiment.items import data_item, model_item, scores_item
    from segbench.experiment.trainer import build_loggers, build_trainer
    from segbench.experiment.unchanged import data_digests, refuse_other_classes, split_ids
    from segbench.inference.forward import geometry_of
    from segbench.prediction.histogram import Matched, read_reference
    from segbench.runs.provenance import provenance
    from segbench.runs.running import running
    from segbench.runtime.hardware import machine, settle
    from segbench.runtime.processes import is_main_process
    from segbench.runtime.ranks import further_ranks
    from segbench.runtime.threads import divided, use_threads
    from segbench.tracking.tracker import tracked
    from segbench.training.callbacks.extremes import Extremes
    from segbench.training.callbacks.pictures import Panels

    trained = Run.open(str(given.run))
    checkpoint = trained.checkpoint(given.checkpoint)
    recorded = trained.config()
    config = given.applied_to(recorded)
    if asked := {key: each for key, each in given.decoding.items() if each is not None}:
        refuse_idle_decoding(recorded.decoding, asked, build_dataset_spec(trained).heads)
    if given.data.num_workers is None and "data.num_workers" in _settled(trained):
        config = config.replace({"data.num_workers": "auto"})
    config, sentences = settle(config)
    with trusting(names_in(given.trust)):
        refuse_untrusted(built_of(config, "data", "model", "metrics"))
        members = members_of(given.ensemble, checkpoint, build_dataset_spec(trained))
    reference = None
    if given.match_histogram is not None:
        # Read before a directory is made: a wrong path leaves none.
        reference = read_reference(Path(given.match_histogram), build_dataset_spec(trained), log.warning)
        # The paper's network sees images as they are.
        config, sentences = config.replace({"paper": None}), [*sentences, str(reference)]
    if (
        given.threads is None
        and (fewer := divided(int(config.threads), config.trainer.processes_here)) != config.threads
    ):
        said = (
            f"threads: {fewer}, not the run's {config.threads}, as {config.trainer.processes_here} processes share them"
        )
        config, sentences = config.replace({"threads": fewer}), [*sentences[:-1], said]
    use_threads(int(config.threads))
    if given.threads == "auto" or (given.threads is None and config.threads != recorded.threads):
        # The number goes to the other processes and into the record.
        given = given.replace({"threads": config.threads})
    first = is_main_process()
    run = Run.create(directory, given, overrides) if first else Run(directory)
    # The run's own callbacks, loggers and optimiser are not built: what is taken from it are two numbers.
    panels, extremes = (_count(config, name, default) for name, default in (("panels", 4), ("extremes", 1)))
    with (
        trusting(names_in(given.trust)),
        own(given.tree["trainer"], given.tree.get("logger")),
        running(run),
        further_ranks("evaluate", run, config.trainer, config.runtime.timeout_s),
    ):
        for sentence in sentences:
            log.info("%s", sentence)
        dataset = build_dataset(config.data, config.weights, config.model)
        if others := refuse_other_classes(trained, dataset):
            # The paper stands beside the run's own images alone.
            config = config.replace({"paper": None})
        for difference in others:
            log.warning("other data than the run was trained on: %s", difference)
        refuse_trained_on(trained, members, config, given.split, split_ids(dataset).get(given.split, []))
        refuse_limits(config, dataset, {"test": given.split}, config.trainer.processes)
        if members:
            for sentence in left_out(members, config):
                log.info("%s", sentence)
            # The paper's is one network.
            config = config.replace({"paper": None})
        config = with_each_decoding(config, given.decoding, dataset.spec, given.split)
        task = build_task(config, dataset.spec, training=False)
        seen = dataset if reference is None else Matched(dataset, reference)
        data = build_data(config, seen, geometry_of(task.model), training=False)
        # Before anything is fitted for it.
        data.require(given.split)
        loggers = build_loggers(given.logger, config, directory, "evaluate")
        with tracked(loggers) as trackers:
            if first:
                counts = {split: len(ids) for split, ids in trained.splits().items()}
                for tracker in trackers:
                    tracker.used(data_item(config, dataset, data_digests(dataset), counts))
                    tracker.used(model_item(trained, config, checkpoint, _reported(trained)))
                    for each in members:
                        tracker.used(model_item(each.run, each.config, each.checkpoint, _reported(each.run)))
            callbacks: list[lightning.Callback] = [Panels(directory / "panels", panels)] if panels else []
            callbacks += [Extremes(directory / "extremes", extremes)] if extremes else []
            trainer = build_trainer(config, directory, callbacks, loggers)
            root = trainer.strategy.root_device
            into = run if first else None
            for sentence in prepare_finishing(task, config, trained, checkpoint, None, members, into, root):
                log.info("%s", sentence)
            scored = score_split(run, trainer, task, data, given.split, checkpoint, first, trained.path, members)
            if first:
                protocol = task_protocol(config, data, task, checkpoint.stem)
                if reference is not None:
                    protocol["match_histogram"] = reference.digest
                if members:
                    protocol["digest"] = file_digest(checkpoint)
                    protocol["ensemble"] = [each.record() for each in members]
                if other := _other_decoding(given, recorded):
                    protocol["decoding"] = other
                if best := chosen(config, scored.scores):
                    protocol["chosen_decoding"] = best
                recorded_now = provenance(config.flat, packages_of_network(config.model)) | machine(config)
                recorded_now["run"] = str(trained.path)
                run.write_results(scored.scores, scored.timing, recorded_now, protocol, scored.partial)
                print_results(config, run.path, scored.scores, given.split, protocol, scored.timing, scored.partial)
                if best:
                    settings = " ".join(f"decoding.{key}={value}" for key, value in best["settings"].items())
                    how = f"with {settings.replace('None', 'null')}" if settings else "with the run's own decoding"
                    log.info("best %s: %.4f %s", best["score"].split("/")[-2], best["value"], how)
                for tracker in trackers:
                    tracker.made(scores_item(run))
    return scored.scores


def built_of(config: Config, *sections: str) -> dict[str, Any]:
    """The sections of a run's configuration that a command builds something of."""
    return {name: config.tree.get(name) for name in sections}


def _other_decoding(given: EvaluateRequest, recorded: Config) -> dict[str, Any]:
    """The settings of the decoding that are not the run's own; those of lists are in the names of the scores."""
    single = {key: value for key, value in given.decoding.items() if value is not None and not isinstance(value, list)}
    return {key: value for key, value in single.items() if recorded.flat.get(f"decoding.{key}") != value}


def _count(config: Config, name: str, default: int) -> int:
    component = config.callbacks.get(name)
    count = 0 if component is None else component.arguments.get("count", default)
    return count if isinstance(count, int) else default


def _settled(run: Run) -> Mapping[str, Any]:
    """What `auto` became when the run began."""
    legs = run.legs()
    return legs[0].settled if legs else {}


def _reported(run: Run) -> dict[str, float]:
    with contextlib.suppress(SegbenchError):
        scores: dict[str, float] = run.results()["metrics"]
        return scores
    return {}


def task_protocol(
    config: Config, data: SegmentationData, task: SegmentationTask, checkpoint: str, tested: bool = True
) -> dict[str, Any]:
    """How the scores were obtained, for results.json; not `tested` if they are those of the last validation."""
    finish = task.finish if tested else None
    finished: dict[str, Any] = {} if finish is None or not finish.radius else {"median": finish.radius}
    if finish is not None and finish.sigma:
        finished["contours"] = finish.sigma
    if finish is not None and finish.polynomials:
        finished["calibration"] = {head: list(polynomial) for head, polynomial in finish.polynomials.items()}
    return finished | {
        "dataset": data.spec.name,
        "split": data.spec.protocol,
        "checkpoint": checkpoint,
        "checkpoint_chosen_by": config.monitor if checkpoint == "best" else None,
        "precision": config.trainer.precision,
        "tta": task.evaluation.tta,
        **({"tta_scales": list(task.evaluation.scales)} if task.evaluation.scales else {}),
        **({"input_scale": scale} if tested and (scale := task.evaluation.input_scale) is not None else {}),
        "tile": task.evaluation.tile,
        "threads": task.evaluation.threads,
        "versions": {key: info.version for key, info in task.infos("test").items()},
        "paper": None if config.paper is None else config.paper.model_dump(exclude_unset=True),
    }
