"""Configs to objects: the only place that instantiates what a config names."""

from __future__ import annotations

import inspect
import json
import logging
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
from hydra.utils import get_object, instantiate
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from segbench.config.record import LOADER_KEYS, Component, Config, Data, InitialWeights
from segbench.config.signatures import refuse_misfits
from segbench.config.trust import allowed_targets, targets_in
from segbench.data.augment import Augmentation
from segbench.data.datamodule import SegmentationData
from segbench.data.raw import DataSet
from segbench.data.rescaled import rescaled
from segbench.data.weights import LossWeights
from segbench.errors import SegbenchError
from segbench.experiment.checks import doubtful, refuse_impossible
from segbench.inference.stream import geometry_of
from segbench.losses.rate import loss_rate_mismatch
from segbench.metrics.decoding import Decoding
from segbench.metrics.measure import Measure, arguments_of_head
from segbench.models.published.sets import WEIGHT_SETS
from segbench.runs.directory import Run
from segbench.runtime.processes import is_main_process, started_by
from segbench.spec import DatasetSpec, TileGeometry
from segbench.tracking.shown import shown
from segbench.training.callbacks.checkpoints import Checkpoints
from segbench.training.callbacks.in_step import InStep
from segbench.training.lightning_internals import broadcast_no_signals, catch_no_signals
from segbench.training.optim import freeze_others
from segbench.training.precision import precision_named
from segbench.training.task import Evaluation, SegmentationTask

log = logging.getLogger(__name__)


def make(component: Component, /, **arguments: Any) -> Any:
    """Instantiate a component with its own arguments and further ones.

    Raises:
        SegbenchError: the target, or one inside it, is not on the list of `segbench.config.trust.allowed_targets`; or
            a class of another package refuses a value.
    """
    config = {"_target_": component.target, **component.arguments}
    for target in targets_in(config):
        if target not in allowed_targets():
            raise SegbenchError(
                f"_target_: {target}, which is not allowed",
                "a target of the packaged configs",
                f"if you trust it, set SEGBENCH_TARGETS={target} (several: joined by commas), "
                "or call segbench.config.trust.allow_target from your own code",
            )
    try:
        # Arguments go past Hydra, which would turn dataclasses and lists among them into configs.
        return instantiate(config, _partial_=True, _convert_="all")(**arguments)
    except (ValueError, TypeError, ImportError, MisconfigurationException) as error:
        own = Path(__file__).parents[1].as_posix()
        frames = traceback.extract_tb(error.__traceback__)
        if isinstance(error, SegbenchError) or (frames and Path(frames[-1].filename).as_posix().startswith(own)):
            raise
        raise SegbenchError(
            f"{component.name} refuses its arguments: {' '.join(str(error).split())}",
            f"arguments that {component.target} takes",
            "correct them; `segbench train --cfg job` prints those that it is given",
        ) from error


def build_dataset(data: Data, begun_from: InitialWeights | None) -> DataSet:
    """The data set, on the scale of the published weights that the network starts from."""
    dataset: DataSet = make(data)
    weights = None if begun_from is None else WEIGHT_SETS.get(str(begun_from.name))
    return dataset if weights is None else rescaled(dataset, weights.inputs)


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
    return DatasetSpec.from_dict(json.loads(path.read_text()))


def build_model(component: Component, spec: DatasetSpec) -> nn.Module:
    """The network, sized by the data set: numbers where there is one modality or head, else numbers by name."""
    channels = {name: modality.channels for name, modality in spec.modalities.items()}
    classes = {name: head.num_classes for name, head in spec.heads.items()}
    model: nn.Module = make(
        component,
        in_channels=next(iter(channels.values())) if len(channels) == 1 else channels,
        num_classes=next(iter(classes.values())) if len(classes) == 1 else classes,
    )
    return model


