"""Everything that reaches into Lightning's private parts, each with its reason and the version it was seen in.

Private are names with an underscore, the loops below `trainer.fit_loop` and the state that they store, attributes of a
Trainer that are set from outside, and whatever its documentation leaves open. Elsewhere nothing of this is touched.
`tests/training/test_lightning_internals.py` names what broke when a later Lightning differs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import lightning
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.strategies import DDPStrategy

# Signals


def catch_no_signals(trainer: lightning.Trainer) -> None:
    """Keep Lightning from installing its SIGTERM handler.

    Lightning 2.6.6: the handler starts a broadcast wherever the signal finds the process, while the other ranks are in
    another collective; they hang. `InStep` stops all ranks between the same two steps instead.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


def broadcast_no_signals(trainer: lightning.Trainer) -> None:
    """Keep Lightning from asking rank 0 before each batch whether a signal came.

    Lightning 2.6.6: the answer is a tensor on the GPU that the CPU reads, so each step waits for the one before it.
    `InStep` asks on the CPU, beside the computation.
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


# Several processes


def wait_at_most(trainer: lightning.Trainer, seconds: float) -> None:
    """How long a process waits for another one, before the processes have met.

    Lightning 2.6.6: only a strategy object takes it, while `trainer.strategy` may be a name or `auto`; what it was
    given is private.
    """
    if hasattr(trainer.strategy, "_timeout"):
        trainer.strategy._timeout = timedelta(seconds=seconds)


def waits_for_every_gradient(trainer: lightning.Trainer) -> bool:
    """Whether a training fails in its second step if a trained weight got no gradient in the first.

    Lightning 2.6.6: it keeps what it gives DistributedDataParallel to itself, and `trainer.strategy` may be a name
    (`ddp_find_unused_parameters_true`) or an object.
    """
    strategy = trainer.strategy
    return isinstance(strategy, DDPStrategy) and not any(
        strategy._ddp_kwargs.get(key) for key in ("find_unused_parameters", "static_graph")
    )


class OneGpuEach(SLURMEnvironment):
    """Tasks of srun that see one GPU each, as cuda:0: to Lightning each is a node of one process.

    Lightning 2.6.6: it takes the device of a task's number on its machine, and compares tasks per machine with devices.
    """

    def local_rank(self) -> int:
        """The number of the device."""
        return 0

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """The number of tasks was read from srun itself."""


# Evaluations


def evaluate_within(trainer: lightning.Trainer, context: Callable[[], AbstractContextManager[object]]) -> None:
    """Run each validation and test, and the failures in it, within a context.

    Lightning 2.6.6: a precision plugin has a context for each batch only, and the hooks at the start and end of an
    evaluation have no one that follows a failure. The evaluation loop of a training lies below `fit_loop`.
    """
    for loop in (trainer.validate_loop, trainer.test_loop, trainer.fit_loop.epoch_loop.val_loop):

        def run(evaluation: Callable[[], Any] = loop.run) -> Any:
            with context():
                return evaluation()

        loop.run = run  # type: ignore[method-assign]


# Checkpoints and logs


def write_checkpoints_with(trainer: lightning.Trainer, files: CheckpointIO) -> None:
    """Have `files` write the checkpoints of a Trainer that is built already.

    Lightning 2.6.6: only `Trainer(plugins=...)` is documented, which a callback comes too late for. Without this,
    checkpoints go through memory and the system's temporary folder, and `last.ckpt` is replaced without being kept.
    """
    trainer.strategy.checkpoint_io = files


def logs_now(trainer: lightning.Trainer) -> bool:
    """Whether the values that this training step logs are written.

    `log` costs half a millisecond in every step, so it is called only where the value is used. Lightning 2.6.6: which
    one of `log_every_n_steps` steps that is (the last) is documented nowhere, and a private connector decides it.
    """
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return every > 0 and (trainer.global_step + 1) % every == 0


def step_to_read(trainer: lightning.Trainer, before: int) -> bool:
    """Whether the batch that just ended also ended a step whose logged values are read from the device.

    Nothing else should be read in a step: it makes the host wait, so that the device idles. Lightning 2.6.6: it reads
    what was logged at the end of those steps, as `logs_now` says.

    Args:
        trainer: in `on_train_batch_end`.
        before: `trainer.global_step` when the batch began.
    """
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return every > 0 and trainer.global_step > before and trainer.global_step % every == 0


# Accumulated batches


def batches_of_step(trainer: lightning.Trainer, batch_idx: int) -> int:
    """The number of batches whose gradients make up the step that batch `batch_idx` of its epoch belongs to.

    Lightning 2.6.6: it divides each batch's loss by `accumulate_grad_batches`, and also steps after the last batch of
    an epoch, where fewer may have come together: that step is too small. Which batches form a step is documented
    nowhere.
    """
    accumulate = trainer.accumulate_grad_batches
    first = batch_idx - batch_idx % accumulate
    return int(min(accumulate, trainer.num_training_batches - first))


# Resuming: the state of the loops follows from the number of steps, as the sampler's order does


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
    """The place of a Trainer that is about to fit, after `step` steps.

    Lightning 2.6.6: `num_training_batches` is infinite until the fit loop has set up its loaders, which happens only
    after checkpoints are loaded.
    """
    trainer.fit_loop.setup_data()
    return Place.after(step, int(trainer.num_training_batches), trainer.accumulate_grad_batches)


def validation_due(trainer: lightning.Trainer, place: Place) -> bool:
    """Whether a validation follows the step at `place`; call `place_after` first.

    Lightning 2.6.6: `val_check_batch` and whether there is anything to validate are known only when the loops have set
    up their loaders; the rule by which it validates stands in a method of the private epoch loop.
    """
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


def set_loops(checkpoint: dict[str, Any], place: Place, due: bool, validated: bool, ended: bool) -> None:
    """Set the fit loop's state in a loaded checkpoint, in place, to where step `place.step` leaves it.

    Lightning 2.6.6: the stored state is that of the moment of writing. Resumed from it, Lightning skips a validation
    that was due but not done, counts logged steps one off, and ignores another number of processes. Callbacks get the
    checkpoint before the loops read it.

    Args:
        checkpoint: as `on_load_checkpoint` of a callback gets it; its counts of optimiser's steps stay.
        place: where the run is.
        due: a validation follows the step.
        validated: it is done.
        ended: the step is the run's last.
    """
    # Due but not done is stored as a validation that was interrupted: Lightning begins it again.
    pending = due and not validated
    closed = (place.batch == place.batches and not due) or (ended and not pending)
    epochs = place.epoch + 1 if closed else place.epoch
    batch = 0 if closed else place.batch
    opened = 0 if closed else 1
    # Rows are logged under the number of steps done before their own.
    logged = place.step - 1 if due and not (ended and validated) else place.step
    saved = checkpoint["loops"]["fit_loop"]
    checkpoint["loops"]["fit_loop"] = saved | {
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


def count_logged_steps(trainer: lightning.Trainer) -> None:
    """Number the next logged row by the steps done; call it before the first batch after a resume.

    Lightning 2.6.6: resumed at the end of an epoch that no validation follows, it counts a step that logs nothing.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


def set_last_step(trainer: lightning.Trainer, step: int) -> None:
    """End the training after `step` steps; from `on_fit_start` on, optimiser and schedule keep the length they know.

    Lightning 2.6.6: resumed at its last step it leaves before a validation that is still due. With one more step
    announced it validates; the former number, set back in `on_validation_end`, then ends it without training.
    """
    trainer.fit_loop.epoch_loop.max_steps = step
