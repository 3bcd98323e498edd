"""Loaders, their processes, and how those fail: every way ends the run with a sentence, none leaves it waiting."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import Any

import cv2
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader

from segbench.config.explain import worker_ended
from segbench.runtime.processes import end_with_parent
from segbench.spec import Sample


class Loader(DataLoader[Sample]):
    """A loader that starts its processes without the threads of OpenCV."""

    def __iter__(self) -> Any:
        """The batches."""
        # Threads do not live on in a fork, where OpenCV would wait for them for ever: they end here, and come back with
        # the next call that needs them.
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            return super().__iter__()
        finally:
            cv2.setNumThreads(threads)


class ResumableLoader(Loader):
    """A loader that resumes within an epoch: its sampler counts steps, so it has no state of its own.

    Attributes:
        waited_s: seconds that its user has waited for batches, for the first of all left out: it starts the workers.
    """

    waited_s: float | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """The batches, with the time that each took."""
        # Workers start here, not at the first batch.
        batches = super().__iter__()
        return self._timed(batches, multiprocessing.active_children())

    def _timed(self, batches: Iterator[Any], children: Sequence[BaseProcess]) -> Iterator[Any]:
        while True:
            began = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (OSError, EOFError) as error:
                # A killed worker cuts off the connection by which its batch comes; torch tells it only while it waits.
                killed = [child for child in children if child.exitcode not in (None, 0)]
                if not killed:
                    raise
                raise worker_ended(f"(pid {killed[0].pid}) with exit code {killed[0].exitcode}") from error
            self.waited_s = 0.0 if self.waited_s is None else self.waited_s + time.monotonic() - began
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Empty."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """No-op."""


def in_worker(parent: int, worker: int) -> None:
    """Set up a loading process.

    Args:
        parent: the process that loads.
        worker: its number.
    """
    # A worker shares the run directory's lock: one left over from a killed run would block a resume. (Started by a fork
    # server it is no child of the run, and torch ends it within seconds.)
    if os.getppid() == parent:
        end_with_parent(parent)
    # A signal of a fork's is none of the process that it came from.
    signal.set_wakeup_fd(-1)
    # Signals that stop a run go to its whole process group, but the step that finishes first still needs samples.
    os.setpgid(0, 0)
    # The workers are the threads: torch takes one in each of them by itself, OpenCV every core that the run has.
    cv2.setNumThreads(1)
    Queue._on_queue_feeder_error = _told_instead  # type: ignore[attr-defined]


def _told_instead(queue: Queue[Any], error: Exception, batch: tuple[int, Any]) -> None:
    """Send why a batch could not be moved into shared memory in its place, since its reader would wait for ever."""
    raised = type(error), error, error.__traceback__
    queue.put((batch[0], ExceptionWrapper(raised, "in DataLoader worker process")))  # type: ignore[no-untyped-call]
