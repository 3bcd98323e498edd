"""Exact counts over the pixels of an image or a mask, without blocking other threads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.compiled import compiled


def count_codes(codes_HW: NDArray[np.integer]) -> tuple[list[int], list[int]]:
    """Count the pixels of each code.

    Masks consist of regions, so runs of equal pixels are counted: bytes and words in groups of eight bytes, other types
    by a table of their runs.

    Args:
        codes_HW: any integer type.

    Returns:
        the codes in ascending order, and their pixels.
    """
    codes = np.ascontiguousarray(codes_HW).reshape(-1)
    if codes.dtype in (np.uint8, np.uint16):
        in_group = 8 // codes.itemsize
        pixels = _count_groups(codes[: codes.size - codes.size % in_group].view(np.uint64), codes, in_group)
        values = np.flatnonzero(pixels)
        return values.tolist(), pixels[values].tolist()
    ends = _ends(codes)
    values, places = np.unique(codes[ends], return_inverse=True)
    # Integer sums in float64 are exact up to 2^53.
    counts = np.bincount(places, np.diff(ends, prepend=-1))
    return values.tolist(), counts.astype(np.int64).tolist()


_BLOCK = 2048


@compiled
def _count_groups(groups: Any, codes: Any, in_group: int) -> Any:
    """Pixels by code, in one call, as each return to Python would wait for other threads."""
    pixels = np.zeros(codes.max() + 1, np.int64)
    ones = np.uint64(0x0101010101010101 if in_group == 8 else 0x0001000100010001)
    ends = np.empty(_BLOCK + 1, np.int64)
    start = -1
    for block in range(0, groups.size, _BLOCK):
        stop = min(block + _BLOCK, groups.size - 1)
        count = 0
        for place in range(block, stop):
            # Written in every step, kept at the end of a run: branch-free.
            ends[count] = place
            count += groups[place] != groups[place + 1]
        if stop == groups.size - 1:
            ends[count] = stop
            count += 1
        for end in ends[:count]:
            first = codes[end * in_group]
            if groups[end] == np.uint64(first) * ones:
                pixels[first] += (end - start) * in_group
            else:
                # This group spans several regions.
                for place in range(end * in_group, (end + 1) * in_group):
                    pixels[codes[place]] += end - start
            start = end
    for place in range(groups.size * in_group, codes.size):
        pixels[codes[place]] += 1
    return pixels


@compiled
def _ends(codes: Any) -> Any:
    """The last position of each run."""
    runs = 1
    for place in range(1, codes.size):
        runs += codes[place] != codes[place - 1]
    ends = np.empty(runs, np.int64)
    run = 0
    for place in range(1, codes.size):
        # Written in every step, kept at the end of a run: branch-free.
        ends[run] = place - 1
        run += codes[place] != codes[place - 1]
    ends[run] = codes.size - 1
    return ends


def count_runs(codes_HW: NDArray[np.integer]) -> int:
    """Runs of equal pixels, row by row: few in a mask, nearly as many as pixels in a photograph."""
    codes = np.ascontiguousarray(codes_HW).reshape(-1)
    return int(np.count_nonzero(codes[1:] != codes[:-1])) + 1


def whole_sums(image_HWC: NDArray[np.generic]) -> list[tuple[int, int]]:
    """Sum of the values and of their squares by channel, exact, of a uint8 or uint16 image."""
    sums = np.zeros((image_HWC.shape[2], 2), np.int64)
    _add_values(image_HWC.reshape(-1, image_HWC.shape[2]), sums)
    return [(total, squares) for total, squares in sums.tolist()]


@compiled
def _add_values(pixels_NC: Any, sums: Any) -> None:
    # 63 bits hold two billion times 65535^2.
    if pixels_NC.shape[1] == 3:
        # One pass: strides of three are slow, and most images are RGB.
        red = green = blue = red2 = green2 = blue2 = np.int64(0)
        for pixel in range(pixels_NC.shape[0]):
            r, g, b = np.int64(pixels_NC[pixel, 0]), np.int64(pixels_NC[pixel, 1]), np.int64(pixels_NC[pixel, 2])
            red, green, blue = red + r, green + g, blue + b
            red2, green2, blue2 = red2 + r * r, green2 + g * g, blue2 + b * b
        sums[0, 0], sums[1, 0], sums[2, 0] = red, green, blue
        sums[0, 1], sums[1, 1], sums[2, 1] = red2, green2, blue2
        return
    for channel in range(pixels_NC.shape[1]):
        total = squares = np.int64(0)
        for pixel in range(pixels_NC.shape[0]):
            value = np.int64(pixels_NC[pixel, channel])
            total += value
            squares += value * value
        sums[channel, 0], sums[channel, 1] = total, squares
