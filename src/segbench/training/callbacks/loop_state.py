"""Where training stands, for Lightning's loops: a function of the number of steps, as the sampler's order is.

Lightning stores how far its loops had come when a checkpoint was written. Resumed from that, it skips a validation that
was due but not done, counts logged steps one off, and knows nothing of other numbers of processes. So the loops are set
from the step alone, as they stand when that step is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning


@dataclass(frozen=True)
class Place:
    """Where a run is when step `step` >= 1 is done and nothing after it has begun.

    Attributes:
        step: optimiser's steps so far.
        epoch: the epoch of that step, from 0.
        batch: batches of the epoch so far, in [1, batches].
        batches: of an epoch.
    """

    step: int
    epoch: int
    batch: int
    batches: int

    @classmethod
    def after(cls, step: int, batches: int, accumulate: int) -> Place:
        """The place after `step` steps of `accumulate` batches; the last step of an epoch may have fewer."""
        steps = -(-batches // accumulate)
        epoch, before = divmod(step - 1, steps)
        return cls(step, epoch, min((before + 1) * accumulate, batches), batches)

    @property
    def total(self) -> int:
        """Batches since the run began."""
        return self.epoch * self.batches + self.batch


def place_after(trainer: lightning.Trainer, step: int) -> Place:
    """The place of a Trainer that is about to fit, after `step` steps; sets up its loaders to know how many batches."""
    trainer.fit_loop.setup_data()
    return Place.after(step, int(trainer.num_training_batches), trainer.accumulate_grad_batches)


def validation_due(trainer: lightning.Trainer, place: Place) -> bool:
    """Whether a validation follows the step, by the Trainer's intervals; its loaders are set up."""
    if not trainer.enable_validation:
        return False
    validation = trainer.fit_loop.epoch_loop.val_loop
    trainer.validating = True
    validation.setup_data()
    trainer.training = True
    every, interval = trainer.check_val_every_n_epoch, trainer.val_check_batch
    if validation.skip or interval in (None, float("inf")):
        return False
    if every is None:
        return place.total % int(interval) == 0
    return (place.epoch + 1) % every == 0 and place.batch % int(interval) == 0


def loops_at(saved: dict[str, Any], place: Place, due: bool, validated: bool, ended: bool) -> dict[str, Any]:
    """The state of the fit loop at a place.

    Args:
        saved: what Lightning stored; the counts of optimiser's steps are taken from it.
        place: where the run is.
        due: a validation follows the step.
        validated: it has been done.
        ended: the step is the run's last one.
    """
    # Between due and done Lightning is told that it was cut off in the midst of the validation: it begins it again.
    pending = due and not validated
    closed = (place.batch == place.batches and not due) or (ended and not pending)
    epochs = place.epoch + 1 if closed else place.epoch
    batch = 0 if closed else place.batch
    opened = 0 if closed else 1
    # Rows are logged under the number of steps that were done before the one that they belong to.
    logged = place.step - 1 if due and not (ended and validated) else place.step
    return saved | {
        "epoch_progress": _both(_progress(epochs + opened, epochs)),
        "epoch_loop.batch_progress": {
            "total": _progress(place.total, place.total),
            "current": _progress(batch, batch),
            "is_last_batch": batch == place.batches,
        },
        "epoch_loop.val_loop.batch_progress": _both(_progress(int(pending), 0)) | {"is_last_batch": False},
        "epoch_loop.state_dict": saved["epoch_loop.state_dict"] | {"_batches_that_stepped": logged},
    }


def _progress(started: int, done: int) -> dict[str, int]:
    return {"ready": started, "started": started, "processed": done, "completed": done}


def _both(progress: dict[str, int]) -> dict[str, Any]:
    return {"total": dict(progress), "current": dict(progress)}