def build_measures(components: Mapping[str, Component | None], spec: DatasetSpec) -> dict[str, list[Measure]]:
    """The measures of each head; those that ask for class names or excluded classes get the head's."""
    measures: dict[str, list[Measure]] = {}
    for head, head_spec in spec.heads.items():
        measures[head] = []
        for name, measure in components.items():
            if measure is None:
                continue
            given = arguments_of_head(get_object(_known(measure)), measure.arguments, head_spec)
            measures[head].append(make(measure, name=name, **given))
    return measures


def build_decoding(component: Component | None, **changes: Any) -> Decoding:
    """How a run reads objects off probabilities; components if its config predates the choice."""
    return Decoding(**changes) if component is None else make(component, **changes)


def _known(component: Component) -> str:
    if component.target not in allowed_targets():
        make(component)
    return component.target


def build_task(config: Config, spec: DatasetSpec) -> SegmentationTask:
    """The LightningModule with freshly drawn weights; `seed` decides them."""
    lightning.seed_everything(config.seed, verbose=False)
    model = build_model(config.model, spec)
    if config.task.compile:
        # The method, not torch.compile(model): the state dict keeps its names.
        model.compile()
    losses = {
        head: make(config.loss_of(head), ignore_index=head_spec.ignore_index) for head, head_spec in spec.heads.items()
    }
    for head, loss in losses.items():
        if getattr(loss, "needs_weight", False) and config.loss_of(head).weight_map is None:
            raise SegbenchError(
                "a weighted loss without loss.weight_map", "a weight map", "pick loss=weighted_cross_entropy"
            )
    return SegmentationTask(
        model=model,
        spec=spec,
        losses=losses,
        measures=build_measures(config.metrics, spec),
        optimizer=lambda module: make(config.optimizer, module=module),
        schedule=lambda optimizer, steps: make(config.scheduler, optimizer=optimizer, total_steps=steps),
        evaluation=Evaluation(config.tile, config.tta, int(config.threads)),
        seed=config.seed,
        channels_last=bool(config.task.channels_last),
    )


def build_data(config: Config, dataset: DataSet, geometry: TileGeometry) -> SegmentationData:
    """The DataModule."""
    maps = [weight_map for head in dataset.spec.heads if (weight_map := config.loss_of(head).weight_map)]
    pixel_weights: LossWeights | None = make(maps[0], spec=dataset.spec) if maps else None
    augmentation: Augmentation = make(config.augment)
    return SegmentationData(
        dataset, geometry, augmentation, seed=config.seed, pixel_weights=pixel_weights, **config.data.loading
    )


def build_callbacks(
    components: Mapping[str, Component | None], directory: Path, task: SegmentationTask
) -> list[lightning.Callback]:
    """The callbacks; those that write get their folder in the run directory, the checkpoint its score's direction."""
    folders = {
        "checkpoint": "checkpoints",
        "panels": "panels",
        "extremes": "extremes",
        "energy": "",
        "inspect": "inspect",
    }
    callbacks = []
    for name, callback in components.items():
        if callback is None:
            continue
        given: dict[str, Any] = {"directory": directory / folders[name]} if name in folders else {}
        if get_object(_known(callback)) is Checkpoints:
            info = task.infos("val").get(callback.arguments["monitor"])
            given["higher_is_better"] = info is None or info.higher_is_better
        callbacks.append(make(callback, **given))
    return callbacks


def build_loggers(
    components: Mapping[str, Component | None], config: Config, directory: Path, job: str = "train"
) -> list[Any]:
    """The loggers, all writing into the run directory.

    Args:
        components: the loggers.
        config: of the run, which they show.
        directory: of the run.
        job: `train` or `evaluate`.
    """
    loggers = []
    for component in components.values():
        if component is None:
            continue
        takes = inspect.signature(get_object(_known(component))).parameters
        offered = {"save_dir": str(directory), "directory": str(directory), "config": config, "job": job}
        given = {key: value for key, value in offered.items() if key in takes and key not in component.arguments}
        loggers.append(make(component, **given))
    return loggers


