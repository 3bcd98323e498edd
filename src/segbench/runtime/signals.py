"""Signals that end a run: what is going on is brought to a point from which it can be continued.

SIGTERM, SIGHUP and Slurm's SIGUSR1 announce that the machine is wanted back: exit code 143, whichever it was, says that
the run is to be continued. Ctrl-C: exit code 130; a second one ends at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

PREEMPTIONS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

AGAIN_S = 1.0
"""A Ctrl-C sooner than this after the first is the same one, passed on by a launcher or a shell."""


class Stopped(SystemExit):
    """A run that ends by a signal; it leaves with exit code 143, or 130 for Ctrl-C.

    Args:
        signum: the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + (signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM))
        self.signum = signum

    @property
    def preempted(self) -> bool:
        """Whether the machine was wanted back, rather than the run no longer."""
        return self.signum != signal.SIGINT


class _Signals:
    received = 0
    at = 0.0
    catching = False
    deferring = 0


def received() -> int:
    """The signal that asked this process to stop, 0 if none did."""
    return _Signals.received


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Turn the signals into `Stopped`; inside another `stoppable`, and in a thread that is not the main one, nothing.

    Signals that the surroundings ignore stay ignored: a run under nohup outlives its terminal.
    """
    if _Signals.catching or threading.current_thread() is not threading.main_thread():
        yield
        return
    caught = [signum for signum in (signal.SIGINT, *PREEMPTIONS) if signal.getsignal(signum) != signal.SIG_IGN]
    before = {signum: signal.signal(signum, _handle) for signum in caught}
    _Signals.catching, _Signals.received = True, 0
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        _Signals.catching = False


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Only note signals here: the code inside asks `received` and raises `Stopped` where it can be continued."""
    _Signals.deferring += 1
    try:
        yield
    finally:
        _Signals.deferring -= 1
    if _Signals.received and not _Signals.deferring:
        raise Stopped(_Signals.received)


def _handle(signum: int, frame: FrameType | None) -> None:
    if not _Signals.received:
        _Signals.received, _Signals.at = signum, time.monotonic()
        if not _Signals.deferring:
            raise Stopped(signum)
        # Not by the log, whose lock this thread may hold.
        name = "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name
        again = "; Ctrl-C again ends it at once" if signum == signal.SIGINT else ""
        os.write(2, f"{name}: stopping after this step, with a checkpoint{again}\n".encode())
    elif signum == signal.SIGINT and time.monotonic() - _Signals.at > AGAIN_S:
        raise KeyboardInterrupt
