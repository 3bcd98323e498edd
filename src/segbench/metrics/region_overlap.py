"""The sparse table of how the regions of two labellings overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segbench.compiled import compiled

BLOCK = 1024
"""Pixels whose runs are listed at a time: 16 KiB, which fits the first-level cache."""


@dataclass(frozen=True, eq=False)
class Contingency:
    """Pixels by pair of regions; only pairs that meet are stored.

    Attributes:
        rows: id in the first labelling of each pair, int64, in the order of their first pixels.
        columns: id in the second labelling.
        pixels: how many pixels the pair shares, at least 1.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    pixels: NDArray[np.int64]


@compiled
def _slot(key: np.uint64, keys: NDArray[np.uint64], pixels: NDArray[np.int64], bits: int) -> np.int64:
    # Fibonacci hashing: the top bits of a product with 2^64 / golden ratio, which depend on both ids.
    slot = np.int64((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - bits))
    while pixels[slot] > 0 and keys[slot] != key:
        slot = (slot + 1) & ((1 << bits) - 1)
    return slot


@compiled
def flagged(flags: NDArray[np.uint8], offset: int, found: int, places: NDArray[np.integer]) -> int:
    """Append `offset` plus the place of every 1 among `flags` to `places`, of which `found` are taken.

    Args:
        flags: 0 or 1; their number a multiple of 8, since eight are tested together.
        offset: of the first flag.
        found: places so far.
        places: written to, one past the last place included.

    Returns:
        places found so far.
    """
    words = flags.view(np.uint64)
    for word in range(words.size):
        if words[word]:
            for index in range(8 * word, 8 * word + 8):
                # Always written, kept by adding the flag: a branch would be mispredicted every other time.
                places[found] = offset + index
                found += flags[index]
    return found


@compiled
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


@compiled
def _sum_by_key(
    run_keys: NDArray[np.uint64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    bits = 4
    while 1 << bits < 2 * run_keys.size:
        bits += 1
    keys, pixels = np.empty(1 << bits, np.uint64), np.zeros(1 << bits, np.int64)
    slots = np.empty(1 << bits, np.int64)
    used = _add_runs(run_keys, lengths, keys, pixels, slots, 0, bits)
    return keys[slots[:used]], pixels[slots[:used]]


@compiled
def _pairs(
    first: NDArray[np.integer], second: NDArray[np.integer], skip_zero: bool
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    # Neighbouring pixels mostly share their pair, so the hash is computed once per run of pixels.
    bits, used, start, size = 12, 0, 0, first.size
    keys, pixels = np.empty(1 << bits, np.uint64), np.zeros(1 << bits, np.int64)
    slots = np.empty(1 << bits, np.int64)
    changed, ends = np.empty(BLOCK, np.uint8), np.empty(BLOCK + 2, np.int64)
    run_keys, lengths = np.empty(BLOCK + 1, np.uint64), np.empty(BLOCK + 1, np.int64)
    for block in range(0, size, BLOCK):
        if 2 * (used + BLOCK + 1) > 1 << bits:
            old_keys, old_pixels = keys[slots[:used]], pixels[slots[:used]]
            bits += 1
            keys, pixels = np.empty(1 << bits, np.uint64), np.zeros(1 << bits, np.int64)
            slots = np.empty(1 << bits, np.int64)
            _add_runs(old_keys, old_pixels, keys, pixels, slots, 0, bits)
        stop = min(block + BLOCK, size)
        changed[stop - block :] = 0
        changed[0] = block > 0 and (first[block] != first[block - 1] or second[block] != second[block - 1])
        # Slices from 0, which the compiler vectorises.
        one, two = first[block:stop], second[block:stop]
        for index in range(1, one.size):
            changed[index] = (one[index] != one[index - 1]) | (two[index] != two[index - 1])
        runs = flagged(changed, block, 0, ends)
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


def _unpacked(keys: NDArray[np.uint64], pixels: NDArray[np.int64]) -> Contingency:
    return Contingency(
        (keys >> np.uint64(32)).astype(np.int64), (keys & np.uint64(0xFFFFFFFF)).astype(np.int64), pixels
    )


def gather(run_keys: NDArray[np.uint64], lengths: NDArray[np.int64]) -> Contingency:
    """The table from runs that each lie in one region of either labelling.

    Args:
        run_keys: uint64, id in the first labelling times 2^32 plus id in the second.
        lengths: pixels of each run, at least 1.
    """
    return _unpacked(*_sum_by_key(run_keys, lengths))


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
    return _unpacked(*_pairs(first.reshape(-1), second.reshape(-1), skip_background))