def build_trainer(
    config: Config, directory: Path, callbacks: Sequence[lightning.Callback], loggers: Sequence[Any]
) -> lightning.Trainer:
    """The Trainer. Samplers are ours: Lightning's would pad validation with samples that are then counted twice.

    Raises:
        SegbenchError: an unknown precision.
    """
    precision_named(config.trainer.precision, "cpu")
    trainer: lightning.Trainer = make(
        config.trainer,
        callbacks=[*callbacks, InStep({**config.tree, "directory": str(directory.resolve())})],
        logger=list(loggers) or False,
        default_root_dir=str(directory),
        plugins=_cluster(),
        use_distributed_sampler=False,
        enable_checkpointing=any(isinstance(callback, Checkpoints) for callback in callbacks),
        enable_model_summary=False,
        enable_progress_bar=bool(callbacks),
    )
    # `InStep` handles signals instead.
    catch_no_signals(trainer)
    broadcast_no_signals(trainer)
    return trainer


def _cluster() -> ClusterEnvironment:
    # Lightning would guess wrong: a job of one task on a Slurm cluster starts its further processes itself.
    match started_by():
        case "torchrun":
            return TorchElasticEnvironment()
        case "srun":
            return SLURMEnvironment(auto_requeue=False)
        case _:
            return LightningEnvironment()


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
    refuse_misfits(config.tree, {f"data.{key}": SegmentationData for key in LOADER_KEYS})
    if any(logger is not None and logger.target.startswith("segbench.tracking.") for logger in config.logger.values()):
        # Before anything of it is written.
        shown(config)


def build_experiment(config: Config, directory: Path) -> Experiment:
    """Data set, DataModule, task and Trainer of a training run."""
    dataset = build_dataset(config.data, config.weights)
    task = build_task(config, dataset.spec)
    data = build_data(config, dataset, geometry_of(task.model))
    callbacks = build_callbacks(config.callbacks, directory, task)
    loggers = build_loggers(config.logger, config, directory)
    trainer = build_trainer(config, directory, callbacks, loggers)
    refuse_impossible(config, dataset, task.infos("val"), trainer.world_size)
    for sentence in doubtful(config) if is_main_process() else ():
        log.warning("%s", sentence)
    _log_inputs(dataset.spec)
    _freeze(config, task)
    _warn_of_rate(config, dataset, task, trainer.world_size)
    return Experiment(dataset, data, task, trainer)


def _log_inputs(spec: DatasetSpec) -> None:
    for name, modality in spec.modalities.items():
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (modality.mean, modality.std))
        over = "" if set(modality.std) == {1.0} else f", over {std}"
        log.info("input %s: %s, less %s%s", name, modality.unit, mean, over)


def _freeze(config: Config, task: SegmentationTask) -> None:
    if (named := config.task.train_only) is not None:
        trained, frozen = freeze_others(task.model, named)
        log.info("task.train_only: %s trained; %s frozen", ", ".join(trained), ", ".join(frozen))


def _warn_of_rate(config: Config, dataset: DataSet, task: SegmentationTask, processes: int) -> None:
    source = dataset.split("train")
    # A clipped gradient is of the clip's size, whatever the loss's.
    if not is_main_process() or source is None or config.trainer.gradient_clip_val:
        return
    if tile := config.data.tile:
        pixels = (tile - 2 * geometry_of(task.model).margin) ** 2
    else:
        height, width = next(iter(source.read(0).images.values())).shape[:2]
        pixels = height * width
    pixels *= config.data.batch_size * processes
    optimizer = make(config.optimizer, module=task.model)
    for loss in task.losses.values():
        summed = any(getattr(part, "reduction", "mean") == "sum" for part in loss.modules())
        complaint = loss_rate_mismatch("sum" if summed else "mean", optimizer, pixels)
        if complaint is not None:
            log.warning("%s", complaint)
