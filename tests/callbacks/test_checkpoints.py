import os

import pytest
import torch

from segbench.callbacks.checkpoints import Checkpoints
from segbench.errors import SegbenchError


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
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]


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
    assert steps(folder) == {"last": 3, "best": best}
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
    import lightning

    save = lightning.Trainer.save_checkpoint

    def breaks(trainer, path, *arguments, **named):
        if trainer.global_step == 3:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(trainer, path, *arguments, **named)

    monkeypatch.setattr(lightning.Trainer, "save_checkpoint", breaks)
    with pytest.raises(OSError, match="No space left"):
        fit(scripted(), Checkpoints(folder, 1), steps=5)
    assert steps(folder) == {"last": 2, "previous": 1}


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
