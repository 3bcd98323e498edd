"""Stacks for the challenge metrics: checked, and scored slice by slice, so memory does not grow with their number."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from segbench.errors import SegbenchError
from segbench.metrics.thresholds import threshold_levels

T = TypeVar("T")


def available_cores() -> int:
    """Cores that this process may use; all of the machine's if the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_stack(prob_NHW: NDArray[np.generic], label_NHW: NDArray[np.generic]) -> None:
    """Refuse stacks that cannot be scored.

    Args:
        prob_NHW: probability of cell; float, or bool for a binary prediction.
        label_NHW: non-zero = cell.

    Raises:
        SegbenchError: the shapes differ, are not N x H x W or hold no pixel, or `prob_NHW` holds integers.
    """
    for name, shape in (("probabilities", prob_NHW.shape), ("labels", label_NHW.shape)):
        if len(shape) != 3:
            raise SegbenchError(
                f"{name} of shape {shape}", "N x H x W, slices first", "write prob[None], label[None] for one slice"
            )
    if prob_NHW.shape != label_NHW.shape:
        raise SegbenchError(
            f"probabilities of shape {prob_NHW.shape} and labels of shape {label_NHW.shape}",
            "one probability per label pixel",
            "crop or resize the predictions to the labels, and give both the same slices in the same order",
        )
    if prob_NHW.size == 0:
        raise SegbenchError(
            f"a stack of shape {prob_NHW.shape}, without a pixel",
            "at least one slice of at least one pixel",
            "check that the selected files or slices exist",
        )
    if not (np.issubdtype(prob_NHW.dtype, np.floating) or prob_NHW.dtype == np.bool_):
        raise SegbenchError(
            f"probabilities of type {prob_NHW.dtype}",
            "floats in [0, 1], or bool for a binary prediction",
            "divide bytes by 255: prob.astype(np.float32) / 255",
        )


def cells(label_HW: NDArray[np.generic], where: str = "the label") -> NDArray[np.bool_]:
    """Where the label is cell.

    Args:
        label_HW: non-zero = cell, any type.
        where: the label's name in an error.

    Raises:
        SegbenchError: the label holds NaN.
    """
    if np.issubdtype(label_HW.dtype, np.inexact) and bool(np.isnan(label_HW).any()):
        raise SegbenchError(f"{where} holds NaN", "0 = membrane, anything else = cell", "write the labels as integers")
    return np.ascontiguousarray(label_HW != 0)


def over_slices(
    score: Callable[[NDArray[np.float32], NDArray[np.bool_], str], T],
    prob_NHW: NDArray[np.generic],
    label_NHW: NDArray[np.generic],
) -> list[T]:
    """Score each slice, several at a time: the compiled loops release Python's lock.

    Args:
        score: takes (float32 probability HW, bool cells HW, the slice's name); returns its counts.
        prob_NHW: probability of cell in [0, 1].
        label_NHW: non-zero = cell.

    Returns:
        one result per slice, in their order.

    Raises:
        SegbenchError: see `check_stack`.
    """
    prob_NHW, label_NHW = np.asarray(prob_NHW), np.asarray(label_NHW)
    check_stack(prob_NHW, label_NHW)

    def one(index: int) -> T:
        # A copy: a read-only memory map would compile every loop again.
        prob_HW = np.array(prob_NHW[index], np.float32, order="C")
        return score(prob_HW, cells(label_NHW[index], f"label slice {index}"), f"slice {index} of the probabilities")

    workers = min(len(prob_NHW), available_cores())
    if workers == 1:
        return [one(index) for index in range(len(prob_NHW))]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, range(len(prob_NHW))))


def over_levels(
    count: Callable[[NDArray[np.uint8], NDArray[np.bool_]], T],
    prob_NHW: NDArray[np.generic],
    label_NHW: NDArray[np.generic],
) -> list[T]:
    """As `over_slices`, for a `count` that takes the `threshold_levels` of a slice and its cells."""
    return over_slices(
        lambda prob_HW, cell_HW, where: count(threshold_levels(prob_HW, where), cell_HW), prob_NHW, label_NHW
    )
