"""What would go wrong in a training and can be seen before it begins."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn

from segbench.config.record import Config, Trainer
from segbench.data.class_counts import class_counts
from segbench.data.pixels import balanced_draws
from segbench.data.raw import DataSet, Source
from segbench.errors import SegbenchError
from segbench.experiment.check_decoding import idle_decoding
from segbench.spec import HeadSpec


def refuse_impossible(config: Config, dataset: DataSet, scores: Collection[str], processes: int) -> None:
    """Refuse settings that contradict the data or one another.

    Args:
        config: of the run, settled.
        dataset: that it trains on.
        scores: the names of the validation's scores.
        processes: that share the data.

    Raises:
        SegbenchError: a validation that never comes, a monitor that is no score, batches that cannot be overfitted.
    """
    trainer = config.trainer
    overfit = trainer.arguments.get("overfit_batches")
    if overfit and not (isinstance(overfit, int) and overfit >= 1) and not (0 < overfit <= 1):
        raise SegbenchError(
            f"trainer.overfit_batches={overfit}", "a number of batches, or a share of them up to 1", "correct it"
        )
    refuse_limits(config, dataset, {name: name for name in ("train", "val", "test")}, processes)
    source = dataset.split("train")
    interval = trainer.val_check_interval
    if source and isinstance(interval, int) and trainer.check_val_every_n_epoch is not None:
        batches = _limited(trainer, "train", _batches(config, dataset, source, "train", processes))
        if interval > batches:
            raise SegbenchError(
                f"trainer.val_check_interval={interval}, where an epoch has at most {batches} batches",
                "an interval within an epoch",
                "lower it, or set trainer.check_val_every_n_epoch=null to count batches across epochs",
            )
    if config.monitor is not None and dataset.split("val") and config.monitor not in scores:
        raise SegbenchError(
            f"callbacks.checkpoint.monitor={config.monitor}",
            f"a score of the validation: {', '.join(scores)}",
            "choose one; null reports the last checkpoint",
        )


def refuse_single_values(config: Config, model: nn.Module, dataset: DataSet) -> None:
    """Refuse a training in which a normalisation layer would get one value of each channel: it has no deviation.

    Args:
        config: of the run.
        model: its network; it sees an image of zeros.
        dataset: that it trains on; whole images are judged where it knows their sizes, as a scanned folder does.

    Raises:
        SegbenchError: names the layer, and what gives it more values.
    """
    of_batch = {
        name: layer for name, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d)
    }
    of_image = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.InstanceNorm2d)}
    # Synchronised layers see the images of all processes.
    alone = config.data.batch_size == 1 and not (config.trainer.sync_batchnorm and config.trainer.processes > 1)
    watched = of_image | (of_batch if alone else {})
    side = _smallest(config.data.tile, dataset.split("train"))
    if not watched or side is None:
        return
    single: list[str] = []

    def look(name: str, given: Tensor) -> None:
        if math.prod(given.shape[2:]) == 1:
            single.append(name)

    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: look(name, inputs[0]))
        for name, layer in watched.items()
    ]
    images = {name: torch.zeros(1, modality.channels, *side) for name, modality in dataset.spec.modalities.items()}
    training = model.training
    try:
        with torch.no_grad():
            # Not the compiled call: its graph would be of no use later.
            model.eval().forward(next(iter(images.values())) if len(images) == 1 else images)
    except ValueError:
        # A layer for single images refuses in evaluation too, once it was looked at.
        if not single:
            raise
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    if single:
        whole = config.data.tile is None
        found = f"data.tile=null (an image of {side[0]} x {side[1]})" if whole else f"data.tile={config.data.tile}"
        larger = f"data.tile={2 * max(side)}"
        other = f"{larger}, which mirrors small images" if whole else larger
        also = "" if single[0] in of_image else "data.batch_size=2, or "
        raise SegbenchError(
            f"{found} with data.batch_size={config.data.batch_size}: the normalisation layer {single[0]} gets "
            "one value of each channel, whose deviation is none",
            "two values or more",
            f"set {also}{other}, or a network that shrinks its maps less (model.depth)",
        )


def _smallest(tile: int | str | None, source: Source | None) -> tuple[int, int] | None:
    """H and W of the training image whose map shrinks to one value first; None if unknown."""
    if isinstance(tile, int):
        return tile, tile
    known: Callable[[], Collection[tuple[int, int]]] | None = getattr(source, "sizes", None)
    return min(known(), key=max, default=None) if tile is None and known is not None else None


def refuse_limits(config: Config, dataset: DataSet, splits: Mapping[str, str], processes: int) -> None:
    """Refuse a limit (`trainer.limit_test_batches` and the like) that leaves no batch.

    Args:
        config: whose Trainer has the limits.
        dataset: that is read.
        splits: the split that each of the Trainer's stages (train, val, test) reads; others have no limit.
        processes: that share the data.

    Raises:
        SegbenchError: 0, or a share of less than one batch. No batch of `val` is allowed: nothing is validated then.
    """
    for stage, split in splits.items():
        key, limit = f"limit_{stage}_batches", config.trainer.arguments.get(f"limit_{stage}_batches")
        source = dataset.split(split)
        if limit is None or not source or (limit == 0 and stage == "val"):
            continue
        instead = ", or set trainer.max_steps=0 to score without training" if stage == "train" else ""
        if limit == 0:
            raise SegbenchError(
                f"trainer.{key}={limit}", "a number of batches, or a share of them, above 0", f"leave it out{instead}"
            )
        batches = _batches(config, dataset, source, stage, processes)
        if batches and not _limited(config.trainer, stage, batches):
            raise SegbenchError(
                f"trainer.{key}={limit}, where {split} has {batches} batches on each process",
                "a share of at least one batch",
                f"set trainer.{key}=1 for one batch, or leave it out{instead}",
            )


def draws_of(config: Config, dataset: DataSet, source: Source) -> int:
    """How many tiles or images an epoch draws of the training images."""
    if config.data.draw != "pixels":
        return len(source) * config.data.repeats
    head, spec = next(iter(dataset.spec.heads.items()))
    return balanced_draws(class_counts(source, head, spec.num_classes))


def _batches(config: Config, dataset: DataSet, source: Source, stage: str, processes: int) -> int:
    """Batches of an epoch on each process."""
    images = len(source)
    if stage == "train":
        batches = draws_of(config, dataset, source) // (int(config.data.batch_size) * processes)
        overfit = config.trainer.arguments.get("overfit_batches") or batches
        return min(batches, overfit if isinstance(overfit, int) else max(1, int(batches * overfit)))
    return math.ceil(math.ceil(images / processes) / config.data.eval_batch_size)


def _limited(trainer: Trainer, stage: str, batches: int) -> int:
    limit = trainer.arguments.get(f"limit_{stage}_batches")
    if isinstance(limit, int) and not isinstance(limit, bool):
        return min(limit, batches)
    return int(batches * limit) if isinstance(limit, float) else batches


def refuse_finishing(config: Config, classes: Mapping[str, int]) -> None:
    """Refuse calibration, a median filter and contours of other heads than those of two classes.

    Args:
        config: of the run.
        classes: K by head.

    Raises:
        SegbenchError: names the key and the head.
    """
    keys = ("calibration", "median", "contours")
    asked = [f"{key}={value}" for key in keys if (value := getattr(config, key)) is not None]
    if asked and (others := [f"{head} has {K}" for head, K in classes.items() if K != 2]):
        raise SegbenchError(
            f"{' and '.join(asked)}, and {', '.join(others)} classes",
            "heads of two classes, whose probabilities are one grey level",
            f"leave {' and '.join(each.partition('=')[0] for each in asked)} out",
        )


def doubtful(config: Config, heads: Mapping[str, HeadSpec]) -> list[str]:
    """What is allowed and most likely not meant, a sentence each.

    Args:
        config: of the run.
        heads: of its data.
    """
    return [*_of_validation(config), *_of_warm_up(config), *idle_decoding(config.decoding, heads)]


def _of_validation(config: Config) -> list[str]:
    limit = config.trainer.arguments.get("limit_val_batches")
    if config.trainer.arguments.get("fast_dev_run") or limit is None or (limit == 1.0 and isinstance(limit, float)):
        return []
    if limit == 0:
        chosen = f", so {config.monitor} chooses no best checkpoint and the last one is reported"
        return [f"trainer.limit_val_batches=0: nothing is validated{chosen if config.monitor else ''}"]
    return [f"trainer.limit_val_batches={limit}: validations may count a part of their images; results.json says so"]


def _of_warm_up(config: Config) -> list[str]:
    warmup, steps = config.scheduler.arguments.get("warmup_steps"), config.trainer.max_steps
    if isinstance(warmup, int) and 0 <= steps < warmup:
        return [f"scheduler.warmup_steps={warmup} of trainer.max_steps={steps}: the rate never reaches optimizer.lr"]
    return []
