import pytest

from segbench.training.callbacks.loop_state import Place, loops_at

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
    state = loops_at(SAVED, place, due, validated, ended)
    begun, done = epochs
    assert progress(state, "epoch_progress") == [(begun, begun, done, done)] * 2
    assert progress(state, "epoch_loop.batch_progress") == [(place.total,) * 4, (current,) * 4]
    assert state["epoch_loop.batch_progress"]["is_last_batch"] is (current == 5)
    assert progress(state, "epoch_loop.val_loop.batch_progress") == [(validating, validating, 0, 0)] * 2
    assert state["epoch_loop.state_dict"] == {"_batches_that_stepped": logged}
    assert state["epoch_loop.automatic_optimization"] == "kept"
