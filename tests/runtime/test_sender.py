"""Who sends a signal."""

import os
import signal
import subprocess
import sys
import time

import pytest

from segbench.runtime.sender import sender_of
from segbench.runtime.signals import EARLY, Stopped, ends_early, stoppable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="si_pid lies elsewhere")


@pytest.fixture
def _as_before():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def sent_by_another():
    with subprocess.Popen(["sh", "-c", f"kill -TERM {os.getpid()}; sleep 0.2"]) as process:
        time.sleep(0.05)
        return process.pid


@pytest.mark.usefixtures("_as_before")
def test_the_sender_is_known_when_pythons_handler_runs():
    seen = []
    signal.signal(signal.SIGTERM, lambda signum, frame: seen.append(sender()))
    sender = sender_of(signal.SIGTERM)
    assert sender() == 0
    os.kill(os.getpid(), signal.SIGTERM)
    other = sent_by_another()
    assert seen == [os.getpid(), other]


@pytest.mark.usefixtures("_as_before")
def test_only_the_asker_ends_a_run_early():
    with pytest.raises(Stopped) as stopped, stoppable():
        sender = sender_of(signal.SIGTERM)
        ends_early(lambda: sender() == os.getpid())
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
    assert (stopped.value.signum, stopped.value.code, stopped.value.preempted) == (EARLY, 0, False)
    with pytest.raises(Stopped) as stopped, stoppable():
        sender = sender_of(signal.SIGTERM)
        ends_early(lambda: sender() == os.getpid())
        sent_by_another()
    assert (stopped.value.code, stopped.value.preempted, stopped.value.early) == (143, True, False)
