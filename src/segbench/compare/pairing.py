"""Which runs may be put together: on the same images, or on images that none of them shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segbench.compare.counts import ImageCounts
from segbench.errors import SegbenchError

_SHOWN = 8


def pool(folds: Sequence[ImageCounts], source: str) -> ImageCounts:
    """The images of several folds as one set.

    Raises:
        SegbenchError: the folds share images, or were scored by other definitions.
    """
    first = folds[0]
    ids = tuple(name for fold in folds for name in fold.ids)
    shared = sorted({name for name in ids if ids.count(name) > 1}) if len(set(ids)) != len(ids) else []
    if shared:
        raise SegbenchError(
            f"{source}: folds that share images ({_some(shared)})",
            "folds of one cross-validation, each image in one of them",
            "correct folds=, or leave it out",
        )
    if any(fold.split != first.split or fold.measures != first.measures for fold in folds):
        raise SegbenchError(
            f"{source}: folds that were scored by other metrics or on other splits",
            "folds that differ in their images alone",
            "correct folds=, or leave it out",
        )
    counts = {
        key: {name: np.concatenate([fold.counts[key][name] for fold in folds]) for name in first.counts[key]}
        for key in first.counts
    }
    return replace(first, source=source, ids=ids, counts=counts, network="")


def check_same_images(first: ImageCounts, second: ImageCounts) -> None:
    """Refuse to pair runs that were not scored on the same labelled images.

    Args:
        first: in the order of its ids.
        second: in the order of its ids.

    Raises:
        SegbenchError: another data set, other splits, ids or labels; says which.
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
            f"only in {counts.source}: {_some(ids)}" for counts, ids in zip((first, second), only, strict=True) if ids
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
            f"{pair} have other labels for images of the same name: {_some(other)}",
            "the same labels, of which the same number of pixels is of each class",
            "check that data.root and the data set's settings are the same, and score both again",
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


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
