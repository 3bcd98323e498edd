"""The small interface: each tracker gets what it can show."""

import logging
import os
import signal

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from segbench.runtime.signals import EARLY, Stopped, stoppable
from segbench.tracking.tracker import Item, Picture, Tracker, survives, tracked, trackers_of


class Recording(Logger, Tracker):
    """A tracker that notes what it is told; its tables fail."""

    name, version = "", ""

    def __init__(self):
        super().__init__()
        self.told = []

    def log_hyperparams(self, *given, **named):
        pass

    @survives
    def log_metrics(self, metrics, step=None):
        if "bad" in metrics:
            raise OSError("the connection is gone")
        self.told.append(dict(metrics))

    @survives
    def table(self, key, columns, rows):
        raise ValueError("no table")

    def begin(self):
        self.told.append("begin")

    def alert(self, title, text):
        self.told.append(text)

    def end(self, exit_code, preempted):
        self.told.append((exit_code, preempted))


class Signalled(Recording):
    """A signal comes while the client of the tracker works."""

    def __init__(self, during):
        super().__init__()
        self.during = during

    def _work(self, name):
        if name == self.during:
            os.kill(os.getpid(), signal.SIGTERM)
        self.told.append(name)

    @survives
    def summary(self, values):
        self._work("summary")

    @survives
    def end(self, exit_code, preempted):
        self._work("end")
        super().end(exit_code, preempted)


def test_a_signal_waits_until_a_tracker_has_returned():
    tracker, after = Signalled("summary"), Recording()
    with pytest.raises(Stopped), stoppable(), tracked([tracker, after]):
        tracker.summary({})
    assert tracker.told == ["begin", "summary", "end", (143, True)]
    assert after.told == ["begin", (143, True)]


def test_a_signal_at_the_end_of_a_run_no_longer_stops_it():
    tracker, after = Signalled("end"), Recording()
    with stoppable(), tracked([tracker, after]):
        pass
    assert tracker.told == ["begin", "end", (0, False)]
    assert after.told == ["begin", (0, False)]


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (None, ["begin", (0, False)]),
        (ValueError("broken"), ["begin", "broken", (1, False)]),
        (Stopped(15), ["begin", (143, True)]),
        (Stopped(2), ["begin", (130, False)]),
        (Stopped(EARLY), ["begin", (0, False)]),
        (KeyboardInterrupt(), ["begin", (1, False)]),
    ],
    ids=["finished", "failed", "preempted", "Ctrl-C", "given up", "second Ctrl-C"],
)
def test_a_run_ends_in_its_true_state(raised, told):
    tracker = Recording()
    try:
        with tracked([tracker]) as trackers:
            assert trackers == [tracker]
            if raised is not None:
                raise raised
    except BaseException as error:
        assert error is raised
    assert tracker.told == told


def test_a_failed_table_costs_the_tables_and_failed_scores_the_tracker(caplog):
    tracker = Recording()
    for _ in range(2):
        tracker.table("a", [], [])
    tracker.log_metrics({"a": 1})
    tracker.log_metrics({"bad": 1})
    tracker.log_metrics({"a": 2})
    assert tracker.told == [{"a": 1}]
    assert [record.getMessage() for record in caplog.records] == [
        "recording: table not sent: no table",
        "recording: the connection is gone; the training goes on without it; ",
    ]


def test_what_a_tracker_lacks_is_said_once(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    loggers = [CSVLogger(str(tmp_path)), TensorBoardLogger(str(tmp_path)), Silent()]
    with tracked(loggers):
        pass
    assert [record.getMessage() for record in caplog.records] == [
        "TensorBoardLogger: artifacts are not sent",
        "Silent: pictures, tables, artifacts are not sent",
    ]


class Silent(Logger):
    """Any logger of Lightning's."""

    name, version = "", ""

    def log_hyperparams(self, *given, **named):
        pass

    def log_metrics(self, *given, **named):
        pass


def test_tensorboard_gets_flat_pictures_and_tables_as_text(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(str(tmp_path), name="", version="")
    (tracker,) = trackers_of([logger])
    picture = Picture("x", np.zeros((4, 4, 3), np.uint8), draw=lambda: np.full((6, 8, 3), 200, np.uint8))
    tracker.pictures("val/images", [picture], 3)
    tracker.table("test/per_image", ["id", "image", "iu"], [["x", picture, 0.25], ["y", None, None]])
    logger.experiment.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (image,) = events.Images("val/images/x")
    assert (image.step, image.width, image.height) == (3, 8, 6)
    (text,) = events.Tensors("test/per_image/text_summary")
    assert "| x | 0.2500 |" in text.tensor_proto.string_val[0].decode()


def test_names_of_items_are_clean():
    assert Item("a b/c:d", "model").clean_name == "a-b-c-d"
