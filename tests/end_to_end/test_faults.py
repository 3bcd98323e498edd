"""What breaks a run: signals, damaged files, a full disk, another machine, data or network, a rank that fails."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import lightning
import pytest
import torch
from tests.fixtures.wandb_server import records

from segbench.cli.train import resume_run
from segbench.errors import SegbenchError
from segbench.experiment import build
from segbench.experiment.resume import changed
from segbench.experiment.train import train
from segbench.experiment.unchanged import other_machine
from segbench.models.unet import UNet
from segbench.runs.directory import Run
from segbench.runtime import signals as stopping
from segbench.runtime.signals import Stopped, deferred, received, stoppable

SMALL = [
    "name=small",
    "model=unet",
    "model.width=2",
    "model.depth=2",
    "model.dropout=0.3",
    "data.tile=60",
    "data.train=6",
    "data.val=3",
    "data.test=3",
    "data.height=48",
    "data.width=48",
    "data.batch_size=1",
    "data.repeats=1",
    "metrics=overlap",
    "augment=unet",
    "callbacks.panels=null",
    "callbacks.extremes=null",
    "callbacks.checkpoint.every_n_train_steps=100",
    "scheduler.warmup_steps=2",
    "trainer.max_steps=8",
    "trainer.val_check_interval=4",
    "trainer.check_val_every_n_epoch=null",
    "trainer.precision=32-true",
    "trainer.log_every_n_steps=1",
    "task.channels_last=false",
    "threads=1",
    "tta=none",
]


@pytest.fixture(scope="module")
def config(compose):
    """`config(*overrides)`: a small run."""
    return lambda *overrides: compose(*SMALL, *overrides)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The small run, undisturbed; read it, do not write into it."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    train(config("callbacks.checkpoint.every_n_train_steps=2"), directory, [])
    return directory


def steps(run):
    return {
        path.stem: torch.load(path, weights_only=True)["global_step"] for path in (run / "checkpoints").glob("*.ckpt")
    }


def weights(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class At(lightning.Callback):
    """Does something the n-th time that a hook is called."""

    def __init__(self, hook, number, act):
        def acting(*arguments):
            self.left -= 1
            if self.left == 0:
                act()

        self.left = number
        setattr(self, hook, acting)


@pytest.fixture
def at(monkeypatch):
    """`at(hook, number, act)`: in the trainings that follow."""
    original = build.build_callbacks

    def planned(hook, number, act):
        callbacks = lambda *arguments: [*original(*arguments), At(hook, number, act)]  # noqa: E731
        monkeypatch.setattr(build, "build_callbacks", callbacks)

    planned.never = lambda: monkeypatch.setattr(build, "build_callbacks", original)
    return planned


def send(*signals):
    return lambda: [os.kill(os.getpid(), signum) for signum in signals]


# Signals


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGHUP, 143), (signal.SIGINT, 130)],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_signal_stops_a_run_after_its_step_with_a_checkpoint(config, whole, at, tmp_path, capsys, signum, code):
    at("on_train_batch_end", 3, send(signum))
    with pytest.raises(Stopped) as stopped:
        train(config(), tmp_path / "run", [])
    assert stopped.value.code == code
    run = Run(tmp_path / "run")
    assert run.state() == "interrupted"
    assert steps(run.path) == {"last": 3}
    assert "stopped by" in (run.path / "run.log").read_text()
    at.never()
    train(config(), run.path, [], resume=True)
    assert run.state() == "finished"
    assert equal(weights(run.path), weights(whole))
    assert run.results()["metrics"] == Run(whole).results()["metrics"]


@pytest.mark.parametrize(
    ("hook", "number", "last"),
    [
        ("on_validation_batch_start", 2, 4),
        ("on_validation_batch_start", 5, 8),
        ("on_test_batch_start", 1, 8),
        ("on_train_end", 1, 8),
    ],
    ids=["validation", "last validation", "test", "end"],
)
def test_a_signal_in_an_evaluation_does_not_wait_for_its_end(config, whole, at, tmp_path, hook, number, last):
    at(hook, number, send(signal.SIGTERM))
    with pytest.raises(Stopped):
        train(config(), tmp_path / "run", [])
    assert steps(tmp_path / "run")["last"] == last
    assert not (tmp_path / "run" / "results.json").exists()
    at.never()
    train(config(), tmp_path / "run", [], resume=True)
    assert equal(weights(tmp_path / "run"), weights(whole))
    assert Run(tmp_path / "run").results()["metrics"] == Run(whole).results()["metrics"]


def test_a_signal_before_the_first_step_stops_at_once(config, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "build_dataset", lambda *_: send(signal.SIGTERM)())
    with pytest.raises(Stopped):
        train(config(), tmp_path / "run", [])
    assert Run(tmp_path / "run").state() == "interrupted"
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_what_breaks_because_of_a_signal_is_an_interruption(config, at, tmp_path):
    def broken():
        send(signal.SIGTERM)()
        raise RuntimeError("a worker was killed by the same signal")

    at("on_train_batch_end", 2, broken)
    with pytest.raises(Stopped) as stopped:
        train(config("callbacks.checkpoint.every_n_train_steps=1"), tmp_path / "run", [])
    assert stopped.value.code == 143
    assert Run(tmp_path / "run").state() == "interrupted"
    assert "RuntimeError: a worker was killed" in (tmp_path / "run" / "run.log").read_text()


def test_the_first_ctrl_c_waits_and_one_that_is_passed_on_is_the_same(monkeypatch):
    with pytest.raises(Stopped) as stopped, stoppable(), deferred():
        send(signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGTERM)()
        assert received() == signal.SIGINT
    assert stopped.value.code == 130


def test_a_second_ctrl_c_ends_at_once(monkeypatch):
    reached = []
    with stoppable(), pytest.raises(KeyboardInterrupt), deferred():
        send(signal.SIGINT)()
        monkeypatch.setattr(stopping, "AGAIN_S", 0.0)
        reached.append(1)
        send(signal.SIGINT)()
        reached.append(2)
    assert reached == [1]


def test_signals_that_are_ignored_stay_so_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable(), deferred():
            send(signal.SIGHUP)()
            assert received() == 0
            with stoppable():
                pass
            assert signal.getsignal(signal.SIGTERM) is not before
    finally:
        signal.signal(signal.SIGHUP, hangup)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("signum", "preempted", "code"),
    [(signal.SIGTERM, True, 143), (signal.SIGINT, False, 130)],
    ids=["SIGTERM", "SIGINT"],
)
def test_wandb_hears_of_a_preemption(config, at, tmp_path, signum, preempted, code):
    at("on_train_batch_end", 2, send(signum))
    with pytest.raises(Stopped):
        train(config("logger=wandb"), tmp_path / "run", [])
    (path,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    found = list(records(path))
    assert any(record.HasField("preempting") for record in found) is preempted
    assert [record.exit.exit_code for record in found if record.HasField("exit")] == [code]


def test_a_signal_to_one_rank_stops_all_after_the_same_step(config, on_ranks, at, tmp_path):
    def trained(name, only=None, resume=False):
        def run(rank):
            if only == rank:
                at("on_train_batch_end", 3, send(signal.SIGTERM))
            try:
                train(config("trainer.devices=2"), tmp_path / name, [], resume=resume or rank > 0)
            except Stopped as stopped:
                return stopped.code
            return 0

        return on_ranks(2, run)

    assert trained("whole") == [0, 0]
    for rank in (0, 1):
        assert trained(f"run{rank}", only=rank) == [143, 143]
        # What the ranks say to each other after a step counts before the next, or before the one after that.
        assert steps(tmp_path / f"run{rank}")["last"] in (3, 4)
        assert Run(tmp_path / f"run{rank}").state() == "interrupted"
        assert trained(f"run{rank}", resume=True) == [0, 0]
        assert equal(weights(tmp_path / f"run{rank}"), weights(tmp_path / "whole"))
        assert Run(tmp_path / f"run{rank}").results()["metrics"] == Run(tmp_path / "whole").results()["metrics"]


# Damaged files


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b"")


def zeroed(path):
    path.write_bytes(bytes(path.stat().st_size))


def flipped(path):
    content = bytearray(path.read_bytes())
    # In the midst of the file, where the weights are.
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def gone(path):
    path.unlink()


@pytest.fixture
def interrupted(config, at, tmp_path):
    """A run that was stopped after five steps; its checkpoints are of steps 4 and 5."""
    at("on_train_batch_end", 5, send(signal.SIGTERM))
    with pytest.raises(Stopped):
        train(config("callbacks.checkpoint.every_n_train_steps=2"), tmp_path / "run", [])
    at.never()
    assert steps(tmp_path / "run") == {"last": 5, "previous": 4, "best": 4}
    return tmp_path / "run"


@pytest.mark.parametrize("damage", [truncated, emptied, zeroed, flipped, gone], ids=lambda damage: damage.__name__)
def test_a_damaged_newest_checkpoint_is_told_and_the_one_before_is_used(interrupted, whole, damage):
    damage(interrupted / "checkpoints" / "last.ckpt")
    resume_run([f"resume={interrupted}"])
    assert equal(weights(interrupted), weights(whole))
    assert Run(interrupted).results()["metrics"] == Run(whole).results()["metrics"]
    assert (interrupted / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    assert steps_without_damaged(interrupted) == steps(whole)
    told = "last.ckpt cannot be read" in (interrupted / "run.log").read_text()
    assert told is (interrupted / "checkpoints" / "damaged.ckpt").exists() is (damage is not gone)


def steps_without_damaged(run):
    kept = [path for path in (run / "checkpoints").glob("*.ckpt") if path.stem != "damaged"]
    return {path.stem: torch.load(path, weights_only=True)["global_step"] for path in kept}


def test_two_damaged_checkpoints_are_told(interrupted, capsys):
    flipped(interrupted / "checkpoints" / "last.ckpt")
    truncated(interrupted / "checkpoints" / "previous.ckpt")
    before = sorted(path.name for path in (interrupted / "checkpoints").iterdir())
    with pytest.raises(SegbenchError) as refused:
        resume_run([f"resume={interrupted}"])
    told = str(refused.value)
    assert "last.ckpt cannot be read: the checksum of" in told
    assert "previous.ckpt cannot be read" in told
    assert f"to do:    cp {interrupted}/checkpoints/best.ckpt" in told
    assert Run(interrupted).state() == "failed"
    assert sorted(path.name for path in (interrupted / "checkpoints").iterdir()) == before


def test_weights_of_a_damaged_file_are_not_scored(interrupted):
    from segbench.training.checkpoint import load_weights

    flipped(interrupted / "checkpoints" / "best.ckpt")
    with pytest.raises(SegbenchError, match=r"best\.ckpt cannot be read: the checksum of .* is wrong"):
        load_weights(UNet(width=2, depth=2), interrupted / "checkpoints" / "best.ckpt")


# A full disk


@pytest.fixture
def small_disk(tmp_path):
    """`small_disk(bytes)`: a folder with so much room."""
    folder = tmp_path / "disk"

    def mounted(size):
        folder.mkdir()
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True, check=False
        )
        if made.returncode != 0:
            pytest.skip(f"no small disk can be made here: {made.stderr.strip()}")
        return folder

    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-l", folder], capture_output=True, check=False)


def test_a_full_disk_stops_the_run_and_leaves_the_checkpoint_before(config, whole, small_disk, tmp_path):
    size = (whole / "checkpoints" / "last.ckpt").stat().st_size
    # Room for two checkpoints and what a run writes beside them, but not for a third.
    folder = small_disk(int(2.6 * size) + 32768)
    given = config("callbacks.checkpoint.every_n_train_steps=2", "data.val=0", "callbacks.checkpoint.monitor=null")
    with pytest.raises(
        SegbenchError,
        match=r"last\.ckpt cannot be written: No space left.*\n.*room for a third.*\n.*free disk space.*resume=",
    ):
        train(given, folder / "run", [])
    run = Run(folder / "run")
    assert steps(run.path) == {"last": 4, "previous": 2}
    assert not list(run.checkpoints.glob(".*"))
    assert run.state() == "failed"
    # With room it goes on to the end of a run that had it all along.
    moved = Path(shutil.copytree(run.path, tmp_path / "moved"))
    train(given, moved, [], resume=True)
    train(given, tmp_path / "other", [])
    assert equal(weights(moved), weights(tmp_path / "other"))


def test_a_disk_that_others_fill_is_told(config, small_disk, at, capsys):
    folder = small_disk("1m")

    def fill():
        try:
            with (folder / "filling").open("wb", buffering=0) as file:
                while file.write(bytes(512)):
                    pass
        except OSError:
            pass

    at("on_train_batch_end", 3, fill)
    with pytest.raises(SegbenchError, match=r"cannot be written: No space left.*\n.*room.*\n.*resume="):
        train(config("callbacks.checkpoint.every_n_train_steps=2"), folder / "run", [])
    assert "Logging error" not in capsys.readouterr().err
    (folder / "filling").unlink()
    at.never()
    resume_run([f"resume={folder}/run"])
    assert Run(folder / "run").state() == "finished"


def test_a_table_that_finds_no_room_is_told(config, at, tmp_path):
    def full():
        raise OSError(28, "No space left on device", "metrics.csv")

    at("on_train_batch_end", 3, full)
    with pytest.raises(
        SegbenchError,
        match=r"metrics\.csv cannot be written: No space left.*\n.*a disk with room.*\n.*free it.*resume=",
    ):
        train(config(), tmp_path / "run", [])
    assert Run(tmp_path / "run").state() == "failed"


# Another run in the same directory


def test_other_images_are_named_and_refused(interrupted, capsys):
    recorded = Run(interrupted).splits()
    recorded["train"] = [*recorded["train"][:-1], "lost"]
    Run(interrupted).write_splits(recorded)
    with pytest.raises(SegbenchError) as refused:
        resume_run([f"resume={interrupted}"])
    told = str(refused.value)
    assert "changed since it began: train: 1 images gone (lost); train: 1 images new (train-0005)" in told
    assert "to do:    restore them, or continue with the current ones: resume_allow=data" in told
    assert steps(interrupted) == {"last": 5, "previous": 4, "best": 4}
    resume_run([f"resume={interrupted}", "resume_allow=data"])
    assert Run(interrupted).state() == "finished"
    assert "resume_allow: train: 1 images gone (lost)" in (interrupted / "run.log").read_text()


def test_a_finished_run_that_is_not_continued_stays_finished(interrupted, capsys):
    resume_run([f"resume={interrupted}"])
    results, recorded = Run(interrupted).results(), Run(interrupted).splits()
    Run(interrupted).write_splits(recorded | {"train": [*recorded["train"][:-1], "lost"]})
    with pytest.raises(SegbenchError, match="changed since it began: train"):
        resume_run([f"resume={interrupted}", "trainer.max_steps=20"])
    assert (Run(interrupted).state(), Run(interrupted).reason()) == ("finished", None)
    assert Run(interrupted).results() == results


def test_another_order_and_another_description_are_named(interrupted, capsys):
    import json

    recorded = Run(interrupted).splits()
    Run(interrupted).write_splits(recorded | {"val": recorded["val"][::-1]})
    described = Run(interrupted).dataset()
    described["heads"]["semantic"]["class_names"] = ["membrane", "cytoplasm"]
    (interrupted / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(SegbenchError) as refused:
        resume_run([f"resume={interrupted}"])
    told = str(refused.value)
    assert "heads.semantic.class_names is ['membrane', 'cell'], was ['membrane', 'cytoplasm']" in told
    assert "val: the same images in another order" in told


class Wider(UNet):
    """A network whose code has changed since the run began."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.added = torch.nn.Parameter(torch.zeros(3))

    def forward(self, image):
        return super().forward(image) + 0 * self.added.sum()


