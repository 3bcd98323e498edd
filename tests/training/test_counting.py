import threading
from types import SimpleNamespace

import numpy as np
import pytest

from segbench.errors import SegbenchError
from segbench.metrics.confusion import Overlap
from segbench.metrics.measure import ImageResult
from segbench.metrics.states import MeasureState
from segbench.training.counting import Counting


def image(index):
    rng = np.random.default_rng(index)
    label_HW, pred_HW = rng.integers(0, 2, (2, 8, 8))
    return ImageResult(label_HW, pred_HW)


def test_threads_count_as_a_loop_does_and_in_its_order():
    expected = MeasureState(Overlap(("a", "b")))
    for index in range(20):
        expected.update(expected.row(index, image(index)))
    for threads in (0, 1, 3):
        state, counting = MeasureState(Overlap(("a", "b"))), Counting(threads)
        for index in range(20):
            counting.add(state, index, image(index))
        counting.finish()
        assert [row.tolist() for row in state.rows] == [row.tolist() for row in expected.rows]
        assert state.scores() == expected.scores()


def test_only_so_many_images_wait():
    free, begun, most = threading.Event(), [], 4

    def row(index, result):
        begun.append(index)
        assert free.wait(30)
        return index

    counted = []
    state, counting = SimpleNamespace(row=row, update=counted.append), Counting(2)
    for index in range(most):
        counting.add(state, index, None)
    assert set(begun) <= {0, 1}
    assert not counted
    threading.Timer(0.05, free.set).start()
    # One more has to wait for the first.
    counting.add(state, most, None)
    assert counted[:1] == [0]
    counting.finish()
    assert counted == [0, 1, 2, 3, 4]


def test_one_thread_counts_all_measures_of_an_image_while_the_next_one_is_predicted():
    free = threading.Event()
    counted, counting = [], Counting(1)

    def state_of(number):
        return SimpleNamespace(row=lambda index, result: free.wait(30) and (index, number), update=counted.append)

    states = [state_of(number) for number in range(5)]
    for state in states:
        counting.add(state, 0, None)
    assert not counted
    free.set()
    for state in states:
        counting.add(state, 1, None)
    counting.finish()
    assert counted == [(index, number) for index in range(2) for number in range(5)]


@pytest.mark.parametrize("threads", [0, 2])
def test_the_error_of_a_measure_comes_out(threads):
    def row(index, result):
        raise SegbenchError("no probabilities", "some", "pass them")

    counting = Counting(threads)
    with pytest.raises(SegbenchError, match="no probabilities"):
        counting.add(SimpleNamespace(row=row, update=None), 0, None)
        counting.finish()
    counting.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("counting")]
