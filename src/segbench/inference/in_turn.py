"""Workers that take turns, each in a thread: copies of a network on several devices, or bands of one image."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from segbench.inference.casts import kept_casts

AHEAD = 2
"""Batches a device that are read or predicted while the caller has the one before."""

Given = TypeVar("Given")
Answer = TypeVar("Answer")

Answers = Generator[tuple[Given, Answer], None, None]


def in_turn(
    workers: Sequence[Callable[[Given], Answer]],
    given: Iterator[tuple[int, Given]],
    devices: Sequence[torch.device | None],
    shares: int = 1,
) -> Answers[Given, Answer]:
    """Each worker in a thread of its own; answers in the order of what is given to them.

    Args:
        workers: whose answers are wanted.
        given: the place of a worker, and what it is given.
        devices: of the workers.
        shares: into how many parts the threads of a CPU are divided.
    """
    # Each thread has the caller's autocast until it ends, so weights are cast once.
    contexts = [kept_casts("cpu" if device is None else device.type) for device in devices]
    threads = [ThreadPoolExecutor(1, "segbench-device") for _ in workers]
    waiting: deque[tuple[Given, Future[Answer]]] = deque()
    try:
        for thread, context in zip(threads, contexts, strict=True):
            thread.submit(context.__enter__)
        if shares > 1:
            divide_threads(threads, shares)
        while True:
            unreadable: Exception | None = None
            following: tuple[int, Given] | None = None
            try:
                following = next(given, None)
            except Exception as error:
                # What was read before it is still predicted.
                unreadable = error
            if following is not None:
                place, one = following
                waiting.append((one, threads[place].submit(workers[place], one)))
            while waiting and (following is None or len(waiting) > AHEAD * len(workers)):
                done, future = waiting.popleft()
                yield done, future.result()
            if unreadable is not None:
                raise unreadable
            if following is None:
                return
    finally:
        for _, future in waiting:
            future.cancel()
        for thread, context in zip(threads, contexts, strict=True):
            thread.submit(context.__exit__, None, None, None)
            thread.shutdown()


def divide_threads(threads: Sequence[ThreadPoolExecutor], shares: int) -> None:
    """Each of these threads computes on its share of torch's."""
    count = torch.get_num_threads()

    def settle() -> None:
        torch.set_num_threads(count // shares)
        # A thread takes the number of the last one that set it, when it first asks.
        torch.get_num_threads()

    try:
        for thread in threads:
            thread.submit(settle).result()
    finally:
        torch.set_num_threads(count)
