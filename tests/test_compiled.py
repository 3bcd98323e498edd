import logging

import pytest

from segbench import compiled as module
from segbench.compiled import compiled
from segbench.metrics.confusion import _count


@pytest.fixture
def homeless():
    """A function of a file that does not exist, so that numba finds no place to keep it."""
    names = {}
    exec(compile("def total(a, b):\n    return a + b\n", "/nowhere/loops.py", "exec"), names)
    module._tell_of_no_cache.cache_clear()
    return names["total"]


def test_a_loop_that_cannot_be_kept_is_compiled_all_the_same_which_is_told_once(homeless, caplog):
    with caplog.at_level(logging.WARNING):
        first, second = compiled(homeless), compiled(homeless)
    assert (first(2, 3), second(2.5, 3)) == (5, 5.5)
    assert first.signatures
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert "NUMBA_CACHE_DIR" in told[0]


def test_a_loop_of_a_file_is_kept_and_leaves_the_interpreter_to_other_threads():
    assert _count.targetoptions["nogil"]
    assert _count.stats.cache_path