def test_another_network_is_named_and_refused(interrupted, monkeypatch, capsys):
    def changed_code(component, spec):
        return Wider(in_channels=1, num_classes=2, **component.arguments)

    monkeypatch.setattr(build, "build_model", changed_code)
    with pytest.raises(SegbenchError) as refused:
        resume_run([f"resume={interrupted}"])
    told = str(refused.value)
    assert "differs from its checkpoint: model.added is new" in told
    assert "resume_allow=model" in told
    resume_run([f"resume={interrupted}", "resume_allow=model,data"])
    assert Run(interrupted).state() == "finished"
    assert "model.added" in weights(interrupted)
    assert Run(interrupted).results()["timing"]["steps"] == 8


def test_names_and_shapes_that_changed_are_named(interrupted):
    from segbench.experiment.unchanged import refuse_other_model

    run = Run(interrupted)
    saved = {"model.a": torch.zeros(2), "model.b": torch.zeros(2, 3), "model.c": torch.zeros(1)}
    network = {"model.a": torch.zeros(2), "model.b": torch.zeros(2, 4), "model.d": torch.zeros(1)}
    with pytest.raises(SegbenchError, match=r"model\.b is \(2, 4\), was \(2, 3\); model\.c is gone; model\.d is new\n"):
        refuse_other_model(run, saved, network, [])
    assert len(refuse_other_model(run, saved, network, ["model"])) == 3
    assert refuse_other_model(run, saved, saved, []) == []
    many = {f"model.{number}": torch.zeros(1) for number in range(9)}
    with pytest.raises(SegbenchError, match="and 4 more"):
        refuse_other_model(run, many, {}, [])


