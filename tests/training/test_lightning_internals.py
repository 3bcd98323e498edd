"""Canaries: they name what broke, and which of our functions needs it, when another Lightning is installed."""

import contextlib
import copy
import inspect
import signal
from functools import partial

import lightning
import pytest
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader

from segbench.runtime.log import log_to
from segbench.spec import Batch
from segbench.training import lightning_internals
from segbench.training.lightning_internals import (
    Place,
    batches_of_step,
    broadcast_no_signals,
    catch_no_signals,
    count_logged_steps,
    evaluate_within,
    logs_now,
    place_after,
    set_last_step,
    set_loops,
    step_to_read,
    validation_due,
    wait_at_most,
    waits_for_every_gradient,
    write_checkpoints_with,
)

INSTALLED = f"Lightning {lightning.__version__}"


class Before(lightning.Callback):
    """Calls functions with the Trainer before it fits."""

    def __init__(self, *functions):
        self.functions = functions

    def setup(self, trainer, pl_module, stage):
        for function in self.functions:
            function(trainer)


class Rows(Logger):
    """The steps under which rows are logged."""

    name = version = ""

    def __init__(self):
        super().__init__()
        self.steps = []

    def log_metrics(self, metrics, step=None):
        self.steps.append(step)

    def log_hyperparams(self, *arguments, **named):
        pass


@pytest.fixture
def logging(scripted):
    """A module that logs in every step, and knows the steps of which `logs_now` says that the values are written, and
    those of which `step_to_read` says that they are read."""

    class Logging(scripted):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.expected, self.read = [], []

        def on_train_batch_end(self, outputs, batch, batch_idx):
            if step_to_read(self.trainer, self.before):
                self.read.append(self.before)

        def training_step(self, batch, batch_idx):
            self.before = self.trainer.global_step
            if logs_now(self.trainer) and self.trainer.global_step not in self.expected:
                self.expected.append(self.trainer.global_step)
            loss = super().training_step(batch, batch_idx)
            self.log("train/loss", loss.detach(), batch_size=1)
            return loss

    return Logging


