"""A run that was cut off and continued is the run that was not: its weights, its best ones, its rows, its scores."""

import csv
import io
import shutil
import signal

import lightning
import pytest
import torch

from segbench.cli.train import resume_run
from segbench.errors import SegbenchError
from segbench.experiment import build
from segbench.experiment.resume import changed, continuation
from segbench.experiment.train import train
from segbench.runs.directory import Run
from segbench.runtime.signals import Stopped
from segbench.training.callbacks.checkpoints import Checkpoints

# Seven images, two a batch: three steps are an epoch, and one image is left out of each.
SMALL = [
    "name=small",
    "model=unet",
    "model.width=2",
    "model.depth=2",
    "model.dropout=0.3",
    "data.tile=60",
    "data.train=7",
    "data.val=2",
    "data.test=2",
    "data.height=48",
    "data.width=48",
    "data.batch_size=2",
    "data.repeats=1",
    "metrics=overlap",
    "augment=unet",
    "callbacks.panels=null",
    "callbacks.extremes=null",
    "callbacks.checkpoint.every_n_train_steps=2",
    "scheduler.warmup_steps=2",
    "trainer.max_steps=8",
    "trainer.val_check_interval=3",
    "trainer.check_val_every_n_epoch=null",
    "trainer.precision=32-true",
    "trainer.log_every_n_steps=1",
    "task.channels_last=false",
    "threads=1",
    "tta=none",
]
EPOCHS = ["trainer.max_steps=-1", "trainer.max_epochs=3", "trainer.val_check_interval=1.0"]
SETTINGS = {
    "steps": [],
    "epochs": [*EPOCHS, "trainer.check_val_every_n_epoch=1"],
    # A validation after every second epoch.
    "some epochs": [*EPOCHS, "trainer.max_epochs=4", "trainer.check_val_every_n_epoch=2"],
    # Steps of two batches and of the one that is left of an epoch; validations in the midst of a step.
    "accumulated": ["data.batch_size=1", "trainer.accumulate_grad_batches=2", "callbacks=averaged"],
    # Passes of seven batches in epochs of three: a step of two batches and one of one.
    "limited": [
        *(*EPOCHS, "trainer.check_val_every_n_epoch=1", "data.batch_size=1"),
        *("trainer.accumulate_grad_batches=2", "+trainer.limit_train_batches=3"),
    ],
    "no validation": ["data.val=0", "callbacks.checkpoint.monitor=null"],
    "within an epoch": ["trainer.val_check_interval=2", "trainer.check_val_every_n_epoch=1", "data.repeats=2"],
}
QUIET = ["callbacks.panels=null", "callbacks.extremes=null"]


class Cut(RuntimeError):
    """Stands for a SIGKILL: nothing of the run reacts to it."""


class Cutter(lightning.Callback):
    """Cuts off at the n-th time that a hook is called."""

    def __init__(self, hook, number, error=Cut):
        def cut(*arguments):
            self.left -= 1
            if self.left == 0:
                raise error

        self.left = number
        setattr(self, hook, cut)


