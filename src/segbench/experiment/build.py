"""Configs to objects: the only place that instantiates what a config names."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import nn
from torchmetrics import Metric

from segbench.config.handed_over import read_json
from segbench.config.record import (
    LOADER_KEYS,
    Augment,
    Component,
    Config,
    Data,
    InitialWeights,
    Loss,
    Scheduler,
    Trainer,
)
from segbench.config.signatures import hints_of, refuse_misfits
from segbench.data.augment import Augmentation
from segbench.data.datamodule import SegmentationData, check_draw
from segbench.data.raw import DataSet
from segbench.data.rescaled import colours_as, rescaled
from segbench.data.weights import LossWeights
from segbench.errors import SegbenchError
from segbench.experiment.axes import (
    check_network,
    check_schedule,
    kind_of,
    loss_nodes,
    make,
    make_dataset,
    make_loss,
    make_measure,
    make_network,
    make_optimizer,
    network_expects,
    refuse_weights_without_gradient,
    schedule_of,
)
from segbench.experiment.check_decoding import refuse_other_cores
from segbench.experiment.checks import (
    doubtful,
    refuse_finishing,
    refuse_impossible,
    refuse_single_values,
)
from segbench.experiment.trainer import build_callbacks, build_loggers, build_trainer
from segbench.inference.forward import geometry_of
from segbench.inference.multiscale import scales_of
from segbench.losses.rate import loss_rate_mismatch
from segbench.metrics.decoding import Decoding
from segbench.metrics.measure import Measure
from segbench.models.published.sets import WEIGHT_SETS
from segbench.runs.directory import Run
from segbench.runtime.processes import is_main_process
from segbench.spec import DatasetSpec, TileGeometry
from segbench.tracking.shown import shown
from segbench.training.lightning_internals import (
    evaluate_within,
    waits_for_every_gradient,
)
from segbench.training.optim import PER_LAYER, Scheduled, freeze_others, parameter_groups
from segbench.training.precision import precision_named, unmeasured
from segbench.training.task import Evaluation, SegmentationTask

log = logging.getLogger(__name__)


def build_dataset(data: Data, begun_from: InitialWeights | None, model: Component | None = None) -> DataSet:
    """The data set, on the scale of the published weights that the network starts from.

    Args:
        data: the data set.
        begun_from: published weights.
        model: the network, which knows what weights of its own expect.
    """
    dataset = make_dataset(data)
    weights = None if begun_from is None else WEIGHT_SETS.get(str(begun_from.name))
    if weights is not None:
        return rescaled(dataset, weights.inputs)
    expected = None if model is None else network_expects(model, begun_from)
    return dataset if expected is None else rescaled(dataset, colours_as(expected, dataset.spec))


def build_dataset_spec(run: Run) -> DatasetSpec:
    """The data set's own description as a run recorded it: prediction needs no data set on disk.

    Raises:
        SegbenchError: the run recorded none.
    """
    path = run.path / "dataset.json"
    if not path.is_file():
        raise SegbenchError(
            f"no {path}", "the description of the data set, written at the run's start", "train it again"
        )
    described: DatasetSpec = read_json(path, DatasetSpec)
    return described


def build_model(component: Component, spec: DatasetSpec) -> nn.Module:
    """The network, sized by the data set: numbers where there is one modality or head, else numbers by name."""
    # Of a run that was handed over nothing else has looked at them.
    refuse_misfits({"model": {"_target_": component.target, **component.arguments}})
    return make_network(component, spec)


def build_measures(components: Mapping[str, Component | None], spec: DatasetSpec) -> dict[str, list[Measure]]:
    """The measures of each head, without metrics of torchmetrics."""
    every = _measures(components, spec)
    return {
        head: [each for each in of_head.values() if not isinstance(each, Metric)] for head, of_head in every.items()
    }


def _measures(components: Mapping[str, Component | None], spec: DatasetSpec) -> dict[str, dict[str, Measure | Metric]]:
    named = {name: measure for name, measure in components.items() if measure is not None}
    return {
        head: {name: make_measure(measure, name, head_spec) for name, measure in named.items()}
        for head, head_spec in spec.heads.items()
    }


def build_decoding(component: Component | None, **changes: Any) -> Decoding:
    """How a run reads objects off probabilities; components if its config predates the choice."""
    return Decoding(**changes) if component is None else make(component, **changes)


def build_task(config: Config, spec: DatasetSpec, training: bool = True) -> SegmentationTask:
    """The LightningModule with freshly drawn weights; `seed` decides them.

    Args:
        config: of the run.
        spec: of the data set.
        training: false leaves out what only a training needs: of a run that was handed over, less is built.
    """
    refuse_finishing(config, {head: head_spec.num_classes for head, head_spec in spec.heads.items()})
    if config.decoding is not None and config.decoding.target == f"{Decoding.__module__}.{Decoding.__name__}":
        refuse_other_cores(config.data.arguments.get("core"), build_decoding(config.decoding), spec.heads)
    lightning.seed_everything(config.seed, verbose=False)
    model = build_model(config.model, spec)
    if config.task.compile:
        # The method, not torch.compile(model): the state dict keeps its names.
        model.compile()
    measures = _measures(config.metrics, spec)
    losses: dict[str, nn.Module] = {}
    for head, head_spec in spec.heads.items() if training else ():
        component = config.loss_of(head)
        losses[head] = make_loss(component, head_spec, head if len(spec.heads) > 1 else "")
        if getattr(losses[head], "needs_weight", False) and component.weight_map is None:
            raise SegbenchError(
                "a weighted loss without loss.weight_map", "a weight map", "pick loss=weighted_cross_entropy"
            )
    task = SegmentationTask(
        model=model,
        spec=spec,
        losses=losses,
        measures=measures,
        optimizer=lambda module: make_optimizer(_clippable(config), module),
        schedule=lambda optimizer, steps: schedule(optimizer, steps),
        evaluation=Evaluation(
            config.tile, config.tta, int(config.threads), scales_of(config.tta, config.tta_scales), config.input_scale
        ),
        seed=config.seed,
        channels_last=bool(config.task.channels_last),
    )
    if training:
        higher = {key: info.higher_is_better for key, info in task.infos("val").items()}
        schedule = schedule_of(config, higher)
        if config.task.train_only is not None:
            freeze_others(task.model, config.task.train_only)
    return task


def build_data(config: Config, dataset: DataSet, geometry: TileGeometry, training: bool = True) -> SegmentationData:
    """The DataModule; without `training` one that only reads whole images."""
    if not training:
        loading: dict[str, Any] = {
            "eval_batch_size": config.data.eval_batch_size,
            "num_workers": config.data.num_workers,
        }
        return SegmentationData(dataset, geometry, Augmentation(), seed=config.seed, **loading)
    maps = [weight_map for head in dataset.spec.heads if (weight_map := config.loss_of(head).weight_map)]
    pixel_weights: LossWeights | None = make(maps[0], spec=dataset.spec) if maps else None
    augmentation: Augmentation = make(config.augment)
    return SegmentationData(
        dataset,
        geometry,
        augmentation,
        seed=config.seed,
        pixel_weights=pixel_weights,
        overfit_batches=config.trainer.arguments.get("overfit_batches") or 0,
        **config.data.loading,
    )


@dataclass(frozen=True)
class Experiment:
    """Everything that one run needs."""

    dataset: DataSet
    data: SegmentationData
    task: SegmentationTask
    trainer: lightning.Trainer


def refuse_misfits_of(config: Config) -> None:
    """Refuse values that their targets do not take, before anything is built.

    Raises:
        SegbenchError: names the key, the value and what its target expects, or a secret that a tracker would show.
    """
    precision_named(config.trainer.precision, "cpu")
    takers: dict[str, Any] = {f"data.{key}": SegmentationData for key in LOADER_KEYS}
    takers |= {f"scheduler.{key}": Scheduled for key in Scheduler.apart}
    takers |= {f"trainer.{key}": Trainer for key in Trainer.apart}
    takers |= {f"optimizer.{key}": parameter_groups for key in PER_LAYER}
    # By the names of classes, or `auto`; their losses take numbers.
    takers |= {f"{key}.class_weights": Loss for key, _ in loss_nodes(config)}
    takers |= {"data.batch_size": Data, "data.tile": Data, "data.balance": Data, "augment.pick": Augment}
    refuse_misfits(config.tree, takers)
    check_draw(config.data.draw, config.data.tile, config.data.repeats, config.data.balance)
    if any(logger is not None and logger.target.startswith("segbench.tracking.") for logger in config.logger.values()):
        # Before anything of it is written.
        shown(config)


def build_experiment(config: Config, directory: Path, dataset: DataSet | None = None) -> Experiment:
    """Data set, DataModule, task and Trainer of a training run.

    Args:
        config: of the run, settled.
        directory: of the run.
        dataset: if it is built already.
    """
    dataset = dataset or build_dataset(config.data, config.weights, config.model)
    task = build_task(config, dataset.spec)
    data = build_data(config, dataset, geometry_of(task.model))
    callbacks = build_callbacks(config.callbacks, directory, task)
    loggers = build_loggers(config.logger, config, directory)
    trainer = build_trainer(config, directory, callbacks, loggers)
    if config.tile is None:
        # Tiles that are trained have one size, whole images that are scored have many.
        evaluate_within(trainer, unmeasured)
    refuse_impossible(config, dataset, task.infos("val"), trainer.world_size)
    for sentence in doubtful(config, dataset.spec.heads) if is_main_process() else ():
        log.warning("%s", sentence)
    _log_inputs(dataset.spec)
    if config.task.train_only is not None:
        trained, frozen = freeze_others(task.model, config.task.train_only)
        log.info("task.train_only: %s trained; %s frozen", ", ".join(trained), ", ".join(frozen))
    check_schedule(config.scheduler)
    _check_network(config, dataset, task, waits_for_every_gradient(trainer))
    refuse_single_values(config, task.model, dataset)
    _warn_of_rate(config, dataset, task, trainer.world_size)
    _warn_of_epsilon(config, task)
    return Experiment(dataset, data, task, trainer)


def _log_inputs(spec: DatasetSpec) -> None:
    for name, modality in spec.modalities.items():
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (modality.mean, modality.std))
        over = "" if set(modality.std) == {1.0} else f", over {std}"
        log.info("input %s: %s, less %s%s", name, modality.unit, mean, over)


def _check_network(config: Config, dataset: DataSet, task: SegmentationTask, all_gradients: bool) -> None:
    """Try a network that is not ours on the sides of a training tile and of an image that is scored.

    Args:
        config: of the run.
        dataset: that it reads.
        task: with the network.
        all_gradients: every trained weight must get one.
    """
    splits = [
        source for name in ("train", "val", "test") if (source := dataset.split(name)) is not None and len(source)
    ]
    if not splits:
        return
    sides = [next(iter(source.read(0).images.values())).shape[:2] for source in splits]
    sides[0] = (tile, tile) if isinstance(tile := config.data.tile, int) else sides[0]
    for height, width in dict.fromkeys(sides):
        sentence = check_network(config.model, task.model, dataset.spec, (height, width))
    if sentence is not None and is_main_process():
        log.info("%s", sentence)
    if all_gradients:
        refuse_weights_without_gradient(config.model, task.model, dataset.spec, sides[0])


def _clippable(config: Config) -> Component:
    """The optimiser, not fused where that would leave scaled gradients to be clipped, which Lightning refuses."""
    trainer, optimizer = config.trainer, config.optimizer
    scaled = trainer.on_gpu and precision_named(trainer.precision, "cuda").autocast == torch.float16
    if not (scaled and trainer.gradient_clip_val and "fused" in hints_of(kind_of(optimizer))[0]):
        return optimizer
    return Component.model_validate({"_target_": optimizer.target, "fused": False} | optimizer.arguments)


def _warn_of_epsilon(config: Config, task: SegmentationTask) -> None:
    weights = precision_named(config.trainer.precision, "cuda" if config.trainer.on_gpu else "cpu").weights
    groups = make_optimizer(config.optimizer, task.model).param_groups
    given = [group["eps"] for group in groups if isinstance(group.get("eps"), float)]
    lost = [eps for eps in given if eps > 0 and torch.tensor(eps, dtype=weights) == 0]
    if lost and is_main_process():
        log.warning(
            "trainer.precision=%s rounds optimizer.eps=%g to 0, and a weight whose gradient is 0 becomes nan; set "
            "optimizer.eps=1e-4, or trainer.precision=16-mixed",
            *(config.trainer.precision, lost[0]),
        )


def _warn_of_rate(config: Config, dataset: DataSet, task: SegmentationTask, processes: int) -> None:
    source = dataset.split("train")
    # A clipped gradient is of the clip's size, whatever the loss's.
    if not is_main_process() or source is None or config.trainer.gradient_clip_val:
        return
    if isinstance(tile := config.data.tile, int):
        pixels = (tile - 2 * geometry_of(task.model).margin) ** 2
    else:
        height, width = next(iter(source.read(0).images.values())).shape[:2]
        pixels = height * width
    pixels *= int(config.data.batch_size) * processes
    optimizer = make_optimizer(config.optimizer, task.model)
    for loss in task.losses.values():
        summed = any(getattr(part, "reduction", "mean") == "sum" for part in loss.modules())
        complaint = loss_rate_mismatch("sum" if summed else "mean", optimizer, pixels)
        if complaint is not None:
            log.warning("%s", complaint)
