"""Progress of a prediction: a bar on a terminal, elsewhere a line per minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from segbench.errors import say

LINE_SECONDS = 60.0


class Progress:
    """Counts inputs, and pixels of the current input.

    Args:
        inputs: their number.
        clock: seconds.
    """

    def __init__(self, inputs: int, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        from segbench.runtime.console import Console

        self._inputs, self._done, self._clock, self._printed = inputs, 0, clock, clock()
        console = Console(stderr=True)
        self._terminal = console.is_terminal
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
        )
        # If standard output goes elsewhere, file names belong there, not above the bar.
        redirect = sys.stdout.isatty()
        self._bar = Bar(*columns, console=console, redirect_stdout=redirect, disable=not self._terminal, transient=True)
        self._task = self._bar.add_task("predict", total=inputs)
        self._name, self._pixels, self._of = "", 0, 1

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bar.stop()

    def begin(self, name: str, pixels: int) -> None:
        """Start an input of that many pixels."""
        self._name, self._pixels, self._of = name, 0, pixels

    def add(self, pixels: int) -> None:
        """That many more pixels are predicted."""
        self._pixels += pixels
        share = self._pixels / self._of
        self._bar.update(self._task, description=self._name, completed=self._done + share)
        if not self._terminal and self._clock() - self._printed >= LINE_SECONDS:
            self._printed = self._clock()
            say(f"{self._name}: {share:.0%}; input {self._done + 1} of {self._inputs}", file=sys.stderr, flush=True)

    def end(self) -> None:
        """The input is done."""
        self._done += 1
        self._bar.update(self._task, completed=self._done)