def test_weights_that_fit_are_kept_and_the_others_are_the_networks_own():
    from segbench.training.checkpoint import keep_what_fits

    checkpoint = {
        "state_dict": {"model.a": torch.ones(2), "model.b": torch.ones(2, 3), "model.c": torch.ones(1)},
        "averaged_model": {"a": torch.full((2,), 2.0), "b": torch.ones(2, 3), "c": torch.ones(1)},
        "optimizer_states": [{}],
    }
    keep_what_fits(checkpoint, {"model.a": torch.zeros(2), "model.b": torch.zeros(2, 4), "model.d": torch.zeros(1)})
    assert {name: tensor.tolist() for name, tensor in checkpoint["state_dict"].items()} == {
        "model.a": [1.0, 1.0],
        "model.b": [[0.0] * 4] * 2,
        "model.d": [0.0],
    }
    assert {name: tensor.tolist() for name, tensor in checkpoint["averaged_model"].items()} == {
        "a": [2.0, 2.0],
        "b": [[0.0] * 4] * 2,
        "d": [0.0],
    }
    assert checkpoint["optimizer_states"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimizer.lr=1"], r"with optimizer\.lr=1\n.*beside resume= only trainer\.max_steps"),
        (["trainer.max_steps=many"], r"trainer\.max_steps=many\n.*a whole number"),
        (["resume_allow=everything"], r"resume_allow=everything\n.*of data, model, joined by commas"),
        (["-m"], r"with -m\n"),
    ],
)
def test_what_a_resume_may_not_change_is_told(arguments, message):
    with pytest.raises(SegbenchError, match=message):
        changed({"resume": "RUN", **dict(each.partition("=")[::2] for each in arguments)})


