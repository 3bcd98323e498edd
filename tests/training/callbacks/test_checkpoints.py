import itertools
import json
import os
import threading
import time
from collections import OrderedDict, defaultdict

import lightning
import pytest
import torch

from segbench.errors import SegbenchError
from segbench.training.callbacks.checkpoint_files import CheckpointFiles, snapshot
from segbench.training.callbacks.checkpoints import Checkpoints
from segbench.training.callbacks.in_step import InStep


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def steps(folder):
    return {path.stem: torch.load(path, weights_only=True)["global_step"] for path in folder.glob("*.ckpt")}


@pytest.mark.parametrize(
    ("every", "length", "expected"),
    [
        (2, 5, {"last": 5, "previous": 4}),
        (2, 4, {"last": 4, "previous": 2}),
        (3, 5, {"last": 5, "previous": 3}),
        (9, 5, {"last": 5}),
        (2, 0, {"last": 0}),
    ],
)
def test_the_last_two_are_kept_at_their_cadence(fit, scripted, folder, every, length, expected):
    fit(scripted(), Checkpoints(folder, every), steps=length)
    assert steps(folder) == expected


def test_nothing_but_checkpoints_is_left(fit, scripted, folder):
    fit(scripted([1.0, 2.0]), Checkpoints(folder, 1, "val/score"), steps=2)
    kept = ["best.ckpt", "last.ckpt", "previous.ckpt", "validation.json"]
    assert sorted(path.name for path in folder.iterdir()) == kept


def test_a_folder_that_a_copy_left_out_is_made(fit, scripted, folder):
    folder.rmdir()
    fit(scripted(), Checkpoints(folder, 2), steps=1)
    assert steps(folder) == {"last": 1}


@pytest.mark.parametrize("content", ["", "[]", '{"step": "a", "rows": 1, "scores": {}}', '{"step": 1, "rows": 1}'])
def test_a_damaged_validation_is_named(fit, scripted, folder, content):
    fit(scripted([0.5]), Checkpoints(folder, 1, "val/score"), steps=1)
    (folder / "validation.json").write_text(content)
    with pytest.raises(SegbenchError, match=r"validation\.json is damaged"):
        fit(scripted([0.6]), Checkpoints(folder, 1, "val/score"), steps=2, resume=folder / "last.ckpt")


def test_a_step_of_several_batches_is_one_step(fit, scripted, folder):
    fit(scripted(), Checkpoints(folder, 2), steps=4, accumulate_grad_batches=3)
    assert steps(folder) == {"last": 4, "previous": 2}


@pytest.mark.parametrize(
    ("scores", "higher", "best"),
    [
        ([0.2, 0.5, 0.4], True, 2),
        ([0.2, 0.5, 0.1], False, 3),
        ([0.5, 0.5, 0.5], True, 1),
        ([float("nan"), 0.1, float("nan")], True, 2),
        ([-0.2, -0.1, -0.3], True, 2),
    ],
    ids=["higher", "lower", "the first of equal ones", "nan is none", "negative"],
)
def test_best_follows_the_score_in_its_direction(fit, scripted, folder, scores, higher, best):
    callback = Checkpoints(folder, 100, "val/score", higher)
    fit(scripted(scores), callback, steps=3)
    # Before every validation there is a checkpoint.
    assert steps(folder) == {"last": 3, "previous": 2, "best": best}
    assert callback.best_score == pytest.approx(scores[best - 1])


def test_without_validation_there_is_no_best(fit, scripted, folder):
    fit(scripted(), Checkpoints(folder, 2, "val/score"), steps=2)
    assert steps(folder) == {"last": 2}


def test_a_score_that_no_validation_gives_is_named_with_those_there_are(fit, scripted, folder):
    with pytest.raises(SegbenchError, match=r"monitor=val/iou\n.*validation: val/score\n.*choose one"):
        fit(scripted([1.0]), Checkpoints(folder, 2, "val/iou"), steps=1)


