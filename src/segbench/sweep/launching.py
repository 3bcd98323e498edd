"""The launcher's loop: jobs are started as there is room, watched, and ended together when the launcher is."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

from segbench.config.record import Config
from segbench.runtime.signals import AGAIN_S
from segbench.sweep.job import Job, counted

TICK_S = 0.05
_ENDED_BY_A_SIGNAL = (-signal.SIGINT, -signal.SIGTERM, 128 + signal.SIGINT, 128 + signal.SIGTERM)


@dataclass(frozen=True)
class Ended:
    """A job whose process has ended.

    Attributes:
        job: which.
        code: its exit code, negative for the signal that killed it; None where nobody can say.
    """

    job: Job
    code: int | None


class Machine(Protocol):
    """Where jobs run."""

    def check(self, name: str, config: Config) -> None:
        """Refuse a job of a name and a configuration that cannot run here, with a `SegbenchError`."""
        ...

    def room(self) -> bool:
        """Whether a further job may run beside those that do."""
        ...

    def start(self, job: Job) -> bool:
        """Start a job; False where the devices that it wants are not free now."""
        ...

    def ended(self) -> list[Ended]:
        """The jobs that have ended since the last call."""
        ...

    def end(self, job: Job) -> None:
        """Ask a running job to write its checkpoint and end."""
        ...

    def kill(self, job: Job) -> None:
        """End a running job at once, with all that it started."""
        ...

    def running(self) -> list[Job]:
        """The jobs that were started and have not ended."""
        ...


class Work(Protocol):
    """What is to be done."""

    def next(self) -> Job | None:
        """The job to start next; None where there is none for now."""
        ...

    def started(self, job: Job) -> None:
        """Take note that a job was started."""
        ...

    def watch(self, running: Sequence[Job]) -> list[Job]:
        """Of the running jobs those that are to end."""
        ...

    def ended(self, job: Job) -> None:
        """Take note that a job has ended."""
        ...


class View(Protocol):
    """What a user sees meanwhile."""

    def started(self, job: Job) -> None:
        """A job was started."""
        ...

    def ended(self, job: Job) -> None:
        """A job has ended."""
        ...

    def draw(self, running: Sequence[Job]) -> None:
        """Called many times a second."""
        ...

    def say(self, text: str) -> None:
        """A line of its own."""
        ...


class Listed:
    """Jobs that are known from the beginning, one after the other."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._left = list(jobs)

    def next(self) -> Job | None:
        """The next of the list."""
        return self._left.pop(0) if self._left else None

    def started(self, job: Job) -> None:
        """Nothing follows from it."""

    def watch(self, running: Sequence[Job]) -> list[Job]:
        """None of them ends before its time."""
        return []

    def ended(self, job: Job) -> None:
        """Nothing follows from it."""


class _Stop:
    """Ctrl-C, SIGTERM and SIGHUP as something to look at between two ticks."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.again = False
        self._at = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._at = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._at > AGAIN_S:
            self.again = True

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        # What is ignored, as under nohup, stays ignored.
        heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, self) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def launch(machine: Machine, work: Work, view: View, grace_s: float) -> int | None:
    """Run all the work there is.

    Call it in the main thread: signals are caught there, and the kernel ends the jobs with the thread that started
    them.

    Args:
        machine: where the jobs run.
        work: which jobs.
        view: what the user sees.
        grace_s: seconds that jobs have for their checkpoints when the launcher is ended by a signal.

    Returns:
        the signal that ended it early, else None.
    """
    stop = _Stop()
    asked: dict[str, float] = {}
    waiting: Job | None = None
    with stop.listening():
        try:
            while True:
                for end in machine.ended():
                    _settle(end, end.job.name in asked)
                    asked.pop(end.job.name, None)
                    work.ended(end.job)
                    view.ended(end.job)
                if stop.signal is not None:
                    _end_all(machine, view, stop, asked, grace_s)
                else:
                    for job in work.watch(machine.running()):
                        if job.name not in asked:
                            machine.end(job)
                            asked[job.name] = time.monotonic() + grace_s
                    waiting = _start(machine, work, view, waiting)
                _kill_late(machine, asked)
                if not machine.running() and (stop.signal is not None or waiting is None):
                    return stop.signal
                view.draw(machine.running())
                time.sleep(TICK_S)
        finally:
            # An error of the launcher's own leaves no process behind.
            while left := machine.running():
                for job in left:
                    machine.kill(job)
                time.sleep(TICK_S)
                machine.ended()


def _start(machine: Machine, work: Work, view: View, waiting: Job | None) -> Job | None:
    # A search proposes its next trial when there is room for it, knowing all that has ended by then.
    while machine.room() and (job := waiting or work.next()) is not None:
        if not machine.start(job):
            return job
        work.started(job)
        view.started(job)
        waiting = None
    return waiting


def _end_all(machine: Machine, view: View, stop: _Stop, asked: dict[str, float], grace_s: float) -> None:
    if stop.again:
        for name in asked:
            asked[name] = 0.0
    new = [job for job in machine.running() if job.name not in asked]
    if new:
        view.say(f"ending {counted(len(new))}, each after its checkpoint; Ctrl-C again ends them at once")
    for job in new:
        machine.end(job)
        asked[job.name] = time.monotonic() + grace_s


def _kill_late(machine: Machine, asked: dict[str, float]) -> None:
    now = time.monotonic()
    for job in machine.running():
        if now > asked.get(job.name, now):
            machine.kill(job)


def _settle(end: Ended, asked: bool) -> None:
    """Write down how a job stands whose process could not."""
    if not end.job.directory.is_dir():
        # Somebody has removed it meanwhile.
        return
    state = end.job.run.state()
    if state in ("finished", "failed", "interrupted") or asked or end.code in (None, *_ENDED_BY_A_SIGNAL):
        return
    # A process that was killed leaves `running`, which nobody holds: interrupted. One that left by itself has failed.
    if end.code > 0:
        end.job.run.set_state("failed")