def test_what_a_resume_may_change(config):
    given = config()
    changes, allow = changed(
        {"resume": "RUN", "trainer.max_steps": "9", "trainer.devices": "2", "resume_allow": "[data,model]"}
    )
    after = given.replace(changes)
    assert (after.trainer.max_steps, after.trainer.devices, allow) == (9, 2, ("data", "model"))
    assert given.trainer.max_steps == 8


def test_another_machine_is_said(interrupted):
    import json

    provenance = Run(interrupted).provenance()
    assert provenance | {"device": "CPU", "processes": 1, "threads": 1, "precision": "32-true"} == provenance
    provenance["versions"]["torch"] = "2.0.0"
    (interrupted / "provenance.json").write_text(json.dumps(provenance))
    resume_run([f"resume={interrupted}"])
    log = (interrupted / "run.log").read_text()
    assert "not bit-identical to an uninterrupted run: versions.torch is '2." in log
    assert ", was '2.0.0'" in log


def test_only_what_decides_about_a_result_is_another_machine():
    began = {"versions": {"torch": "1"}, "threads": 1, "command": "a", "started": "then"}
    assert other_machine(began, began | {"command": "b", "started": "now", "precision": "32-true"}) == []
    assert other_machine(began, began | {"threads": 2}) == ["threads is 2, was 1"]


