"""Which region meets which: regions of a mask, and the sparse table of how two labellings overlap."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

BLOCK = 1024
"""Pixels whose runs are listed at a time: 16 KiB, which the first-level cache holds."""


def regions(mask_HW: NDArray[np.generic]) -> NDArray[np.int32]:
    """Number the 4-connected components of a mask from 1; 0 elsewhere.

    Args:
        mask_HW: bool or uint8, non-zero = inside.

    Returns:
        int32 HW.
    """
    return np.asarray(cv2.connectedComponents(mask_HW.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)[1])


@dataclass(frozen=True, eq=False)
class Contingency:
    """Pixels by pair of regions; pairs that never meet are not stored.

    Attributes:
        rows: id in the first labelling of each pair, int64, in the order in which the pairs are first met.
        columns: id in the second labelling.
        pixels: how many pixels the pair shares, at least 1.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    pixels: NDArray[np.int64]


@njit(cache=True, nogil=True)
def _slot(key: np.uint64, keys: NDArray[np.uint64], pixels: NDArray[np.int64], bits: int) -> np.int64:
    # Fibonacci hashing: the top bits of a product with 2^64 / golden ratio, which both ids reach.
    slot = np.int64((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - bits))
    while pixels[slot] > 0 and keys[slot] != key:
        slot = (slot + 1) & ((1 << bits) - 1)
    return slot


@njit(cache=True, nogil=True)
def _run_ends(
    first: NDArray[np.integer], second: NDArray[np.integer], begin: int, stop: int, ends: NDArray[np.int64]
) -> int:
    # The end is written at every pixel and kept by adding a truth value: a branch would be mispredicted at each run.
    runs = 0
    for position in range(begin, stop):
        ends[runs] = position
        changed = (first[position] != first[position - 1]) | (second[position] != second[position - 1])
        runs += int(changed)
    return runs


@njit(cache=True, nogil=True)
def _add_runs(
    run_keys: NDArray[np.uint64],
    lengths: NDArray[np.int64],
    keys: NDArray[np.uint64],
    pixels: NDArray[np.int64],
    slots: NDArray[np.int64],
    used: int,
    bits: int,
) -> int:
    for run in range(run_keys.size):
        slot = _slot(run_keys[run], keys, pixels, bits)
        if pixels[slot] == 0:
            keys[slot] = run_keys[run]
            slots[used] = slot
            used += 1
        pixels[slot] += lengths[run]
    return used


@njit(cache=True, nogil=True)
def _pairs(
    first: NDArray[np.integer], second: NDArray[np.integer], skip_zero: bool
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    # Neighbouring pixels mostly share their pair, so pixels are gathered in runs and the hash is asked once a run.
    bits, used, start, size = 12, 0, 0, first.size
    keys, pixels = np.empty(1 << bits, np.uint64), np.zeros(1 << bits, np.int64)
    slots = np.empty(1 << bits, np.int64)
    ends, run_keys, lengths = (
        np.empty(BLOCK + 1, np.int64),
        np.empty(BLOCK + 1, np.uint64),
        np.empty(BLOCK + 1, np.int64),
    )
    for block in range(0, size, BLOCK):
        if 2 * (used + BLOCK + 1) > 1 << bits:
            old_keys, old_pixels = keys[slots[:used]], pixels[slots[:used]]
            bits += 1
            keys, pixels = np.empty(1 << bits, np.uint64), np.zeros(1 << bits, np.int64)
            slots = np.empty(1 << bits, np.int64)
            _add_runs(old_keys, old_pixels, keys, pixels, slots, 0, bits)
        stop = min(block + BLOCK, size)
        runs = _run_ends(first, second, max(block, 1), stop, ends)
        if stop == size:
            ends[runs] = size
            runs += 1
        kept = 0
        for run in range(runs):
            row = first[start]
            run_keys[kept] = np.uint64(row) << np.uint64(32) | np.uint64(second[start])
            lengths[kept] = ends[run] - start
            start = ends[run]
            kept += int(not (skip_zero and row == 0))
        used = _add_runs(run_keys[:kept], lengths[:kept], keys, pixels, slots, used, bits)
    return keys[slots[:used]], pixels[slots[:used]]


def contingency(first: NDArray[np.integer], second: NDArray[np.integer], skip_background: bool = False) -> Contingency:
    """Count the pixels that each region of one labelling shares with each region of another.

    Args:
        first: region ids, 0 to 2^31 - 1, any shape.
        second: region ids of the same shape.
        skip_background: leave out pixels where `first` is 0.

    Returns:
        the pairs that meet.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> contingency(np.array([1, 1, 2, 0]), np.array([3, 3, 3, 3])).pixels.tolist()
        [2, 1, 1]
    """
    if first.shape != second.shape:
        raise ValueError(f"labellings of shape {first.shape} and {second.shape} share no pixels")
    keys, pixels = _pairs(first.reshape(-1), second.reshape(-1), skip_background)
    return Contingency(
        (keys >> np.uint64(32)).astype(np.int64), (keys & np.uint64(0xFFFFFFFF)).astype(np.int64), pixels
    )
