"""What would go wrong in a training and can be seen before it begins."""

from __future__ import annotations

import math
from collections.abc import Collection

from segbench.config.record import Config
from segbench.data.raw import DataSet
from segbench.errors import SegbenchError


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
    if trainer.arguments.get("overfit_batches"):
        raise SegbenchError(
            f"trainer.overfit_batches={trainer.arguments['overfit_batches']}",
            "no such setting: Lightning replaces the sampler, which also decides the augmentation",
            "for the same few batches in each epoch: +trainer.limit_train_batches=N augment=none",
        )
    for name in ("limit_train_batches", "limit_test_batches"):
        if trainer.arguments.get(name) == 0:
            raise SegbenchError(
                f"trainer.{name}=0",
                "a number of batches, or a share of them, above 0",
                f"leave it out{', or set trainer.max_steps=0 to score without training' if 'train' in name else ''}",
            )
    source = dataset.split("train")
    interval = trainer.val_check_interval
    if source and isinstance(interval, int) and trainer.check_val_every_n_epoch is not None:
        batches = math.ceil(len(source) * config.data.repeats / (config.data.batch_size * processes))
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


def doubtful(config: Config) -> list[str]:
    """What is allowed and most likely not meant, a sentence each."""
    warmup, steps = config.scheduler.arguments.get("warmup_steps"), config.trainer.max_steps
    if isinstance(warmup, int) and 0 <= steps < warmup:
        return [f"scheduler.warmup_steps={warmup} of trainer.max_steps={steps}: the rate never reaches optimizer.lr"]
    return []
