"""The table of a sweep's jobs, and why jobs failed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from rich.table import Table

from segbench.display.digits import decimals
from segbench.errors import SegbenchError, as_typed
from segbench.runs.configs import Configs
from segbench.runtime.console import Console
from segbench.sweep.directory import Sweep
from segbench.sweep.job import Job, counted
from segbench.sweep.scores import error_of, scores_and_seconds, why_no_score
from segbench.sweep.view import clock


def show(sweep: Sweep) -> dict[str, str]:
    """Print each job's overrides, state, score and time, then the failures.

    Args:
        sweep: the sweep.

    Returns:
        the state of each job, by name.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    sweep.look()
    states = {job.name: job.state() for job in sweep.jobs}
    standing = ", ".join(f"{number} {state}" for state, number in Counter(states.values()).items())
    console.print(f"{sweep.path}: {counted(len(sweep.jobs))}, {standing}", soft_wrap=True)
    scores, seconds, damaged = _all_scores(sweep, states)
    console.print(_table(sweep, states, scores, seconds))
    for job in sweep.jobs:
        if job.name in damaged:
            console.print(f"job {job.name}: {damaged[job.name].found}", style="red", soft_wrap=True)
        if states[job.name] == "failed":
            console.print(f"job {job.name} failed, see {job.directory / 'console.log'}", style="red", soft_wrap=True)
            for line in error_of(job.run).splitlines():
                console.print(f"  {line}", soft_wrap=True)
    if sweep.search is not None:
        _print_unscored(console, sweep, states)
    if sweep.search is not None and (best := _best(sweep, states, scores)) is not None:
        job, value = best
        line = f"best {sweep.search['metric']} {value:.{decimals(value)}f}: job {job.name}, {sweep.labels()[job.name]}"
        console.print(line, soft_wrap=True)
    open_ = [name for name, state in states.items() if state in ("interrupted", "prepared")]
    if open_:
        console.print(f"continue with: segbench sweep resume {as_typed(sweep.path)}", soft_wrap=True)
    if "missing" in states.values():
        console.print("to restart a job whose directory is gone, repeat the command that launched it", soft_wrap=True)
    if "failed" in states.values():
        console.print(f"try again with: segbench sweep retry {as_typed(sweep.path)}", soft_wrap=True)
    return states


def _unscored(sweep: Sweep, states: Mapping[str, str]) -> dict[str, str]:
    """Why a job of a search has no score to go by, by name; those that were pruned or are still to run are left out."""
    assert sweep.search is not None
    reasons: dict[str, str] = {}
    for job in sweep.jobs:
        if states[job.name] == "failed":
            reasons[job.name] = "failed"
        elif states[job.name] == "finished":
            try:
                reason = why_no_score(job.run, sweep.search["metric"])
            except SegbenchError as error:
                reason = error.found
            reasons |= {} if reason is None else {job.name: reason}
    return reasons


def _print_unscored(console: Console, sweep: Sweep, states: Mapping[str, str]) -> None:
    reasons = _unscored(sweep, states)
    if not reasons or sweep.search is None:
        return
    ended = sum(state in ("finished", "failed", "pruned") for state in states.values())
    jobs = "; ".join(f"job {name}: {reason}" for name, reason in reasons.items())
    console.print(f"no {sweep.search['metric']} of {len(reasons)} of {counted(ended)}: {jobs}", soft_wrap=True)


def _all_scores(
    sweep: Sweep, states: Mapping[str, str]
) -> tuple[dict[str, dict[str, float]], dict[str, float], dict[str, SegbenchError]]:
    """The scores and the seconds of each job, and the errors of jobs whose files are damaged."""
    configs = Configs()
    scores: dict[str, dict[str, float]] = {}
    seconds: dict[str, float] = {}
    damaged: dict[str, SegbenchError] = {}
    for job in sweep.jobs:
        if states[job.name] == "missing":
            continue
        try:
            scores[job.name], seconds[job.name] = scores_and_seconds(job.run, configs)
        except SegbenchError as error:
            damaged[job.name] = error
    return scores, seconds, damaged


def _table(
    sweep: Sweep, states: Mapping[str, str], scores: Mapping[str, Mapping[str, float]], trained_s: Mapping[str, float]
) -> Table:
    names = list(dict.fromkeys(name for of_job in scores.values() for name in of_job))
    places = {name: decimals(*(of_job[name] for of_job in scores.values() if name in of_job)) for name in names}
    table = Table()
    for column in ("job", "overrides", "state", "step", *names, "time"):
        table.add_column(column, justify="left" if column in ("overrides", "state") else "right")
    labels = sweep.labels()
    for job in sweep.jobs:
        progress = job.progress()
        values = [(scores.get(job.name, {}).get(name), places[name]) for name in names]
        seconds = job.seconds or trained_s.get(job.name, 0.0)
        table.add_row(
            job.name,
            labels[job.name],
            states[job.name],
            f"{progress['step']}/{progress['total']}" if progress else "",
            *("" if value is None else f"{value:.{digits}f}" for value, digits in values),
            clock(seconds) if seconds else "",
        )
    return table


def _best(
    sweep: Sweep, states: Mapping[str, str], scores: Mapping[str, Mapping[str, float]]
) -> tuple[Job, float] | None:
    assert sweep.search is not None
    finished = [job for job in sweep.jobs if states[job.name] == "finished"]
    scored = [(job, scores.get(job.name, {}).get(sweep.search["metric"])) for job in finished]
    finite = [(job, value) for job, value in scored if value is not None and math.isfinite(value)]
    sign = 1 if sweep.search["direction"] == "maximize" else -1
    return max(finite, key=lambda pair: sign * pair[1], default=None)


def exit_code(sweep: Sweep, states: Mapping[str, str], stopped: int | None = None) -> int:
    """The launcher's exit code.

    Args:
        sweep: the sweep.
        states: of its jobs, by name.
        stopped: the signal that ended it early.

    Returns:
        128 + the signal if there is one; else 1 if a job neither finished nor is pruned, queued or running, else 0. A
        search, whose trials may fail, gives 1 only if no trial has a score or one was interrupted.
    """
    if stopped is not None:
        return 128 + stopped
    if sweep.search is not None:
        scored = {name for name, state in states.items() if state == "finished"} - _unscored(sweep, states).keys()
        return int(not scored or "interrupted" in states.values())
    return int(any(state not in ("finished", "pruned", "queued", "running") for state in states.values()))
