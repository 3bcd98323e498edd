"""A comparison as data: plain rows and containers with all digits, for CSV and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from segbench.compare.comparison import Comparison, Difference, ImageChange, Pair
from segbench.compare.conclusions import conclude
from segbench.compare.document import directions
from segbench.compare.grouping import Group
from segbench.compare.records import RunRecord

SCHEMA = 2
Row = dict[str, Any]


def run_rows(comparison: Comparison) -> list[Row]:
    """One row per run: its directory, its group, the settings that differ, and every score that it has."""
    keys = list(dict.fromkeys(key for run in comparison.table.runs for key in run.metrics))
    settings = [key for key in comparison.table.differing if key != "seed"]
    return [
        {"run": run.source, "group": group.name, "name": run.name, "seed": run.seed}
        | {key: group.settings[key] for key in settings}
        | {key: run.metrics.get(key) for key in keys}
        for group in comparison.table.groups
        for run in group.runs
    ]


def group_rows(comparison: Comparison) -> list[Row]:
    """One row per group: mean, standard deviation, number of runs and interval over seeds of each score shown."""
    rows = []
    for group in comparison.table.groups:
        row: Row = {"group": group.name, "label": group.label, "runs": len(group.runs), **group.settings}
        for column in comparison.columns:
            summary = group.summary(column)
            low, high = summary.interval(comparison.settings.confidence)
            parts = asdict(summary) | {"low": low, "high": high}
            row |= {f"{column.key} {part}": value for part, value in parts.items()}
        rows.append(row)
    return rows


def difference_row(difference: Difference) -> Row:
    """One score of a pair."""
    d, analysis = difference, difference.analysis
    seeds = analysis.seeds if analysis else None
    return {
        "score": d.key,
        "first": d.first,
        "second": d.second,
        "first_score": d.scores[0],
        "second_score": d.scores[1],
        "difference": d.difference,
        "low": d.low,
        "high": d.high,
        "p": d.p,
        "p_adjusted": d.p_adjusted,
        "standard_error": analysis.both.error if analysis else None,
        "degrees_of_freedom": analysis.both.freedom if analysis else None,
        "low_seeds_only": seeds.low if seeds else None,
        "high_seeds_only": seeds.high if seeds else None,
        "p_seeds_only": seeds.p if seeds else None,
        "permutation_swaps": d.permutation.swaps if d.permutation else None,
        "permutation_exact": d.permutation.exact if d.permutation else None,
        "undefined_draws": d.undefined,
        "images": d.images,
        "first_runs": d.seeds[0],
        "second_runs": d.seeds[1],
        "images_dependent": d.dependence or None,
        "higher_is_better": d.info.higher_is_better,
        "definition": d.info.version,
        "better": d.better,
    }


def plan_rows(pair: Pair) -> list[Row]:
    """One row per number of images and of runs of a pair's plan."""
    if pair.plan is None:
        return []
    return [
        {
            "score": pair.plan.key,
            "first": pair.first,
            "second": pair.second,
            "planned_difference": pair.plan.difference,
            "images": row.images,
            "runs_needed": row.seeds,
            "first_runs": runs[0],
            "second_runs": runs[1],
            "smallest_difference": smallest,
        }
        for row in pair.plan.rows
        for runs, smallest in zip(pair.plan.runs, row.smallest, strict=True)
    ]


def image_row(pair: Pair, image: ImageChange) -> Row:
    """One image of a pair."""
    return {
        "image": image.id,
        "first": pair.first,
        "second": pair.second,
        "first_score": image.scores[0],
        "second_score": image.scores[1],
        "difference": image.difference,
        "difference_without": image.without,
    }


def tables(comparison: Comparison) -> dict[str, list[Row]]:
    """Every table as rows, by its name for `table=`."""
    pairs = comparison.pairs
    return {
        "runs": run_rows(comparison),
        "scores": group_rows(comparison),
        "settings": [{"group": group.name} | dict(group.settings) for group in comparison.table.groups],
        "differences": [difference_row(d) for pair in pairs for d in pair.differences],
        "classes": [difference_row(d) for pair in pairs for d in pair.classes],
        "images": [image_row(pair, image) for pair in pairs for image in pair.changed],
        "plan": [row for pair in pairs for row in plan_rows(pair)],
        "left_out": [{"run": entry.source, "reason": entry.reason} for entry in comparison.table.left_out],
    }


def as_json(comparison: Comparison) -> Row:
    """The whole comparison, NaN as null."""
    table = comparison.table
    better = directions(comparison)
    whole = {
        "schema": SCHEMA,
        "settings": asdict(comparison.settings),
        "differing": list(table.differing),
        "groups": [_group(comparison, group) for group in table.groups],
        "columns": [
            {"key": c.key, "definition": c.version, "higher_is_better": better.get(c.key)} for c in comparison.columns
        ],
        "pairs": [_pair(comparison, pair) for pair in comparison.pairs],
        "not_tested": [
            {"what": r.what, "found": r.error.found, "expected": r.error.expected, "to_do": r.error.action}
            for r in comparison.refusals
        ],
        "left_out": [asdict(entry) for entry in table.left_out],
        "notes": [*comparison.notes, *table.notes],
        "method": list(comparison.method),
    }
    plain: Row = _plain(whole)
    return plain


def _group(comparison: Comparison, group: Group) -> Row:
    return {
        "group": group.name,
        "label": group.label,
        "settings": dict(group.settings),
        "scores": {
            f"{column.key} [{column.version}]" if column.mixed else column.key: asdict(group.summary(column))
            for column in comparison.columns
        },
        "runs": [_run(run) for run in group.runs],
    }


def _run(run: RunRecord) -> Row:
    return {
        "run": run.source,
        "name": run.name,
        "seed": run.seed,
        "metrics": dict(run.metrics),
        "definitions": dict(run.versions),
        "timing": dict(run.timing),
        "commit": (run.provenance.get("git") or {}).get("commit"),
        "folds": [fold.source for fold in run.folds],
    }


def _pair(comparison: Comparison, pair: Pair) -> Row:
    confidence, pairs = comparison.settings.confidence, len(comparison.pairs)
    return {
        "first": pair.first,
        "second": pair.second,
        "images": pair.images,
        "conclusions": list(pair.sentences),
        "differences": [difference_row(d) | {"conclusion": conclude(d, confidence, pairs)} for d in pair.differences],
        "classes": [difference_row(d) for d in pair.classes],
        "plan": plan_rows(pair),
        "changed": [image_row(pair, image) for image in pair.changed],
        "same_in_all": list(pair.equal),
        "untested": list(pair.untested),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, int | float | str | bool | None) else str(value)
