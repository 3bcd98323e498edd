"""What jobs are compared by: one score of each, read from its run directory without torch."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from segbench.config.record import Config
from segbench.runs.directory import Run


def metric_of(config: Config) -> str | None:
    """The name of the score, `optimized_metric`, else the one that chooses the best checkpoint.

    Args:
        config: a run's.
    """
    return config.optimized_metric or config.monitor


def history(run: Run, metric: str) -> list[tuple[int, float]]:
    """(step, value) of a score over training, as far as it is written; the step is that of the update before it."""
    try:
        text = (run.path / "metrics.csv").read_text()
    except OSError:
        return []
    # The file may be read while it is written: half a line is half a number.
    whole = text[: text.rfind("\n") + 1]
    values = []
    for row in csv.DictReader(io.StringIO(whole)):
        if row.get(metric) and row.get("step"):
            values.append((int(row["step"]), float(row[metric])))
    return values


def score_of(run: Run, metric: str) -> float | None:
    """A finished run's score; None where it has none.

    One that results.json does not hold, since it reports another split, is that of the last validation before the
    checkpoint that is reported.
    """
    if (results := _results(run)) is None:
        return None
    if metric in results["metrics"]:
        value = results["metrics"][metric]
        return math.nan if value is None else float(value)
    step = results["timing"].get("checkpoint_step", results["timing"].get("steps", math.inf))
    earlier = [value for at, value in history(run, metric) if at < step]
    return earlier[-1] if earlier else None


def reported(run: Run, metric: str) -> tuple[str, float] | None:
    """The same score on the test split, as (name, value); None where there is none."""
    name = f"test/{metric.split('/', 1)[-1]}"
    results = _results(run) if name != metric else None
    value = results["metrics"].get(name) if results else None
    return None if value is None else (name, float(value))


def trained_s(run: Run) -> float:
    """Seconds of training and scoring that a finished run noted, for jobs that no launcher has watched; 0 before."""
    timing = (_results(run) or {}).get("timing", {})
    return float(timing.get("fit_s", 0.0) + timing.get("evaluate_s", 0.0))


def _results(run: Run) -> dict[str, Any] | None:
    return run.results() if (run.path / "results.json").is_file() else None


def error_of(run: Run) -> str:
    """Why a run failed: its error, else the last lines of what its process printed."""
    if (reason := run.reason()) is not None:
        return reason
    try:
        lines = (run.path / "console.log").read_text(errors="replace").rstrip().splitlines()
    except OSError:
        return "it left no console.log"
    return "\n".join(lines[-5:])