def test_a_better_continuation_becomes_the_best(fit, scripted, folder):
    fit(scripted([0.5]), Checkpoints(folder, 1, "val/score"), steps=1)
    again = Checkpoints(folder, 1, "val/score")
    fit(scripted([0.4, 0.6]), again, steps=3, resume=folder / "last.ckpt")
    assert steps(folder) == {"last": 3, "previous": 2, "best": 3}


def test_a_worse_continuation_leaves_the_best(fit, scripted, folder):
    # `last` is written before the validation of its step: it does not know the best score.
    fit(scripted([0.5]), Checkpoints(folder, 1, "val/score"), steps=1)
    fit(scripted([0.4]), Checkpoints(folder, 1, "val/score"), steps=2, resume=folder / "last.ckpt")
    assert steps(folder)["best"] == 1


def test_a_damaged_best_gives_way_to_the_next(fit, scripted, folder, capsys):
    fit(scripted([0.5]), Checkpoints(folder, 1, "val/score"), steps=1)
    (folder / "best.ckpt").write_bytes(b"half")
    fit(scripted([0.4]), Checkpoints(folder, 1, "val/score"), steps=2, resume=folder / "last.ckpt")
    assert steps(folder)["best"] == 2
    assert "the best of the next validations replaces it" in capsys.readouterr().err


@pytest.mark.parametrize("settings", [{}, {"accumulate_grad_batches": 2}], ids=["", "accumulated"])
@pytest.mark.parametrize("length", [3, 5])
@pytest.mark.parametrize("cut", [2, 3])
def test_a_validation_that_was_cut_off_is_done_again(fit, scripted, folder, cut, length, settings):
    class CutOff(Exception):
        pass

    class Cutting(scripted):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            if self.trainer.global_step == cut:
                raise CutOff

    def callback():
        return Checkpoints(folder, 100, "val/score")

    scores = [0.1, 0.9, 0.3, 0.2, 0.1][:length]
    with pytest.raises(CutOff):
        fit(Cutting(list(scores)), callback(), steps=length, **settings)
    assert steps(folder)["last"] == cut
    again = scripted(scores[cut - 1 :])
    trainer = fit(again, callback(), steps=length, resume=folder / "last.ckpt", **settings)
    # Every validation that was still to come, each with the weights of its step, and no step too many.
    assert again.validated_with == [-float(step) for step in range(cut, length + 1)]
    assert trainer.global_step == length
    assert steps(folder)["best"] == 2


def test_a_validation_that_was_done_is_not_done_again(fit, scripted, folder):
    fit(scripted([0.1, 0.2]), Checkpoints(folder, 1, "val/score"), steps=2)
    again = scripted([0.3])
    fit(again, Checkpoints(folder, 1, "val/score"), steps=3, resume=folder / "last.ckpt")
    assert again.validated_with == [-3.0]
    # Nor where no step is left.
    nothing = scripted()
    fit(nothing, Checkpoints(folder, 1, "val/score"), steps=3, resume=folder / "last.ckpt")
    assert nothing.validated_with == []


def test_no_checkpoint_in_the_midst_of_a_step(fit, scripted, folder, monkeypatch):
    fit(scripted(), Checkpoints(folder, 1), steps=1, accumulate_grad_batches=3)
    saved = []
    monkeypatch.setattr(Checkpoints, "_save", lambda self, trainer, *names, **named: saved.append(trainer.global_step))
    fit(scripted(), Checkpoints(folder, 1), steps=3, accumulate_grad_batches=3, resume=folder / "last.ckpt")
    assert saved == [2, 3]


def test_last_is_whole_at_every_moment(fit, scripted, folder, monkeypatch):
    replace, seen = os.replace, []

    def watched(source, target):
        replace(source, target)
        seen.append(steps(folder).get("last"))

    monkeypatch.setattr(os, "replace", watched)
    fit(scripted(), Checkpoints(folder, 1), steps=3)
    # The first time there is nothing to keep; then `previous` is named, then `last`.
    assert seen == [1, 1, 2, 2, 3]


