"""The folds of a cross-validation as one run: their images are pooled, and scored once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from segbench.compare.counts import read_counts
from segbench.compare.grouping import show_setting
from segbench.compare.records import RunRecord, identity
from segbench.errors import SegbenchError


def pool_folds(records: Sequence[RunRecord], key: str, ignore: Sequence[str] = ()) -> list[RunRecord]:
    """Join runs that differ in `key` alone.

    Args:
        records: the runs.
        key: the dotted setting that numbers the folds, e.g. `data.fold`.
        ignore: further keys that set no runs apart.

    Returns:
        a run for each seed of each configuration; its scores are of the pooled images.

    Raises:
        SegbenchError: no run has the setting, folds share images, or their counts cannot be read.
    """
    if not any(key in record.settings for record in records):
        near = sorted({name for record in records for name in record.settings if key.split(".")[-1] in name})
        raise SegbenchError(
            f"folds={key}, which no run sets",
            f"a setting that numbers the folds{': ' + ', '.join(near) if near else ', e.g. data.fold'}",
            "correct folds=",
        )
    together: dict[tuple[str, str, int | None], list[RunRecord]] = {}
    for record in records:
        together.setdefault((record.split, identity(record.settings, (*ignore, key)), record.seed), []).append(record)
    return [_pooled(folds, key) for folds in together.values()]


def _pooled(folds: Sequence[RunRecord], key: str) -> RunRecord:
    first = folds[0]
    numbers = ", ".join(show_setting(fold.settings.get(key)) for fold in folds)
    pooled = replace(
        first,
        source=f"{first.source} and {len(folds) - 1} more (folds {numbers})" if len(folds) > 1 else first.source,
        settings={name: value for name, value in first.settings.items() if name != key} | {key: f"folds {numbers}"},
        trained=None,
        wandb_id=None,
        folds=tuple(folds),
    )
    return replace(pooled, metrics=read_counts(pooled).of_all())
