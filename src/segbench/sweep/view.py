"""Live view of a sweep: one line per running job, one per ended job."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from segbench.display.digits import decimals
from segbench.runtime.console import Console
from segbench.sweep.job import Job, counted
from segbench.sweep.scores import metric_of, score_of

_COLOURS = {"finished": "green", "failed": "red", "interrupted": "yellow", "pruned": "cyan", "missing": "red"}


class JobsView:
    """Redraws in place on a terminal; elsewhere prints lines, and counts every half minute.

    Args:
        labels: text that tells each job apart, by job name; may grow.
        total: number of jobs.
        console: output; None: standard error.
        refresh_s: seconds between redraws.
        lines_every_s: seconds between counts.
    """

    def __init__(
        self,
        labels: Mapping[str, str],
        total: int,
        console: Console | None = None,
        refresh_s: float = 0.5,
        lines_every_s: float = 30.0,
    ) -> None:
        self._labels, self._total = labels, total
        self._console = Console(stderr=True) if console is None else console
        self._every = refresh_s if self._console.is_terminal else lines_every_s
        self._drawn = time.monotonic()
        self._since: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._live: Live | None = None

    def __enter__(self) -> JobsView:
        if self._console.is_terminal:
            # The loop itself redraws: the launcher forks, so it must have no other thread.
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """Print a separate line."""
        self._console.print(text, soft_wrap=True)

    def started(self, job: Job) -> None:
        """Show that a job has started."""
        self._since[job.name] = time.monotonic()
        if self._live is None:
            self.say(f"job {job.name} started: {self._labels.get(job.name, '')}".rstrip(": "))

    def ended(self, job: Job) -> None:
        """Show that a job has ended."""
        state = job.state()
        self._counts[state] = self._counts.get(state, 0) + 1
        taken = time.monotonic() - self._since.pop(job.name, time.monotonic())
        score = _score(job) if state == "finished" else ""
        parts = [f"job {job.name} {state} in {clock(taken)}", self._labels.get(job.name, ""), score]
        self._console.print(": ".join(part for part in parts if part), style=_COLOURS.get(state), soft_wrap=True)

    def draw(self, running: Sequence[Job]) -> None:
        """Redraw if due."""
        now = time.monotonic()
        if now - self._drawn < self._every:
            return
        self._drawn = now
        if self._live is not None:
            self._live.update(Group(self._table(running), Text(self._count(len(running)), style="dim")), refresh=True)
        else:
            steps = [f"{job.name} {_step(job.progress())}" for job in running]
            self.say(f"{self._count(len(running))}; {', '.join(steps)}")

    def _count(self, running: int) -> str:
        ended = sum(self._counts.values())
        counts = [f"{number} {state}" for state, number in self._counts.items()]
        waiting = max(0, self._total - ended - running)
        return ", ".join([counted(self._total), *counts, f"{running} running", f"{waiting} waiting"])

    def _table(self, running: Sequence[Job]) -> Table:
        table = Table(box=None, pad_edge=False)
        for column in ("job", "", "step", "", "loss", "speed", "time", "left"):
            table.add_column(column, no_wrap=True)
        now = time.monotonic()
        for job in running:
            progress = job.progress()
            bar = ProgressBar(total=progress.get("total") or 1, completed=progress.get("step", 0), width=20)
            rate, left = progress.get("rate") or 0.0, progress.get("total", 0) - progress.get("step", 0)
            table.add_row(
                job.name,
                Text(self._labels.get(job.name, ""), overflow="ellipsis"),
                _step(progress),
                bar,
                f"{progress['loss']:.4f}" if progress.get("loss") is not None else "",
                f"{rate:.2f}/s" if rate else "",
                clock(now - self._since.get(job.name, now)),
                clock(left / rate) if rate else "",
            )
        return table


def _score(job: Job) -> str:
    metric = metric_of(job.run.config())
    score = None if metric is None else score_of(job.run, metric)
    return "" if score is None else f"{metric} {score:.{decimals(score)}f}"


def _step(progress: Mapping[str, Any]) -> str:
    return f"{progress['step']}/{progress['total']}" if progress else "starting"


def clock(seconds: float) -> str:
    """h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
