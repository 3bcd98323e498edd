"""How many pixels each class has in each image of a split, and the weights and shares that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from segbench.data.raw import Source
from segbench.errors import SegbenchError
from segbench.spec import HeadSpec

Progress = Callable[[int, int], None]


def class_counts(source: Source, head: str, classes: int, progress: Progress | None = None) -> NDArray[np.int64]:
    """NK pixels of each class in each image; void counts nowhere.

    A source that knows them (`class_counts()`, as a scanned folder does) is asked; of any other one every label is read
    once, one at a time, and NK numbers are all that is kept.

    Args:
        source: the split.
        head: of the labels.
        classes: K.
        progress: called with images done and their number.
    """
    known: Callable[[], NDArray[np.int64]] | None = getattr(source, "class_counts", None)
    if known is not None:
        return known()
    counts_NK = np.zeros((len(source), classes), np.int64)
    for index in range(len(source)):
        label_HW = source.read(index).labels.get(head)
        if label_HW is not None:
            counts_NK[index] = np.bincount(label_HW.ravel(), minlength=256)[:classes]
        if progress is not None:
            progress(index + 1, len(source))
    return counts_NK


def balanced_weights(counts_NK: NDArray[np.int64]) -> NDArray[np.float64]:
    """K class weights by median frequency balancing (Eigen and Fergus: ICCV 2015, arXiv:1411.4734).

        weight_k = median(f) / f_k,   f_k = pixels of class k / labelled pixels of the images that show class k

    with the median over the classes that have a pixel. A class without one has weight 1: no pixel uses it.

    Args:
        counts_NK: pixels of each class in each image.
    """
    pixels_K = counts_NK.sum(0)
    shown_K = ((counts_NK > 0) * counts_NK.sum(1, keepdims=True)).sum(0)
    there_K = pixels_K > 0
    frequency_K = pixels_K / np.maximum(shown_K, 1)
    weights_K = np.ones(len(pixels_K))
    if there_K.any():
        weights_K[there_K] = np.median(frequency_K[there_K]) / frequency_K[there_K]
    return weights_K


def of_classes(given: Mapping[str, float] | str, head: HeadSpec, key: str, otherwise: float) -> list[float]:
    """K numbers in the order of the labels.

    Args:
        given: by the name of a class; not `auto`, which a run settles before anything is built.
        head: that has the classes.
        key: of the config.
        otherwise: the number of a class that is not named.

    Raises:
        SegbenchError: a name that is no class, or no mapping.
    """
    if not isinstance(given, Mapping):
        raise SegbenchError(f"{key}={given}", "a number for each class, by its name", f"correct {key}")
    named = {str(name): float(value) for name, value in given.items()}
    if unknown := [name for name in named if name not in head.class_names]:
        raise SegbenchError(
            f"{key} names {', '.join(unknown)}",
            f"classes of the data: {', '.join(head.class_names)}",
            f"correct {key}; `segbench data check` lists the classes",
        )
    return [named.get(name, otherwise) for name in head.class_names]


def absent(counts_NK: NDArray[np.int64], names: Sequence[str]) -> list[str]:
    """The classes without a pixel."""
    return [name for name, pixels in zip(names, counts_NK.sum(0).tolist(), strict=True) if not pixels]