@pytest.mark.parametrize(
    ("function", "path"),
    [
        (catch_no_signals, "_signal_connector.register_signal_handlers"),
        (broadcast_no_signals, "fit_loop.epoch_loop._broadcast_sigterm_tensor"),
        (write_checkpoints_with, "strategy.checkpoint_io"),
        (logs_now, "log_every_n_steps"),
        (step_to_read, "log_every_n_steps"),
        (batches_of_step, "accumulate_grad_batches"),
        (batches_of_step, "num_training_batches"),
        (place_after, "fit_loop.setup_data"),
        (place_after, "num_training_batches"),
        (validation_due, "fit_loop.epoch_loop.val_loop.setup_data"),
        (validation_due, "fit_loop.epoch_loop.val_loop.skip"),
        (validation_due, "enable_validation"),
        (validation_due, "check_val_every_n_epoch"),
        (validation_due, "val_check_batch"),
        (set_loops, "fit_loop.epoch_loop.batch_progress"),
        (set_loops, "fit_loop.epoch_loop.val_loop.batch_progress"),
        (set_loops, "fit_loop.epoch_progress"),
        (count_logged_steps, "fit_loop.epoch_loop._batches_that_stepped"),
        *((evaluate_within, loop) for loop in ("validate_loop", "test_loop", "fit_loop.epoch_loop.val_loop")),
        (set_last_step, "fit_loop.epoch_loop.max_steps"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_private_part_is_there(function, path, tmp_path):
    part = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    for name in path.split("."):
        assert hasattr(part, name), f"{INSTALLED}: no trainer.{path}, which {function.__name__} needs"
        part = getattr(part, name)
    if callable(part):
        asked = [p.name for p in inspect.signature(part).parameters.values() if p.default is p.empty]
        assert asked == [], f"{INSTALLED}: trainer.{path} takes {asked}; {function.__name__} stands for it without any"


@pytest.mark.parametrize(
    ("strategy", "waits"),
    [
        ("auto", False),
        ("ddp", True),
        ("ddp_find_unused_parameters_false", True),
        ("ddp_find_unused_parameters_true", False),
        (DDPStrategy(static_graph=True), False),
        (DDPStrategy(gradient_as_bucket_view=True), True),
    ],
)
def test_lightning_keeps_what_it_gives_to_ddp(strategy, waits, tmp_path):
    trainer = lightning.Trainer(
        accelerator="cpu", strategy=strategy, logger=False, enable_checkpointing=False, default_root_dir=tmp_path
    )
    assert waits_for_every_gradient(trainer) == waits, f"{INSTALLED}: waits_for_every_gradient is wrong of {strategy}"


def test_every_function_has_its_reason_with_a_version_and_is_watched_here():
    functions = {
        name
        for name, value in vars(lightning_internals).items()
        if inspect.isfunction(value) and value.__module__ == lightning_internals.__name__ and not name.startswith("_")
    }
    unwatched = functions - globals().keys()
    assert unwatched == set(), f"no canary for {unwatched}"
    silent = [name for name in functions if "Lightning 2." not in (getattr(lightning_internals, name).__doc__ or "")]
    assert silent == [], f"{silent}: the docstring names no version of Lightning in which the reason was seen"


def test_lightning_sets_no_signal_handler(fit, scripted):
    class Handler(lightning.Callback):
        def on_train_batch_end(self, *arguments):
            self.seen = signal.getsignal(signal.SIGTERM)

    def own(signum, frame):
        raise AssertionError

    lightnings, ours = Handler(), Handler()
    before = signal.signal(signal.SIGTERM, own)
    try:
        fit(scripted(), lightnings, steps=1)
        fit(scripted(), Before(catch_no_signals), ours, steps=1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ours.seen is own, f"{INSTALLED} sets a SIGTERM handler in another way: catch_no_signals does not stop it"
    assert lightnings.seen is not own, f"{INSTALLED} sets no SIGTERM handler any more: delete catch_no_signals"


def test_lightning_broadcasts_no_signal(on_ranks, scripted, fit):
    def run(rank):
        broadcast, counts = dist.broadcast, []
        for functions in ((), (broadcast_no_signals,)):
            sent = []
            dist.broadcast = lambda tensor, *rest, _sent=sent, **named: [
                _sent.append(tuple(tensor.shape)),
                broadcast(tensor, *rest, **named),
            ]
            distributed = {"devices": 2, "strategy": "ddp", "plugins": LightningEnvironment()}
            fit(scripted(), Before(catch_no_signals, *functions), steps=3, **distributed)
            counts.append(sent.count((1,)))
        return counts

    for lightnings, ours in on_ranks(2, run):
        assert ours == 0, f"{INSTALLED} asks for signals in another way: broadcast_no_signals does not stop it"
        assert lightnings == 3, f"{INSTALLED} asks for no signal before each batch: delete broadcast_no_signals"


def test_checkpoints_are_written_by_the_given_files_and_a_barrier_follows(fit, scripted, tmp_path):
    done = []

    class Files(TorchCheckpointIO):
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            done.append((path.name, storage_options))

    files = Files()

    class Save(lightning.Callback):
        def on_train_end(self, trainer, pl_module):
            used = trainer.strategy.checkpoint_io
            assert used is files, f"{INSTALLED}: write_checkpoints_with has no effect, {used} writes them"
            trainer.strategy.barrier = lambda name=None: done.append("barrier")
            trainer.save_checkpoint(tmp_path / "a.ckpt", storage_options={"keep": "b.ckpt"})
            del trainer.strategy.barrier

    fit(scripted(), Before(partial(write_checkpoints_with, files=files)), Save(), steps=1)
    assert done[:1] == [("a.ckpt", {"keep": "b.ckpt"})], (
        f"{INSTALLED}: trainer.save_checkpoint does not hand path and storage_options to its checkpoint_io"
    )
    assert done[1:] == ["barrier"], f"{INSTALLED}: no barrier after trainer.save_checkpoint, where all ranks read it"


@pytest.mark.parametrize(
    ("every", "accumulate", "expected"), [(1, 1, [0, 1, 2, 3, 4, 5, 6]), (3, 1, [2, 5]), (3, 2, [2, 5]), (0, 1, [])]
)
def test_values_are_written_in_the_steps_that_logs_now_names(fit, logging, every, accumulate, expected):
    module, rows = logging(), Rows()
    fit(module, steps=7, logger=rows, log_every_n_steps=every, accumulate_grad_batches=accumulate)
    assert module.expected == expected
    assert rows.steps == expected, f"{INSTALLED} writes the steps {rows.steps} of 7, not those of logs_now: {expected}"
    assert module.read == expected, f"{INSTALLED}: step_to_read names {module.read}, not {expected}"


@pytest.mark.parametrize("accumulate", [1, 2, 3, 5, 7])
def test_a_step_takes_the_batches_that_are_left_but_is_divided_by_all(fit, scripted, accumulate):
    class Steps(lightning.Callback):
        def __init__(self):
            self.expected, self.batches, self.weights = [], [], []

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.expected.append(batches_of_step(trainer, batch_idx))
            if trainer.global_step > len(self.weights):
                self.batches.append(batch_idx)
                self.weights.append(pl_module.model.weight.item())

    steps = Steps()
    fit(scripted(), steps, steps=-1, max_epochs=1, limit_train_batches=5, accumulate_grad_batches=accumulate)
    ends = [*range(accumulate - 1, 4, accumulate), 4]
    held = [end - before for before, end in zip([-1, *ends], ends, strict=False)]
    assert steps.batches == ends, f"{INSTALLED} steps after batches {steps.batches}, not {ends}: see batches_of_step"
    assert steps.expected == [number for number in held for _ in range(number)]
    moved = [before - after for before, after in zip([0, *steps.weights], steps.weights, strict=False)]
    assert moved == pytest.approx([number / accumulate for number in held]), (
        f"{INSTALLED} divides the gradients of a step by something else: see batches_of_step"
    )


def shape(state):
    """The names in nested dicts, without their values."""
    return {key: shape(value) for key, value in state.items()} if isinstance(state, dict) else None


def test_the_loops_store_what_is_set(fit, scripted):
    saved = fit(scripted([0.5, 0.5]), steps=2).fit_loop.state_dict()
    checkpoint = {"loops": {"fit_loop": copy.deepcopy(saved)}}
    set_loops(checkpoint, Place.after(2, 100, 1), due=True, validated=False, ended=False)
    ours = shape(checkpoint["loops"]["fit_loop"])
    assert ours == shape(saved), f"{INSTALLED}: set_loops sets other names than its loops store"


class Save(lightning.Callback):
    """Writes a checkpoint after a step, before its validation."""

    def __init__(self, path, step):
        self.path, self.step = path, step

    def on_validation_start(self, trainer, pl_module):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer, pl_module):
        self.on_validation_start(trainer, pl_module)


class Resume(lightning.Callback):
    """Continues from the checkpoint of `Save`, by functions of `lightning_internals`."""

    def __init__(self, ended=False, also=()):
        self.ended, self.also = ended, also

    def on_load_checkpoint(self, trainer, pl_module, checkpoint):
        self.place = place_after(trainer, checkpoint["global_step"])
        self.due = validation_due(trainer, self.place)
        set_loops(checkpoint, self.place, self.due, validated=False, ended=self.ended)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if count_logged_steps in self.also and trainer.global_step == self.place.step:
            count_logged_steps(trainer)

    def on_fit_start(self, trainer, pl_module):
        if set_last_step in self.also:
            set_last_step(trainer, 3)

    def on_validation_end(self, trainer, pl_module):
        if set_last_step in self.also:
            set_last_step(trainer, 2)


@pytest.fixture
def saved(fit, scripted, tmp_path):
    """The checkpoint of step 2."""
    fit(scripted([0.5, 0.5]), Save(tmp_path / "saved.ckpt", 2), steps=2)
    return tmp_path / "saved.ckpt"


def test_a_validation_that_is_due_is_done(fit, scripted, saved):
    lightnings, ours, resume = scripted([0.5, 0.5]), scripted([0.5, 0.5]), Resume()
    fit(ours, resume, steps=3, resume=saved)
    assert (resume.place, resume.due) == (Place(2, 0, 2, 100), True), f"{INSTALLED}: its loaders are set up otherwise"
    assert ours.validated_with == [-2, -3], f"{INSTALLED} does not validate where set_loops leaves it before that"
    fit(lightnings, steps=3, resume=saved)
    assert lightnings.validated_with == [-3], f"{INSTALLED} makes up for a validation itself: is set_loops needed?"


@pytest.mark.parametrize(
    ("settings", "step", "expected"),
    [
        ({"validate_every": 2}, 3, False),
        ({"validate_every": 2}, 4, True),
        ({"limit_train_batches": 3, "check_val_every_n_epoch": 1, "val_check_interval": 1.0}, 2, False),
        ({"limit_train_batches": 3, "check_val_every_n_epoch": 1, "val_check_interval": 1.0}, 3, True),
        ({"limit_train_batches": 3, "check_val_every_n_epoch": 2, "val_check_interval": 1.0}, 3, False),
        ({"limit_train_batches": 3, "check_val_every_n_epoch": 2, "val_check_interval": 1.0}, 6, True),
    ],
)
def test_lightning_validates_when_it_is_due(fit, scripted, settings, step, expected):
    class Due(lightning.Callback):
        def on_fit_start(self, trainer, pl_module):
            self.expected = [n for n in range(1, 8) if validation_due(trainer, place_after(trainer, n))]
            self.seen = []

        def on_validation_start(self, trainer, pl_module):
            self.seen.append(trainer.global_step)

    due = Due()
    fit(scripted([0.5] * 7), due, steps=7, **settings)
    assert (step in due.expected) is expected
    assert due.expected == due.seen, f"{INSTALLED} validates after steps {due.seen}, not as validation_due has it"


def test_a_validation_that_is_due_after_the_last_step_is_done(fit, scripted, saved):
    class Lengths(scripted):
        def configure_optimizers(self):
            self.length = self.trainer.estimated_stepping_batches
            return super().configure_optimizers()

    lightnings, ours = scripted([0.5]), Lengths([0.5])
    fit(lightnings, Resume(ended=True), steps=2, resume=saved)
    assert lightnings.validated_with == [], f"{INSTALLED} validates after the last step itself: delete set_last_step"
    trainer = fit(ours, Resume(ended=True, also=[set_last_step]), steps=2, resume=saved)
    assert ours.validated_with == [-2], f"{INSTALLED} does not validate although set_last_step has announced a step"
    assert trainer.global_step == 2, f"{INSTALLED} trains on although set_last_step has set the last step back"
    assert ours.length == 2, f"{INSTALLED} configures optimisers after on_fit_start: they see what set_last_step sets"


def test_rows_after_a_resume_have_their_step(fit, logging, tmp_path):
    every_other_epoch = {"limit_train_batches": 3, "check_val_every_n_epoch": 2, "val_check_interval": 1.0}
    fit(logging([0.5]), Save(tmp_path / "saved.ckpt", 3), steps=3, **every_other_epoch)
    written = []
    for also in ((), (count_logged_steps,)):
        rows, resume = Rows(), Resume(also=also)
        settings = {"logger": rows, "log_every_n_steps": 1, **every_other_epoch}
        fit(logging([0.5]), resume, steps=5, resume=tmp_path / "saved.ckpt", **settings)
        assert not resume.due
        written.append(rows.steps)
    assert written[1] == [3, 4], f"{INSTALLED} counts logged steps otherwise: count_logged_steps does not set them"
    assert written[0] == [4, 5], f"{INSTALLED} counts logged steps right after a resume: delete count_logged_steps"


SAVED = {"epoch_loop.state_dict": {"_batches_that_stepped": 99}, "epoch_loop.automatic_optimization": "kept"}


@pytest.mark.parametrize(
    ("step", "batches", "accumulate", "epoch", "batch", "total"),
    [
        (1, 5, 1, 0, 1, 1),
        (5, 5, 1, 0, 5, 5),
        (6, 5, 1, 1, 1, 6),
        # Steps of two batches, the third of the one that is left.
        (1, 5, 2, 0, 2, 2),
        (3, 5, 2, 0, 5, 5),
        (4, 5, 2, 1, 2, 7),
        (6, 5, 2, 1, 5, 10),
        (3, 1, 4, 2, 1, 3),
    ],
)
def test_the_place_follows_from_the_step(step, batches, accumulate, epoch, batch, total):
    place = Place.after(step, batches, accumulate)
    assert (place.epoch, place.batch, place.total) == (epoch, batch, total)


def progress(state, name):
    return [
        tuple(state[name][part][key] for key in ("ready", "started", "processed", "completed"))
        for part in ("total", "current")
    ]


@pytest.mark.parametrize(
    ("step", "due", "validated", "ended", "epochs", "current", "logged", "validating"),
    [
        # In the midst of an epoch: it has begun and not ended.
        (6, False, False, False, (2, 1), 1, 6, 0),
        # At an epoch's last batch nothing is to be done: the next one is yet to begin.
        (5, False, False, False, (1, 1), 0, 5, 0),
        # A validation that is still to come belongs to the epoch, and is logged under the steps before its own.
        (5, True, False, False, (1, 0), 5, 4, 1),
        (5, True, True, False, (1, 0), 5, 4, 0),
        # The run's last step: a validation may be missing; else there is nothing to go back to.
        (7, True, False, True, (2, 1), 2, 6, 1),
        (7, True, True, True, (2, 2), 0, 7, 0),
        (7, False, False, True, (2, 2), 0, 7, 0),
    ],
)
def test_the_loops_stand_where_the_step_leaves_them(step, due, validated, ended, epochs, current, logged, validating):
    place = Place.after(step, 5, 1)
    checkpoint = {"loops": {"fit_loop": SAVED}}
    set_loops(checkpoint, place, due, validated, ended)
    state = checkpoint["loops"]["fit_loop"]
    begun, done = epochs
    assert progress(state, "epoch_progress") == [(begun, begun, done, done)] * 2
    assert progress(state, "epoch_loop.batch_progress") == [(place.total,) * 4, (current,) * 4]
    assert state["epoch_loop.batch_progress"]["is_last_batch"] is (current == 5)
    assert progress(state, "epoch_loop.val_loop.batch_progress") == [(validating, validating, 0, 0)] * 2
    assert state["epoch_loop.state_dict"] == {"_batches_that_stepped": logged}
    assert state["epoch_loop.automatic_optimization"] == "kept"


@pytest.mark.parametrize("strategy", ["ddp", "ddp_find_unused_parameters_true", DDPStrategy(), "auto"])
def test_a_strategy_waits_as_long_as_it_is_told(strategy, monkeypatch):
    met = []
    monkeypatch.setattr(
        "lightning.pytorch.strategies.ddp._init_dist_connection",
        lambda environment, backend, **named: met.append(named["timeout"].total_seconds()),
    )
    trainer = lightning.Trainer(
        strategy=strategy, devices=2, accelerator="cpu", logger=False, enable_checkpointing=False
    )
    wait_at_most(trainer, 12.0)
    trainer.strategy.setup_distributed()
    assert met == [12.0], f"wait_at_most: {INSTALLED} keeps the timeout elsewhere"


def test_one_process_waits_for_nobody():
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    wait_at_most(trainer, 12.0)


@pytest.mark.parametrize("verb", ["fit", "validate", "test"])
def test_lightning_evaluates_by_the_loops_that_are_wrapped(scripted, tmp_path, verb):
    class Module(scripted):
        def test_step(self, batch, batch_idx):
            within.append(bool(entered))

        def validation_step(self, batch, batch_idx):
            within.append(bool(entered))

    @contextlib.contextmanager
    def context():
        entered.append(None)
        yield
        entered.pop()

    entered, within = [], []
    settings = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=1, enable_model_summary=False, default_root_dir=tmp_path, **settings
    )
    evaluate_within(trainer, context)
    samples = DataLoader([0], collate_fn=lambda batch: Batch({"em": torch.ones(2, 1)}, {}, ("a",), (0,), ((1, 1),)))
    with log_to(None):
        getattr(trainer, verb)(Module(), *([samples] * (2 if verb == "fit" else 1)))
    assert within, f"{INSTALLED}: nothing was evaluated"
    assert all(within), f"{INSTALLED} evaluates by other loops: evaluate_within casts weights for each batch again"
    assert not entered
