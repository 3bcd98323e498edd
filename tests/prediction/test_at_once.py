import threading

import pytest

from segbench.prediction.at_once import AHEAD, BEHIND, ahead, behind


def alive():
    return [
        thread for thread in threading.enumerate() if thread.name.startswith(("segbench-reader", "segbench-writer"))
    ]


def test_the_next_thing_is_taken_while_the_caller_has_one_and_no_more():
    taken, ready = [], threading.Semaphore(0)

    def given():
        for one in range(10):
            taken.append((one, threading.current_thread().name))
            ready.release()
            yield one

    with_one = ahead(given())
    assert next(with_one) == 0
    for _ in range(1 + AHEAD):
        assert ready.acquire(timeout=60)
    assert [one for one, _ in taken] == [0, 1]
    assert all(thread.startswith("segbench-reader") for _, thread in taken)
    assert next(with_one) == 1
    with_one.close()
    assert len(taken) <= 2 + AHEAD
    assert not alive()


def test_an_error_comes_in_the_place_of_what_is_not_given():
    def given():
        yield 0
        raise OSError("unreadable")

    with_one = ahead(given())
    assert next(with_one) == 0
    with pytest.raises(OSError, match="unreadable"):
        next(with_one)
    assert not alive()


def test_one_thing_is_written_while_the_next_ones_are_made():
    made, written = threading.Event(), []

    def given():
        for one in range(4):
            if one == 1:
                made.set()
            yield one

    def write(one):
        # Would wait in vain if the first were written before the second is made.
        assert made.wait(timeout=60)
        written.append((one, threading.current_thread().name))
        return [one] * (one % 2)

    assert list(behind(given(), write)) == [1, 3]
    assert [one for one, _ in written] == [0, 1, 2, 3]
    assert all(thread.startswith("segbench-writer") for _, thread in written)
    assert not alive()


def test_few_wait_to_be_written():
    made, go = [], threading.Event()

    def given():
        for one in range(10):
            made.append(one)
            if one == BEHIND:
                # The next one is only asked for when the first is written.
                threading.Timer(0.05, go.set).start()
            elif one > BEHIND:
                assert go.is_set()
            yield one

    assert list(behind(given(), lambda one: [one] if go.wait(timeout=60) else [])) == list(range(10))


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_was_made_before_an_error_is_written(error):
    written = []

    def given():
        yield 0
        yield 1
        raise error("unreadable")

    with pytest.raises(error):
        for one in behind(given(), lambda one: [one]):
            written.append(one)
    # A user who stops it does not wait for what waits.
    assert written == [0, 1] if error is OSError else written in ([], [0], [0, 1])
    assert not alive()


def test_nothing_is_written_after_an_error_of_writing():
    written = []

    def write(one):
        if one == 1:
            raise OSError("full")
        written.append(one)
        return [one]

    got = []
    with pytest.raises(OSError, match="full"):
        for one in behind(range(10), write):
            got.append(one)
    assert got == written == [0]
    assert not alive()
