"""Several runs: settings, scores, and how much of the score each setting explains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from segbench.compare.columns import Column, Summary, choose_columns
from segbench.compare.definitions import score_infos
from segbench.compare.document import Table
from segbench.compare.grouping import Group, group_runs, short
from segbench.compare.records import LeftOut, RunRecord
from segbench.display.digits import number
from segbench.errors import SegbenchError
from segbench.report.figures import bars, parallel_coordinates
from segbench.report.pieces import chart, sentences, table
from segbench.report.run_page import VARIANTS, duration, run_sections

_SCORES = 8
"""Scores that a table shows next to the settings."""


def sweep_sections(runs: Sequence[RunRecord], left_out: Sequence[LeftOut], metric: str | None) -> dict[str, Markup]:
    """HTML by heading.

    Args:
        runs: at least two.
        left_out: runs without results, with reasons.
        metric: the score by which runs are ordered; None for the first one.

    Raises:
        SegbenchError: no run has the metric.
    """
    grouped = group_runs(runs, left_out)
    columns = choose_columns(grouped.columns, [metric] if metric else [])
    leading = columns[0]
    higher = _higher_is_better(runs, leading)
    keys = sorted({key for group in grouped.groups for key in group.settings})
    others = [column for column in choose_columns(grouped.columns) if column != leading]
    others.sort(key=lambda column: column.key.split("/")[-1] in VARIANTS)
    shown = [leading, *others]
    scored = [run for run in runs if math.isfinite(run.metrics.get(leading.key, math.nan))]
    scored.sort(key=lambda run: run.metrics[leading.key], reverse=higher)
    settings = [*keys, "seed"] if len({run.seed for run in runs}) > 1 else keys
    best = scored[0] if scored else None
    failed = [f"{each.source}: {each.reason}" for each in left_out]
    sections = {
        "Settings over seeds": _over_seeds(grouped.groups, keys, shown, leading, higher),
        "Runs": _table(runs, scored, settings, shown, left_out),
        "Left out": sentences(failed),
        "Settings and score": _parallel(scored, settings, leading, higher),
        "Importance": _importance(scored, settings, leading),
    }
    if best is not None and best.path is not None:
        for heading, body in run_sections(best, metric).items():
            sections[f"Best run: {heading[0].lower()}{heading[1:]}"] = body
    return sections


def _over_seeds(
    groups: Sequence[Group], keys: Sequence[str], columns: Sequence[Column], leading: Column, higher: bool
) -> Markup:
    """A row for each setting, the best by its mean first; nothing where no setting has several seeds."""
    if all(len(group.runs) < 2 for group in groups):
        return sentences([])
    columns = columns[:_SCORES]
    header = (*(short(key) for key in keys), "seeds", *(column.name for column in columns))
    ordered = sorted(groups, key=lambda group: _rank(group.summary(leading).mean, higher))
    rows = tuple(
        (
            *(str(group.settings.get(key)) for key in keys),
            str(len(group.runs)),
            *(_spread(group.summary(column)) for column in columns),
        )
        for group in ordered
    )
    caption = (
        f"{len(groups)} settings, the best by {leading.name} first: the mean over seeds, plus or minus the standard "
        "deviation, and the 95 % interval of the mean by Student's t.",
    )
    return table(Table("settings", "settings over seeds", header, rows, (False,) * len(header), caption))


def _rank(value: float, higher: bool) -> float:
    return math.inf if math.isnan(value) else -value if higher else value


def _spread(summary: Summary) -> str:
    if summary.n < 2:
        return number(summary.mean)
    low, high = summary.interval(0.95)
    return f"{number(summary.mean)} ± {number(summary.sd)} [{number(low)}, {number(high)}]"


def _higher_is_better(runs: Sequence[RunRecord], column: Column) -> bool:
    for run in runs:
        try:
            info = score_infos(run).get(column.key.split("/", 1)[-1])
        except SegbenchError:
            continue
        if info is not None:
            return info.higher_is_better
    return not column.key.endswith("error")


def _setting(run: RunRecord, key: str) -> Any:
    return run.seed if key == "seed" else run.settings.get(key)


def _table(
    runs: Sequence[RunRecord],
    scored: Sequence[RunRecord],
    keys: Sequence[str],
    columns: Sequence[Column],
    left_out: Sequence[LeftOut],
) -> Markup:
    further = len(columns) - _SCORES
    columns = columns[:_SCORES]
    header = ("run", *(short(key) for key in keys), *(column.name for column in columns), "training")
    there = {run.source for run in scored}
    ordered = [*scored, *(run for run in runs if run.source not in there)]
    rows = tuple(
        (
            run.source.rstrip("/").rsplit("/", 1)[-1],
            *(str(_setting(run, key)) for key in keys),
            *(number(run.metrics.get(column.key, math.nan)) for column in columns),
            duration(run.timing["fit_s"]) if "fit_s" in run.timing else "",
        )
        for run in ordered
    )
    numeric = (False, *(False for _ in keys), *(True for _ in columns), True)
    caption: tuple[str, ...] = (f"{len(runs)} runs, the best by {columns[0].name} first; {len(left_out)} left out.",)
    if further > 0:
        caption += (f"{further} further scores: segbench compare.",)
    return table(Table("runs", "runs", header, rows, numeric, caption))


def _parallel(scored: Sequence[RunRecord], keys: Sequence[str], column: Column, higher: bool) -> Markup:
    if len(scored) < 2 or not keys:
        return sentences([])
    rows = [{short(key): _setting(run, key) for key in keys} | {column.name: run.metrics[column.key]} for run in scored]
    said = f"One line per run: its settings, and {column.name} on the last axis; grey is worst, orange best"
    return chart(parallel_coordinates(rows, column.name, higher), said)


def _importance(scored: Sequence[RunRecord], keys: Sequence[str], column: Column) -> Markup:
    shares = explained(
        [{key: _setting(run, key) for key in keys} for run in scored], [run.metrics[column.key] for run in scored]
    )
    if not shares:
        return sentences([])
    ordered = {
        ", ".join(short(key) for key in keys): share
        for keys, share in sorted(shares.items(), key=lambda item: -item[1])
    }
    caption = (
        f"Share of the variance of {column.name} over the runs that a setting explains by itself (adjusted for the "
        "number of its values); settings that change together in every run are one. Interactions between settings are "
        "not counted, and with few runs it is only a hint"
    )
    return chart(bars(ordered, "share of the variance"), caption)


def explained(settings: Sequence[Mapping[str, Any]], scores: Sequence[float]) -> dict[tuple[str, ...], float]:
    """How much of the scores' variance each setting explains by itself, from 0 to 1.

    The share of the sum of squares between the values of a setting, adjusted for their number like epsilon squared
    (Kelley, PNAS 21(9), 1935), so that a setting without effect is near 0 for any number of values. A numeric setting
    with a different value in nearly every run is first cut at its quartiles.

    Args:
        settings: of each run.
        scores: of each run.

    Returns:
        shares by setting, by several that change together in every run; settings with one value, or with no value
        shared by two runs, are left out.
    """
    values = np.asarray(scores, np.float64)
    total = float(((values - values.mean()) ** 2).sum()) if len(values) else 0.0
    shares: dict[tuple[str, ...], float] = {}
    together: dict[tuple[int, ...], list[str]] = {}
    for key in settings[0] if settings else ():
        labels = _levels([each[key] for each in settings])
        together.setdefault(tuple(labels.index(label) for label in labels), []).append(key)
    for keys in together.values():
        labels = _levels([each[keys[0]] for each in settings])
        levels = sorted(set(labels))
        free = len(values) - len(levels)
        if len(levels) < 2 or free < 1 or total == 0:
            continue
        groups = [values[[label == level for label in labels]] for level in levels]
        within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
        adjusted = 1 - (within / free) / (total / (len(values) - 1))
        shares[tuple(keys)] = min(1.0, max(0.0, adjusted))
    return shares


def _levels(values: Sequence[Any]) -> list[str]:
    numbers = [float(v) for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if len(numbers) == len(values) and len(set(numbers)) > max(4, len(values) // 2):
        edges = np.quantile(numbers, (0.25, 0.5, 0.75))
        return [str(int(np.searchsorted(edges, value))) for value in numbers]
    return [str(value) for value in values]
