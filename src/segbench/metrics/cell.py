"""An evaluated image as the challenge metrics see it: one class is cell, the rest is membrane."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segbench.errors import SegbenchError
from segbench.metrics.measure import ImageResult


def cell_view(
    image: ImageResult, cell_class: int, measure: str
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_] | None]:
    """Probability of cell, where the label is cell, and where it is void.

    Args:
        image: with `prob_KHW`.
        cell_class: the class that is cell.
        measure: who asks, for the error.

    Returns:
        float32 HW, bool HW (False on void), and bool HW, or None where no pixel is void.

    Raises:
        SegbenchError: there are no probabilities, `cell_class` is none of their classes, or the shapes differ.
    """
    if image.prob_KHW is None:
        raise SegbenchError(
            f"no probabilities for {measure}",
            "ImageResult.prob_KHW, float32 in [0, 1]",
            "pass prob_KHW: the measure declares needs_prob",
        )
    classes = image.prob_KHW.shape[0]
    if not 0 <= cell_class < classes:
        raise SegbenchError(
            f"cell_class={cell_class} for a head of {classes} classes",
            f"0 to {classes - 1}",
            f"set cell_class of {measure} in the metrics config, or leave {measure} out for this head",
        )
    prob_HW = np.ascontiguousarray(image.prob_KHW[cell_class], np.float32)
    if prob_HW.shape != image.label_HW.shape:
        raise SegbenchError(
            f"probabilities of {prob_HW.shape} and a label of {image.label_HW.shape} for {measure}",
            "one probability a label pixel",
            "crop the label to what the model predicts",
        )
    void_HW = image.label_HW == image.ignore_index
    cell_HW = np.ascontiguousarray(image.label_HW == cell_class) & ~void_HW
    return prob_HW, cell_HW, np.ascontiguousarray(void_HW) if void_HW.any() else None