@pytest.fixture
def cut(monkeypatch):
    """`cut(where, number)`: the training that follows is cut off there; `cut(None)`: none is any more."""

    def at(where, number=1):
        monkeypatch.undo()
        if where is None:
            return
        if where.startswith("on_"):
            original = build.build_callbacks
            monkeypatch.setattr(
                build, "build_callbacks", lambda *arguments: [*original(*arguments), Cutter(where, number)]
            )
            return
        module, name = (torch, "save") if where == "writing" else (Checkpoints, where)
        original, left = getattr(module, name), [number]

        def cutting(*arguments, **named):
            left[0] -= 1
            if left[0] == 0 and where == "writing":
                buffer = io.BytesIO()
                original(arguments[0], buffer)
                arguments[1].write(buffer.getvalue()[: len(buffer.getvalue()) // 2])
                raise Cut
            original(*arguments, **named)
            if left[0] == 0:
                raise Cut

        monkeypatch.setattr(module, name, cutting)

    return at


@pytest.fixture(scope="module")
def whole(compose, tmp_path_factory):
    """`whole(name, *overrides)`: the configuration of a name, and a run of it that nothing cut off."""
    done = {}

    def run(name, *overrides):
        def config():
            return compose(*SMALL, *SETTINGS[name], *QUIET, *overrides)

        key = (name, *overrides)
        if key not in done:
            done[key] = tmp_path_factory.mktemp("whole") / "run"
            train(config(), done[key], [])
        return config, done[key]

    return run


def checkpoint(run, name):
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def rows(run):
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def same(one, other):
    """Whether two nested contents of checkpoints are the same to the last bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def assert_same_run(expected, continued):
    assert not list(continued.rglob(".*.partial"))
    for name in ("last", "previous", "best"):
        assert (expected / "checkpoints" / f"{name}.ckpt").exists() == (
            continued / "checkpoints" / f"{name}.ckpt"
        ).exists()
        if (expected / "checkpoints" / f"{name}.ckpt").exists():
            before, after = checkpoint(expected, name), checkpoint(continued, name)
            for part in ("global_step", "epoch", "state_dict", "optimizer_states", "lr_schedulers", "averaged_model"):
                assert same(before.get(part), after.get(part)), (name, part)
    assert rows(expected) == rows(continued)
    assert Run(expected).results()["metrics"] == Run(continued).results()["metrics"]


CUTS = [
    ("on_train_batch_end", 1),
    ("on_train_batch_end", 3),
    ("on_train_batch_end", 6),
    ("on_train_batch_end", 8),
    ("on_train_batch_start", 4),
    ("on_validation_batch_end", 1),
    ("on_validation_batch_end", 4),
    ("on_train_epoch_end", 1),
    ("on_train_end", 1),
    ("on_test_batch_end", 1),
    ("_write_last", 1),
    ("_write_last", 3),
    ("_write_best", 1),
    ("_record_validation", 1),
    ("_record_validation", 2),
    ("writing", 1),
    ("writing", 3),
]


@pytest.mark.parametrize("where", CUTS, ids=lambda cut: f"{cut[0]}-{cut[1]}")
def test_a_continued_run_is_the_run_that_was_not_cut_off(whole, cut, tmp_path, where):
    config, expected = whole("steps")
    cut(*where)
    with pytest.raises(Cut):
        train(config(), tmp_path / "run", [])
    assert Run(tmp_path / "run").state() == "failed"
    cut(None)
    train(config(), tmp_path / "run", [], resume=True)
    assert_same_run(expected, tmp_path / "run")


OTHER_CUTS = [cut for cut in CUTS if cut[0] not in ("on_train_batch_start", "on_train_end")]


@pytest.mark.slow
@pytest.mark.parametrize("where", OTHER_CUTS, ids=lambda cut: f"{cut[0]}-{cut[1]}")
@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "steps"])
def test_so_it_is_with_other_intervals(whole, cut, tmp_path, name, where):
    config, expected = whole(name)
    cut(*where)
    try:
        train(config(), tmp_path / "run", [])
    except Cut:
        cut(None)
        train(config(), tmp_path / "run", [], resume=True)
    assert_same_run(expected, tmp_path / "run")


@pytest.mark.parametrize("name", ["epochs", "accumulated", "limited"])
def test_so_it_is_in_the_midst_of_epochs_and_steps(whole, cut, tmp_path, name):
    config, expected = whole(name)
    cut("on_validation_batch_end", 4)
    with pytest.raises(Cut):
        train(config(), tmp_path / "run", [])
    cut("on_train_batch_end", 2)
    with pytest.raises(Cut):
        train(config(), tmp_path / "run", [], resume=True)
    cut(None)
    train(config(), tmp_path / "run", [], resume=True)
    assert_same_run(expected, tmp_path / "run")


@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_validation_batch_start"])
def test_a_signal_in_the_midst_of_a_step_changes_no_statistics(whole, monkeypatch, tmp_path, hook):
    config, expected = whole("accumulated", "model.norm=batch", "data.val=1")
    # Six batches of seven are done, in three steps; validations follow the third and the sixth batch.
    number = {"on_train_batch_start": 4, "on_validation_batch_start": 1}[hook]
    original = build.build_callbacks
    cutter = Cutter(hook, number, Stopped(signal.SIGTERM))
    with monkeypatch.context() as patched:
        patched.setattr(build, "build_callbacks", lambda *arguments: [*original(*arguments), cutter])
        with pytest.raises(Stopped):
            train(config(), tmp_path / "run", [])
    assert checkpoint(tmp_path / "run", "last")["global_step"] == 1
    train(config(), tmp_path / "run", [], resume=True)
    assert_same_run(expected, tmp_path / "run")


def test_a_validation_in_the_midst_of_a_step_is_repeated_once(whole, cut, tmp_path):
    # The third batch is the first of the second step; the first step's checkpoint is there.
    config, expected = whole("accumulated", "callbacks.checkpoint.every_n_train_steps=1")
    cut("on_train_batch_start", 4)
    with pytest.raises(Cut):
        train(config(), tmp_path / "run", [])
    assert checkpoint(tmp_path / "run", "last")["global_step"] == 1
    cut(None)
    train(config(), tmp_path / "run", [], resume=True)
    assert_same_run(expected, tmp_path / "run")


@pytest.mark.parametrize("name", ["steps", "epochs"])
def test_loading_processes_change_nothing(whole, cut, tmp_path, name):
    _, expected = whole(name)
    config, _ = whole(name, "data.num_workers=2")
    cut("on_train_batch_end", 5)
    with pytest.raises(Cut):
        train(config(), tmp_path / "run", [])
    cut(None)
    train(config(), tmp_path / "run", [], resume=True)
    assert_same_run(expected, tmp_path / "run")


@pytest.fixture
def short(compose, tmp_path):
    """A finished run of two steps."""
    directory = tmp_path / "short"
    train(compose(*SMALL, "trainer.max_steps=2", "trainer.val_check_interval=2", "data.test=1"), directory, [])
    return Run(directory)


def test_a_run_that_goes_on_records_it(short, tmp_path, caplog):
    before = short.config()
    resume_run([f"resume={short.path}", "trainer.max_steps=4"])
    assert short.recorded() == before.tree
    assert short.config() == before.replace({"trainer.max_steps": 4})
    _, second = short.legs()
    assert (second.step, dict(second.changes)) == (2, {"trainer.max_steps": 4})
    assert short.results()["protocol"]["continued"] == ["at step 2: trainer.max_steps 2 -> 4"]
    assert "the schedule (cosine) is stretched from step 2 on" in (short.path / "run.log").read_text()


@pytest.mark.parametrize("what", ["checkpoints", None])
def test_so_does_a_run_without_history(short, what):
    # Of version 0.1.0, or cut off before its first leg, with nothing done.
    (short.path / "history.jsonl").unlink()
    if what:
        shutil.rmtree(short.path / what)
        short.set_state("interrupted", None)
    before = short.config()
    resume_run([f"resume={short.path}", "trainer.max_steps=4"])
    assert short.recorded() == before.tree
    assert short.config() == before.replace({"trainer.max_steps": 4})
    assert [(leg.step, dict(leg.changes)) for leg in short.legs()] == [(0 if what else 2, {"trainer.max_steps": 4})]


def test_fewer_steps_than_were_done_are_refused_and_nothing_changes(short):
    with pytest.raises(SegbenchError, match=r"max_steps=1 for .*, which has done 2"):
        resume_run([f"resume={short.path}", "trainer.max_steps=1"])
    assert short.state() == "finished"
    assert len(short.legs()) == 1


def test_a_run_that_is_through_says_so(short):
    assert "is finished; trainer.max_steps=N" in continuation({"resume": str(short.path)})
    assert "is finished" in continuation({"resume": str(short.path), "trainer.max_steps": "2"})
    assert continuation({"resume": str(short.path), "trainer.max_steps": "3"}).config.trainer.max_steps == 3


def test_a_run_that_time_ended_goes_on_with_more_of_it(compose, tmp_path):
    directory = tmp_path / "timed"
    limits = ("trainer.max_steps=6", "+trainer.max_time=00:00:00:00", "data.test=1")
    train(compose(*SMALL, *limits), directory, [])
    run = Run(directory)
    done = run.results()["timing"]["steps"]
    assert done < 6 and run.ended_by() == "trainer.max_time"
    assert f"is finished at step {done:.0f} of 6, by trainer.max_time" in continuation({"resume": str(directory)})
    with pytest.raises(SegbenchError, match=r"used up its trainer\.max_time(.|\n)*trainer\.max_time=null"):
        continuation({"resume": str(directory), "trainer.max_steps": "6"})
    resume_run([f"resume={directory}", "trainer.max_time=null"])
    assert run.results()["timing"]["steps"] == 6
    assert run.ended_by() is None


def test_other_pixels_under_the_same_names_are_refused(short):
    digests = short.digests()
    assert set(digests) == {"train", "val", "test"}
    short.write_digests(digests | {"val": "0" * 64})
    with pytest.raises(SegbenchError, match="val: the pixels changed in images of the same names"):
        resume_run([f"resume={short.path}", "trainer.max_steps=4"])
    assert short.state() == "finished"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("trainer.max_steps=many", "a whole number"),
        ("optimizer.lr=1", "a run keeps its configuration"),
        ("resume_allow=weights", "of data, model"),
    ],
)
def test_what_a_resume_does_not_take_is_refused(argument, message):
    with pytest.raises(SegbenchError, match=message):
        changed(dict([("resume", "RUN"), argument.split("=")]))


def test_data_that_moved_are_given_by_their_place(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert changed({"resume": "RUN", "data.root": "there", "trainer.max_time": "null"}) == (
        {"data.root": str(tmp_path / "there"), "trainer.max_time": None},
        (),
    )
