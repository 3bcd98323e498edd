"""Reading and writing in threads, while the caller's thread predicts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from segbench.inference.in_turn import divide_threads

AHEAD = 1
"""Images that are decoded before they are asked for."""
BEHIND = 2
"""Windows that wait to be written, or are written."""

Given = TypeVar("Given")
Done = TypeVar("Done")


def ahead(given: Iterator[Given]) -> Generator[Given]:
    """The same things in the same order, each taken in a thread before it is asked for.

    Raises:
        Exception: what `given` raises, in the place of what it did not give.
    """
    end: Any = object()
    thread = ThreadPoolExecutor(1, "segbench-reader")
    waiting: deque[Future[Given]] = deque()
    try:
        while True:
            while len(waiting) <= AHEAD:
                waiting.append(thread.submit(next, given, end))
            one = waiting.popleft().result()
            if one is end:
                return
            yield one
    finally:
        # Until the thread has ended: what it takes is not lost.
        thread.shutdown(cancel_futures=True)


def behind(given: Iterable[Given], write: Callable[[Given], Iterable[Done]]) -> Generator[Done]:
    """What `write` answers, called in a thread with one thing after another.

    Where `given` raises an error, what it gave before is written first. After an error of `write` nothing more is.

    Raises:
        Exception: what `given` or `write` raises.
    """
    thread = ThreadPoolExecutor(1, "segbench-writer")
    waiting: deque[Future[Iterable[Done]]] = deque()
    failed = False

    def attempt(one: Given) -> Iterable[Done]:
        nonlocal failed
        if failed:
            return ()
        try:
            return write(one)
        except BaseException:
            failed = True
            raise

    # The network needs the others.
    divide_threads([thread], torch.get_num_threads())
    left, unread = iter(given), None
    try:
        while True:
            following, more = None, False
            try:
                following, more = next(left), True
            except StopIteration:
                pass
            except Exception as error:
                unread = error
            if more:
                waiting.append(thread.submit(attempt, following))  # type: ignore[arg-type]
            while waiting and (not more or len(waiting) > BEHIND or waiting[0].done()):
                yield from waiting.popleft().result()
            if unread is not None:
                raise unread
            if not more:
                return
    finally:
        thread.shutdown(cancel_futures=True)
