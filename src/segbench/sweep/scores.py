"""The score that jobs are compared by, read from the run directory without torch."""

from __future__ import annotations

import math
from typing import Any

from segbench.config.record import Config
from segbench.runs.curves import rows, validation_of
from segbench.runs.directory import Run


def metric_of(config: Config) -> str | None:
    """The name of the score: `optimized_metric`, or the one that selects the best checkpoint.

    Args:
        config: a run's.
    """
    return config.optimized_metric or config.monitor


def history(run: Run, metric: str) -> list[tuple[int, float]]:
    """(step, value) pairs of a score, as far as written; the step is that of the last update before it."""
    return [(step, values[metric]) for step, values in rows(run.path) if metric in values]


def score_of(run: Run, metric: str) -> float | None:
    """A finished run's score; None if it has none.

    If results.json does not hold it, since it reports another split, it is the score of the last validation before the
    reported checkpoint.
    """
    if (results := _results(run)) is None:
        return None
    if metric in results["metrics"]:
        value = results["metrics"][metric]
        return math.nan if value is None else float(value)
    step = results["timing"].get("checkpoint_step", results["timing"].get("steps", math.inf))
    return validation_of(run.path, step).get(metric)


def why_no_score(run: Run, metric: str) -> str | None:
    """Why a finished run has no score to compare it by; None if it has one.

    Args:
        run: finished.
        metric: the score.
    """
    value = score_of(run, metric)
    if value is not None and math.isfinite(value):
        return None
    if value is None and not any(name.startswith("val/") for _, values in rows(run.path) for name in values):
        steps = ((_results(run) or {}).get("timing") or {}).get("steps")
        return f"no validation{'' if steps is None else f' in its {int(steps)} steps'}, so no {metric}"
    return f"{metric} is {value}"


def reported(run: Run, metric: str) -> tuple[str, float] | None:
    """The same score on the test split, as (name, value); None if there is none."""
    name = f"test/{metric.split('/', 1)[-1]}"
    results = _results(run) if name != metric else None
    value = results["metrics"].get(name) if results else None
    return None if value is None else (name, float(value))


def trained_s(run: Run) -> float:
    """Seconds that a finished run spent on training and scoring, for jobs that no launcher watched; else 0."""
    timing = (_results(run) or {}).get("timing", {})
    return float(timing.get("fit_s", 0.0) + timing.get("evaluate_s", 0.0))


def _results(run: Run) -> dict[str, Any] | None:
    return run.results() if (run.path / "results.json").is_file() else None


def error_of(run: Run) -> str:
    """Why a run failed: its error, or the last lines that it printed."""
    if (reason := run.reason()) is not None:
        return reason
    try:
        lines = (run.path / "console.log").read_text(errors="replace").rstrip().splitlines()
    except OSError:
        return "no console.log"
    return "\n".join(lines[-5:])
