"""Warping a label onto a prediction without changing its topology (Jain et al. 2010; ISBI 2012 challenge).

Pixels where the two differ are flipped, the surest first, as long as they are simple points. Borders may move any
distance; what remains is a true difference of topology, and mismatches.py tells its kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segbench.compiled import compiled
from segbench.errors import SegbenchError
from segbench.metrics.mismatches import mismatch_kinds
from segbench.metrics.region_runs import check_places
from segbench.metrics.simple_points import RING, SIMPLE, neighbour_codes
from segbench.metrics.stack import cells, check_stack
from segbench.metrics.thresholds import check_range

DIGIT = 10
"""Bits of a radix digit; three cover the 30 bits of a float32 from 0 to below 2."""


@compiled
def _surest_first(places: NDArray[np.int32], distance: NDArray[np.float32]) -> NDArray[np.int32]:
    # A stable sort by decreasing |p - t|. Non-negative floats sort as their bits do.
    mask = np.uint32((1 << DIGIT) - 1)
    keys = np.uint32((1 << 3 * DIGIT) - 1) - distance.view(np.uint32)
    for turn in range(3):
        shift = np.uint32(turn * DIGIT)
        starts = np.zeros((1 << DIGIT) + 1, np.int64)
        for key in keys:
            starts[((key >> shift) & mask) + 1] += 1
        for digit in range(1 << DIGIT):
            starts[digit + 1] += starts[digit]
        sorted_keys, sorted_places = np.empty_like(keys), np.empty_like(places)
        for entry in range(keys.size):
            digit = (keys[entry] >> shift) & mask
            sorted_keys[starts[digit]] = keys[entry]
            sorted_places[starts[digit]] = places[entry]
            starts[digit] += 1
        keys, places = sorted_keys, sorted_places
    return places


@compiled
def _differences(
    source: NDArray[np.bool_], prob: NDArray[np.float32], threshold: float
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    # Places in the padded slice where source and target differ, in memory order, and |p - t|.
    width, height = prob.shape
    places, distance = np.empty(prob.size, np.int32), np.empty(prob.size, np.float32)
    found = 0
    for x in range(width):
        for y in range(height):
            value = np.float64(prob[x, y])
            places[found] = (x + 1) * (height + 2) + y + 1
            distance[found] = np.float32(abs(value - threshold))
            found += int((value > threshold) != source[x + 1, y + 1])
    return places[:found], distance[:found]


@compiled
def _warp(
    source: NDArray[np.bool_], codes: NDArray[np.uint8], places: NDArray[np.int32], simple: NDArray[np.bool_]
) -> NDArray[np.int32]:
    # Flips `source` in place. A flipped pixel matches the target and is done, so the list only shrinks and keeps its
    # order.
    steps = np.empty(8, np.int64)
    for bit in range(8):
        steps[bit] = RING[bit][0] * source.shape[1] + RING[bit][1]
    flat, code = source.reshape(-1), codes.reshape(-1)
    places = places.copy()
    remaining = places.size
    flipped = True
    while flipped:
        flipped, kept = False, 0
        for entry in range(remaining):
            place = places[entry]
            if simple[code[place]]:
                flat[place] = not flat[place]
                for bit in range(8):
                    # Seen from its neighbour, the pixel lies on the opposite side of the ring.
                    code[place + steps[bit]] ^= np.uint8(1 << ((bit + 4) & 7))
                flipped = True
            else:
                places[kept] = place
                kept += 1
        remaining = kept
    return places[:remaining]


@dataclass(frozen=True, eq=False)
class Warped:
    """A label warped onto a prediction.

    Attributes:
        label_HW: bool, the warped label.
        mismatch_HW: uint8, where it still differs from the prediction and how: 0 equal, 1 merge, 2 split, 4 hole
            addition, 8 object deletion, 16 object addition, 32 hole deletion.
    """

    label_HW: NDArray[np.bool_]
    mismatch_HW: NDArray[np.uint8]


class Slice:
    """One slice prepared for warping at several thresholds; arrays are transposed, as the challenge walks columns.

    Args:
        prob_HW: float32 probability of cell in [0, 1].
        cell_HW: where the label is cell.
        void_HW: pixels where the label takes the prediction's value: they never mismatch.

    Raises:
        SegbenchError: more pixels than int32 counts.
    """

    def __init__(
        self, prob_HW: NDArray[np.float32], cell_HW: NDArray[np.bool_], void_HW: NDArray[np.bool_] | None = None
    ) -> None:
        check_places(*prob_HW.shape)
        self.prob_WH = np.ascontiguousarray(prob_HW.T)
        self.source_WH = np.pad(cell_HW.T, 1)
        self.void_WH = None if void_HW is None else void_HW.T
        self.codes_WH = neighbour_codes(self.source_WH)
        self.is_all_cell = bool(cell_HW.all())

    def warp(self, threshold: float) -> tuple[NDArray[np.bool_], NDArray[np.int32], NDArray[np.uint8]]:
        """The warped label (W + 2, H + 2), the flat places in it that mismatch, and their kinds."""
        source, codes = self.source_WH.copy(), self.codes_WH
        if self.void_WH is None:
            codes = codes.copy()
        else:
            source[1:-1, 1:-1][self.void_WH] = self.prob_WH[self.void_WH].astype(np.float64) > threshold
            codes = neighbour_codes(source)
        places, distance = _differences(source, self.prob_WH, threshold)
        mismatches = _warp(source, codes, _surest_first(places, distance), SIMPLE)
        return source, mismatches, mismatch_kinds(source, codes, mismatches, self.is_all_cell)


def warp(label_HW: NDArray[np.generic], prob_HW: NDArray[np.floating], threshold: float) -> Warped:
    """Warp a label onto the prediction `prob > threshold`, keeping its topology.

    Passes over the pixels that differ, by decreasing |p - t| and then by columns, flip each simple point immediately,
    until a pass flips nothing. Components are 4-connected, and membrane surrounds the slice.

    Args:
        label_HW: non-zero = cell.
        prob_HW: probability of cell in [0, 1].
        threshold: t in [0, 1].

    Returns:
        the warped label and the mismatches that remain.

    Raises:
        SegbenchError: different shapes, no pixel, values that are not probabilities, or a threshold outside [0, 1].

    Example:
        A cell that is longer than the prediction shrinks without a mismatch.

        >>> warp(np.array([[1, 1, 1, 0]]), np.array([[0.9, 0.2, 0.1, 0.0]], np.float32), 0.5).label_HW
        array([[ True, False, False, False]])
    """
    label, prob = np.asarray(label_HW), np.asarray(prob_HW)
    check_stack(prob[None], label[None])
    check_range(prob, "the probability map")
    if not 0.0 <= threshold <= 1.0:
        raise SegbenchError(f"a threshold of {threshold}", "0 to 1, as the probabilities", "choose one of THRESHOLDS")
    warped_WH, mismatches, kinds = Slice(np.ascontiguousarray(prob, np.float32), cells(label)).warp(threshold)
    kinds_WH = np.zeros(warped_WH.shape, np.uint8)
    kinds_WH.reshape(-1)[mismatches] = kinds
    return Warped(np.ascontiguousarray(warped_WH[1:-1, 1:-1].T), np.ascontiguousarray(kinds_WH[1:-1, 1:-1].T))
