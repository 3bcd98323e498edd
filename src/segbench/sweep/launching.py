"""The launcher's loop: it starts jobs as there is room, watches them, and ends them when it is stopped."""

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
        job: the job.
        code: its exit code, negative for the signal that killed it; None if unknown.
    """

    job: Job
    code: int | None


class Machine(Protocol):
    """Where jobs run."""

    def check(self, name: str, config: Config) -> None:
        """Raise `SegbenchError` for a job that cannot run here."""
        ...

    def room(self) -> bool:
        """Whether another job may start now."""
        ...

    def start(self, job: Job) -> bool:
        """Start a job; False if its devices are not free yet."""
        ...

    def ended(self) -> list[Ended]:
        """The jobs that have ended since the last call."""
        ...

    def end(self, job: Job) -> None:
        """Ask a running job to write its checkpoint and end."""
        ...

    def kill(self, job: Job) -> None:
        """Kill a running job and all its processes."""
        ...

    def running(self) -> list[Job]:
        """The jobs started and not yet ended."""
        ...


class Work(Protocol):
    """The jobs to run."""

    def next(self) -> Job | None:
        """The job to start next; None if there is none now."""
        ...

    def started(self, job: Job) -> None:
        """Called when a job has started."""
        ...

    def watch(self, running: Sequence[Job]) -> list[Job]:
        """The running jobs to end early."""
        ...

    def ended(self, job: Job) -> None:
        """Called when a job has ended."""
        ...


class View(Protocol):
    """What the user sees."""

    def started(self, job: Job) -> None:
        """Show that a job has started."""
        ...

    def ended(self, job: Job) -> None:
        """Show that a job has ended."""
        ...

    def draw(self, running: Sequence[Job]) -> None:
        """Redraw if due; called many times a second."""
        ...

    def say(self, text: str) -> None:
        """Print a separate line."""
        ...


class Listed:
    """A fixed list of jobs, in order."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._left = list(jobs)

    def next(self) -> Job | None:
        """The next job of the list."""
        return self._left.pop(0) if self._left else None

    def started(self, job: Job) -> None:
        """No-op."""

    def watch(self, running: Sequence[Job]) -> list[Job]:
        """Nothing ends early."""
        return []

    def ended(self, job: Job) -> None:
        """No-op."""


class _Stop:
    """Records Ctrl-C, SIGTERM and SIGHUP; the loop checks it between ticks."""

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
        # Ignored signals, as under nohup, stay ignored.
        caught = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, self) for number in caught}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def launch(machine: Machine, work: Work, view: View, grace_s: float) -> int | None:
    """Run all jobs to their end.

    Call it in the main thread: signals are caught there, and the kernel ends the jobs with the thread that started
    them.

    Args:
        machine: runs the jobs.
        work: chooses the jobs.
        view: what the user sees.
        grace_s: seconds that jobs get to write their checkpoints when a signal ends the launcher.

    Returns:
        the signal that ended it early, or None.
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
            # If the launcher itself fails, no process stays behind.
            while left := machine.running():
                for job in left:
                    machine.kill(job)
                time.sleep(TICK_S)
                machine.ended()


def _start(machine: Machine, work: Work, view: View, waiting: Job | None) -> Job | None:
    # A search proposes a trial only when there is room, so it knows every result so far.
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
    """Record the state of a job whose process could not record it."""
    if not end.job.directory.is_dir():
        # Removed by someone in the meantime.
        return
    state = end.job.run.state()
    if state in ("finished", "failed", "interrupted") or asked or end.code in (None, *_ENDED_BY_A_SIGNAL):
        return
    # A killed process leaves `running` and no lock, which reads as interrupted. One that exited by itself failed.
    if end.code > 0:
        end.job.run.set_state("failed")
