"""Signals that end a run: it stops at a point from which it can continue.

SIGTERM, SIGHUP and Slurm's SIGUSR1 mean preemption: the exit code is 143 for each of them, and the run should be
continued. Ctrl-C: exit code 130; a second one ends the run at once. A search that gives a run up ends it early: exit
code 0, and nobody should continue it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

PREEMPTIONS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

EARLY = 256
"""Stands for a signal where a search asked: above every number of a signal, so that it wins over several processes."""
AGAIN_S = 1.0
"""A Ctrl-C within this time of the first is the same one, forwarded by a launcher or a shell."""


def name_of(signum: int) -> str:
    """What ended a run, as text."""
    match signum:
        case signal.SIGINT:
            return "Ctrl-C"
        case int(early) if early == EARLY:
            return "the search"
        case _:
            return signal.Signals(signum).name


class Stopped(SystemExit):
    """A signal ends the run, with exit code 143, 130 for Ctrl-C, or 0 where a search gave it up.

    Args:
        signum: the signal, or `EARLY`.
    """

    def __init__(self, signum: int) -> None:
        code = {EARLY: 0, signal.SIGINT: 128 + signal.SIGINT}.get(signum, 128 + signal.SIGTERM)
        super().__init__(code)
        self.signum = signum

    @property
    def early(self) -> bool:
        """Whether a search gave the run up."""
        return self.signum == EARLY

    @property
    def preempted(self) -> bool:
        """Whether the run was preempted, not stopped by the user or by a search."""
        return self.signum not in (signal.SIGINT, EARLY)


class _Signals:
    received = 0
    at = 0.0
    catching = False
    deferring = 0
    asks_early: Callable[[], bool] = staticmethod(lambda: False)


def received() -> int:
    """The signal that asked this process to stop, 0 if none."""
    return _Signals.received


def ends_early(asked: Callable[[], bool]) -> None:
    """Until the end of `stoppable`, a signal ends the run early where a search sent it.

    Args:
        asked: whether it was a search that sent the signal just received.
    """
    _Signals.asks_early = staticmethod(asked)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Turn the signals into `Stopped`; no-op inside another `stoppable` and outside the main thread.

    Signals ignored by the parent stay ignored: a run under nohup outlives its terminal.
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
        ends_early(lambda: False)


@contextlib.contextmanager
def deferred(is_last: bool = False) -> Iterator[None]:
    """Only record signals in the block; its code checks `received` and raises `Stopped` at a safe point.

    No-op outside `stoppable` and outside the main thread, where no handler raises.

    Args:
        is_last: the run has all its results, so that a signal no longer stops it after the block.
    """
    if not _Signals.catching or threading.current_thread() is not threading.main_thread():
        yield
        return
    _Signals.deferring += 1
    try:
        yield
    finally:
        _Signals.deferring -= 1
    if _Signals.received and not _Signals.deferring and not is_last:
        raise Stopped(_Signals.received)


_END = 0
"""In place of a signal's number."""


@contextlib.contextmanager
def heard_at_once(asked: Callable[[], None]) -> Iterator[None]:
    """In the block, call a function in a thread when a signal comes that ends a run.

    Python runs its handlers between two operations of the main thread, which may wait for another process in one of
    them. No-op outside the main thread.

    Args:
        asked: called once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def listen() -> None:
        told = False
        # A loading process that was forked off has the pipe open too, so it does not end when it is closed here.
        while _END not in (numbers := os.read(reading, 64)):
            if before >= 0:
                with contextlib.suppress(OSError):
                    os.write(before, numbers)
            if not told and {signal.SIGINT, *PREEMPTIONS} & {*numbers}:
                told = True
                threading.Thread(target=asked, name="asked", daemon=True).start()

    thread = threading.Thread(target=listen, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.set_blocking(writing, True)
        os.write(writing, bytes([_END]))
        thread.join()
        os.close(writing)
        os.close(reading)


def _handle(signum: int, frame: FrameType | None) -> None:
    if not _Signals.received:
        _Signals.received, _Signals.at = EARLY if _Signals.asks_early() else signum, time.monotonic()
        if not _Signals.deferring:
            raise Stopped(_Signals.received)
        # Not through the log: this thread may hold its lock.
        again = "; Ctrl-C again ends it at once" if signum == signal.SIGINT else ""
        said = f"{name_of(_Signals.received)}: stopping at the next safe point, with a checkpoint{again}\n"
        os.write(2, said.encode())
    elif signum == signal.SIGINT and time.monotonic() - _Signals.at > AGAIN_S:
        raise KeyboardInterrupt
