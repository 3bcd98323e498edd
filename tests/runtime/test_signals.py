import os
import signal
import threading
import warnings

from segbench.runtime.signals import heard_at_once, stoppable


def test_a_block_that_hears_signals_ends_while_a_fork_of_it_lives():
    heard = threading.Event()
    reading, writing = os.pipe()
    with stoppable(), heard_at_once(heard.set), warnings.catch_warnings():
        # That there are threads is the point.
        warnings.simplefilter("ignore", DeprecationWarning)
        if (child := os.fork()) == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    # The child still has the same files open.
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.close(writing)
    os.waitpid(child, 0)
    os.close(reading)
    assert not heard.is_set()
    assert signal.set_wakeup_fd(-1) == -1
