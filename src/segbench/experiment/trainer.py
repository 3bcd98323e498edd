"""The Trainer of a run, with its callbacks and loggers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from segbench.config.record import Component, Config
from segbench.config.signatures import hints_of, taken
from segbench.errors import SegbenchError
from segbench.experiment.axes import kind_of, make
from segbench.inference.casts import kept_casts
from segbench.runtime.hardware import one_gpu_each
from segbench.runtime.processes import started_by
from segbench.training.callbacks.checkpoints import Checkpoints
from segbench.training.callbacks.data_wait import DataWait
from segbench.training.callbacks.in_step import InStep
from segbench.training.lightning_internals import (
    OneGpuEach,
    broadcast_no_signals,
    catch_no_signals,
    evaluate_within,
    wait_at_most,
)
from segbench.training.precision import precision_named, round_to_tf32
from segbench.training.task import SegmentationTask

_WATCHDOG_LATER_S = 60.0
"""How much longer than any other wait that of NCCL is."""


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
    infos = task.infos("val")
    callbacks = []
    for name, callback in components.items():
        if callback is None:
            continue
        kind = kind_of(callback)
        given = taken(kind, directory=directory / folders[name]) if name in folders else {}
        info = infos.get(str(callback.arguments.get("monitor")))
        if kind is Checkpoints:
            given["higher_is_better"] = info is None or info.higher_is_better
        elif info is not None and "mode" in hints_of(kind)[0] and "mode" not in callback.arguments:
            # Lightning's watch for a minimum unless told otherwise.
            given["mode"] = "max" if info.higher_is_better else "min"
        made = make(callback, **given)
        if not isinstance(made, lightning.Callback):
            raise SegbenchError(
                f"callbacks.{name}._target_={callback.target}, which gives a {type(made).__name__}",
                "a lightning.pytorch.Callback",
                f"name a callback, or leave it out: callbacks.{name}=null",
            )
        callbacks.append(made)
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
        offered = {"save_dir": str(directory), "directory": str(directory), "config": config, "job": job}
        given = taken(kind_of(component), **offered)
        loggers.append(make(component, **{key: given[key] for key in given if key not in component.arguments}))
    return loggers


def build_trainer(
    config: Config, directory: Path, callbacks: Sequence[lightning.Callback], loggers: Sequence[Any]
) -> lightning.Trainer:
    """The Trainer. Samplers are ours: Lightning's would pad validation with samples that are then counted twice.

    Raises:
        SegbenchError: an unknown precision.
    """
    precision_named(config.trainer.precision, "cpu")
    round_to_tf32(config.trainer.allow_tf32)
    # Batches to overfit are chosen by our sampler: Lightning's own would also decide the augmentation.
    given = {key: value for key, value in config.trainer.arguments.items() if key != "overfit_batches"}
    if (profiler := _profiler(given.get("profiler"), directory)) is not None:
        given["profiler"] = profiler
    if given.get("benchmark") == "auto":
        # Nobody settled it: as torch does by itself.
        del given["benchmark"]
    # Under `torch.inference_mode` no cast of a weight is kept.
    given.setdefault("inference_mode", False)
    if given.get("strategy") == "ddp":
        # Gradients stand in the buckets that are sent and not beside them: their memory once, no copy, the same bits.
        given["strategy"] = {"_target_": "lightning.pytorch.strategies.DDPStrategy", "gradient_as_bucket_view": True}
    alone = config.trainer.on_gpu and one_gpu_each(config.trainer.processes_here)
    if alone:
        given |= {"devices": 1, "num_nodes": config.trainer.processes}
    same = {**config.tree, "directory": str(directory.resolve())}
    trainer: lightning.Trainer = make(
        Component.model_validate({"_target_": config.trainer.target, **given}),
        callbacks=[*callbacks, DataWait(), InStep(same, config.runtime.timeout_s)],
        logger=list(loggers) or False,
        default_root_dir=str(directory),
        plugins=OneGpuEach(auto_requeue=False) if alone else _cluster(),
        use_distributed_sampler=False,
        enable_checkpointing=any(isinstance(callback, Checkpoints) for callback in callbacks),
        enable_model_summary=False,
        enable_progress_bar=bool(callbacks),
    )
    # `InStep` handles signals instead.
    catch_no_signals(trainer)
    broadcast_no_signals(trainer)
    # An evaluation casts the weights once, not for each batch.
    evaluate_within(trainer, partial(kept_casts, trainer.strategy.root_device.type))
    # NCCL's watchdog ends the process with no word on which rank it waited for; `InStep`, on the CPU, tells it before.
    wait_at_most(trainer, config.runtime.timeout_s + (_WATCHDOG_LATER_S if config.trainer.on_gpu else 0.0))
    return trainer


def _profiler(given: Any, directory: Path) -> Any:
    """A profiler as a node that writes into the run directory."""
    named = {"simple": "SimpleProfiler", "advanced": "AdvancedProfiler", "pytorch": "PyTorchProfiler"}
    if isinstance(given, str) and given in named:
        given = {"_target_": f"lightning.pytorch.profilers.{named[given]}"}
    if not isinstance(given, Mapping):
        return given
    kind = kind_of(Component.model_validate(dict(given)))
    return {**taken(kind, dirpath=str(directory), filename="profile"), **given}


def _cluster() -> ClusterEnvironment:
    # Lightning would guess wrong: a job of one task on a Slurm cluster starts its further processes itself.
    match started_by():
        case "torchrun":
            return TorchElasticEnvironment()
        case "srun":
            return SLURMEnvironment(auto_requeue=False)
        case _:
            return LightningEnvironment()
