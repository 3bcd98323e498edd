"""Which runs can be combined: pairs scored on the same images, or folds that share no image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segbench.compare.counts import ImageCounts, some_of
from segbench.compare.grouping import show_setting
from segbench.compare.per_image import read_counts
from segbench.compare.records import RunRecord, identity
from segbench.config.places import DATA
from segbench.errors import SegbenchError


def check_same_images(first: ImageCounts, second: ImageCounts) -> None:
    """Refuse to pair runs that were not scored on the same labelled images.

    Args:
        first: in the order of its ids.
        second: in the order of its ids.

    Raises:
        SegbenchError: data set, split, ids or labels differ; the message says which.
    """
    pair = f"{first.source} and {second.source}"
    if first.data != second.data:
        raise SegbenchError(
            f"{pair} were scored on {first.data} and on {second.data}",
            "runs that were scored on the same data",
            "compare runs of one data set",
        )
    if first.split != second.split:
        raise SegbenchError(
            f"{pair} were scored on {first.split} and on {second.split}",
            "runs that were scored on the same images",
            "score both on one split: segbench evaluate run=RUN split=SPLIT",
        )
    only = [sorted(set(a.ids) - set(b.ids)) for a, b in ((first, second), (second, first))]
    if any(only):
        said = "; ".join(
            f"only in {counts.source}: {some_of(ids)}" for counts, ids in zip((first, second), only, strict=True) if ids
        )
        common = len(set(first.ids) & set(second.ids))
        raise SegbenchError(
            f"{pair} were not scored on the same images ({common} in common; {said})",
            "the same image ids in both",
            "score both on one split of one data set: segbench evaluate run=RUN split=SPLIT",
        )
    other = _other_labels(first, second)
    if other:
        raise SegbenchError(
            f"{pair} have different labels for images of the same name: {some_of(other)}",
            "the same labels, with the same number of pixels of each class",
            "check that data.root and the settings of the data set are the same, and score both again",
        )


def _other_labels(first: ImageCounts, second: ImageCounts) -> list[str]:
    wrong = np.zeros(len(first.ids), bool)
    for key in set(first.counts) & set(second.counts):
        ours, theirs = (counts.counts[key].get("labelled") for counts in (first, second))
        if ours is not None and theirs is not None:
            if ours.shape != theirs.shape:
                return list(first.ids)
            wrong |= (ours != theirs).any(axis=tuple(range(1, ours.ndim)))
    return [name for name, differs in zip(first.ids, wrong, strict=True) if differs]


def pool_folds(records: Sequence[RunRecord], key: str, ignore: Sequence[str] = ()) -> list[RunRecord]:
    """Join runs that differ only in `key`.

    Args:
        records: the runs.
        key: the dotted setting that numbers the folds, e.g. `data.fold`.
        ignore: further keys that do not separate runs.

    Returns:
        one run per seed of each configuration; its scores are those of the pooled images.

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
    # Of a folder the digest of its splits stands for the place; folds have others.
    apart = (*ignore, key, *DATA)
    for record in records:
        together.setdefault((record.split, identity(record.asked, apart), record.seed), []).append(record)
    return [_pooled(folds, key) for folds in together.values()]


def _pooled(folds: Sequence[RunRecord], key: str) -> RunRecord:
    first = folds[0]
    numbers = ", ".join(show_setting(fold.settings.get(key)) for fold in folds)
    pooled = replace(
        first,
        source=f"{first.source} and {len(folds) - 1} more (folds {numbers})" if len(folds) > 1 else first.source,
        settings={name: value for name, value in first.asked.items() if name != key} | {key: f"folds {numbers}"},
        trained=None,
        ensemble=(),
        tracked=(),
        folds=tuple(folds),
    )
    return replace(pooled, metrics=read_counts(pooled).of_all())
