"""The score that jobs are compared by, read from the run directory without torch."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from segbench.config.record import Config
from segbench.errors import SegbenchError
from segbench.runs.configs import Configs
from segbench.runs.curves import rows, validation_of
from segbench.runs.directory import Run
from segbench.runtime.files import open_itself


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
    results = _results(run)
    return None if results is None else _score(run, results, metric)


def _score(run: Run, results: Mapping[str, Any], metric: str) -> float | None:
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


def scores_and_seconds(run: Run, configs: Configs | None = None) -> tuple[dict[str, float], float]:
    """What a table of runs shows of one, from one reading of its files.

    Args:
        run: in any state.
        configs: configurations of other runs that were read already.

    Returns:
        the score that it is compared by and the same score on the test split, by name, as far as there are any; and the
        seconds that a finished run spent on training and scoring, else 0.
    """
    metric, results = metric_of(run.config(configs)), _results(run)
    if results is None:
        return {}, 0.0
    seconds = float(results["timing"].get("fit_s", 0.0) + results["timing"].get("evaluate_s", 0.0))
    value = None if metric is None else _score(run, results, metric)
    if metric is None or value is None:
        return {}, seconds
    on_test = f"test/{metric.split('/', 1)[-1]}"
    tested = results["metrics"].get(on_test)
    return {metric: value} | ({} if tested is None or on_test == metric else {on_test: float(tested)}), seconds


def _results(run: Run) -> dict[str, Any] | None:
    return run.results() if run.has_results else None


def error_of(run: Run) -> str:
    """Why a run failed: its error, or the last lines that it printed."""
    if (reason := run.reason()) is not None:
        return reason
    try:
        # Never through a link: what it says goes into pages that are handed on.
        with open_itself(run.path / "console.log", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _END))
            text = file.read().decode(errors="replace")
    except (OSError, SegbenchError):
        return "no console.log"
    return "\n".join(text.rstrip().splitlines()[-5:])


_END = 65536
"""Bytes at the end of a log in which its last lines are looked for."""