# Ranks


BOMB = """\
import os
import lightning

class Bomb(lightning.Callback):
    def __init__(self, rank, error="raise"):
        self.rank, self.error = rank, error

    def on_train_batch_end(self, trainer, *arguments):
        if trainer.global_step == 2 and trainer.global_rank == self.rank:
            if self.error == "raise":
                raise KeyError("a fault of this rank")
            os._exit(7)
"""


@pytest.fixture
def bomb(tmp_path, monkeypatch):
    (tmp_path / "bomb.py").write_text(BOMB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SEGBENCH_TARGETS", "bomb.Bomb")
    return lambda rank, error="raise": {"_target_": "bomb.Bomb", "rank": rank, "error": error}


def test_a_rank_that_fails_ends_the_run_with_its_error(config, bomb, tmp_path):
    given = config("trainer.devices=2").replace({"callbacks.bomb": bomb(1)})
    with pytest.raises(
        SegbenchError, match=r"rank 1 of 2 ended with exit code 1: .*a fault of this rank.*\n.*\n.*run\.log.*resume="
    ):
        train(given, tmp_path / "run", [])
    run = Run(tmp_path / "run")
    assert run.state() == "failed"
    assert "a fault of this rank" in run.reason()
    assert "rank 1: error: KeyError: 'a fault of this rank', at " in (run.path / "run.log").read_text()
    assert not torch.distributed.is_initialized()
    assert "RANK" not in os.environ