def test_a_write_that_breaks_off_leaves_the_checkpoints_before_it(fit, scripted, folder, monkeypatch):
    save = torch.save

    def breaks(checkpoint, file):
        save(checkpoint, file)
        if checkpoint["global_step"] == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", breaks)
    with pytest.raises(
        SegbenchError, match=r"last\.ckpt cannot be written: No space left.*\n.*room for.*\n.*free disk space.*resume="
    ):
        fit(scripted(), Checkpoints(folder, 1), steps=5)
    assert steps(folder) == {"last": 2, "previous": 1}
    assert sorted(path.name for path in folder.iterdir()) == ["last.ckpt", "previous.ckpt"]


@pytest.fixture
def slow_disk(monkeypatch):
    """Every write waits for this event."""
    save, free = torch.save, threading.Event()

    def waits(checkpoint, file):
        assert free.wait(30)
        save(checkpoint, file)

    monkeypatch.setattr(torch, "save", waits)
    return free


def test_training_goes_on_while_a_checkpoint_of_its_step_is_written(fit, scripted, folder, slow_disk):
    class AfterStep4(lightning.Callback):
        def on_train_batch_end(self, trainer, *arguments):
            if trainer.global_step == 4:
                assert not steps(folder)
                slow_disk.set()

    fit(scripted(), Checkpoints(folder, 2), AfterStep4(), steps=5, limit_val_batches=0)
    assert steps(folder) == {"last": 5, "previous": 4}
    # Of its own step, though three others followed before it was written.
    for name in ("last", "previous"):
        written = torch.load(folder / f"{name}.ckpt", weights_only=True)
        assert written["state_dict"]["model.weight"].item() == -written["global_step"]


def test_a_failed_write_ends_the_training_at_the_next_step(fit, scripted, folder, monkeypatch):
    def breaks(checkpoint, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", breaks)
    begun = []

    class Waits(lightning.Callback):
        def on_train_batch_end(self, trainer, *arguments):
            begun.append(trainer.global_step)
            for thread in threading.enumerate():
                if thread.name == "checkpoint":
                    thread.join()

    with pytest.raises(SegbenchError, match="cannot be written: No space left"):
        fit(scripted(), Checkpoints(folder, 2), Waits(), steps=90, limit_val_batches=0)
    assert begun == [1, 2, 3]


def test_a_thread_that_cannot_start_is_not_waited_for(monkeypatch):
    def refused(_):
        raise RuntimeError("can't start new thread")

    files = CheckpointFiles()
    monkeypatch.setattr(threading.Thread, "start", refused)
    with pytest.raises(RuntimeError, match="can't start"):
        files.begin(lambda: None)
    files.wait()


def test_a_validation_is_recorded_after_its_best_checkpoint(fit, scripted, folder, monkeypatch):
    replace, seen = os.replace, []

    def watched(source, target):
        replace(source, target)
        record = folder / "validation.json"
        done = json.loads(record.read_text())["step"] if record.is_file() else 0
        seen.append((os.path.basename(target), done))

    monkeypatch.setattr(os, "replace", watched)
    fit(scripted([0.1, 0.2]), Checkpoints(folder, 100, "val/score"), steps=2)
    order = [name for name, _ in seen if name != "previous.ckpt"]
    assert order == ["last.ckpt", "best.ckpt", "validation.json"] * 2
    assert [done for name, done in seen if name == "best.ckpt"] == [0, 1]


def test_a_checkpoint_also_follows_the_clock(fit, scripted, folder, monkeypatch):
    saved = []
    monkeypatch.setattr(Checkpoints, "_save", lambda self, trainer, *names, **named: saved.append(trainer.global_step))
    # Every look at the clock is 20 s after the one before.
    monkeypatch.setattr(time, "monotonic", itertools.count(0, 20).__next__)
    fit(scripted(), Checkpoints(folder, 100, every_n_minutes=1), steps=10, limit_val_batches=0)
    assert len(saved) > 2
    assert saved[-1] == 10
    assert saved == sorted(set(saved))


def test_processes_that_agree_on_the_time_write_once(fit, scripted, folder, monkeypatch):
    class Alone(InStep):
        """What the processes exchange after a batch is known before the next."""

        def _join(self, trainer):
            pass

        def _send(self, trainer):
            self._sent = self.asks

        def _stop_if_signalled(self, trainer):
            self.agreed = bool(self._sent)

    saved = []
    monkeypatch.setattr(Checkpoints, "_save", lambda self, trainer, *names, **named: saved.append(trainer.global_step))
    monkeypatch.setattr(Checkpoints, "_finish", lambda self, trainer: None)
    monkeypatch.setattr(lightning.Trainer, "world_size", property(lambda self: 2))
    clock = itertools.count(0, 2)
    monkeypatch.setattr(time, "monotonic", clock.__next__)
    fit(scripted(), Alone({}, 60.0), Checkpoints(folder, 1000, every_n_minutes=1), steps=90, limit_val_batches=0)
    assert len(saved) > 2
    # As Lightning moves them, checkpoints come last and ask a step later: the interval and two steps more.
    assert min(second - first for first, second in itertools.pairwise(saved[:-1])) > 5


@pytest.mark.parametrize("minutes", [0, -1, float("nan")])
def test_a_time_that_is_none_is_refused(tmp_path, minutes):
    with pytest.raises(SegbenchError, match=r"every_n_minutes=.*\n.*above 0, or null"):
        Checkpoints(tmp_path, 1, every_n_minutes=minutes)


def test_a_snapshot_shares_nothing_and_reuses_the_memory_of_an_earlier_one():
    weight = torch.arange(12.0).reshape(1, 3, 2, 2).to(memory_format=torch.channels_last)
    state = OrderedDict(a=weight, tied=weight, part=weight[:, 1], none=torch.empty(0))
    state._metadata = {"": {"version": 2}}
    given = {"state_dict": state, "list": [1, (weight, "x")], "step": 3}
    first, memory = snapshot(given, defaultdict(list))
    assert first["state_dict"]._metadata == {"": {"version": 2}}
    assert first["state_dict"]["a"] is first["state_dict"]["tied"] is first["list"][1][0]
    assert first["state_dict"]["a"].stride() == weight.stride()
    kept = {name: each.clone() for name, each in first["state_dict"].items()}
    places = {each.data_ptr() for each in first["state_dict"].values()}
    weight.mul_(2)
    assert all(torch.equal(first["state_dict"][name], each) for name, each in kept.items())
    second, _ = snapshot(given, memory)
    assert {each.data_ptr() for each in second["state_dict"].values()} == places
    assert all(torch.equal(each, 2 * kept[name]) for name, each in second["state_dict"].items())
    assert second["list"][0] == 1


def test_the_time_of_a_continued_training_counts_what_came_before(fit, scripted, folder):
    fit(scripted(), Checkpoints(folder, 1), steps=2)
    path = folder / "last.ckpt"
    written = torch.load(path, weights_only=True)
    (state,) = written["callbacks"].values()
    assert state["seconds"] > 0
    state["seconds"] = 1e6
    torch.save(written, path)
    callback = Checkpoints(folder, 1)
    fit(scripted(), callback, steps=4, resume=path)
    assert callback.seconds > 1e6


def test_weights_that_are_not_finite_are_never_written(fit, scripted, folder):
    module = scripted(losses={"sample-2": float("inf")})
    with pytest.raises(
        SegbenchError, match=r"weights that are not finite at step 3\n.*finite weights\n.*optimizer\.lr"
    ):
        fit(module, Checkpoints(folder, 1), steps=5)
    assert steps(folder) == {"last": 2, "previous": 1}


def test_a_cadence_below_one_is_refused(tmp_path):
    with pytest.raises(SegbenchError, match=r"every_n_train_steps=0\n.*at least 1\n.*raise it"):
        Checkpoints(tmp_path, 0)
