"""Thinning of a predicted border by a watershed, so that thickness costs nothing in V_Rand and V_Info.

The prediction's regions grow into the membrane until a line of about one pixel separates them. Membrane inside one
region (stubs, speckle, holes) disappears. This is the flood of the ISBI 2012 challenge, whose pixel order is part of
the definition.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segbench.compiled import compiled
from segbench.errors import SegbenchError
from segbench.metrics.region_overlap import Contingency, contingency
from segbench.metrics.region_runs import regions
from segbench.metrics.thresholds import per_mask

LINE, WAITING, QUEUED, OUTSIDE = 0, -1, -2, -3


@compiled
def _flood(regions_WH: NDArray[np.int32]) -> NDArray[np.int32]:
    # The challenge visits pixels x outer, y inner: memory order on a transposed image. One pixel of OUTSIDE all around
    # saves edge tests.
    width, height = regions_WH.shape
    stride = height + 2
    state = np.full((width + 2) * stride, OUTSIDE, np.int32)
    membrane = 0
    for x in range(width):
        for y in range(height):
            region = regions_WH[x, y]
            state[(x + 1) * stride + y + 1] = region if region > 0 else WAITING
            membrane += region == 0
    if membrane == width * height:
        # Nothing to grow from: for the challenge this is one region.
        state[state == WAITING] = 1
        return state.reshape(width + 2, stride)

    left_up_right_down = (-stride, -1, stride, 1)
    queue = np.empty(membrane, np.int32)
    tail = 0
    for place in range(stride, state.size - stride):
        if state[place] == WAITING:
            for step in left_up_right_down:
                if state[place + step] > 0:
                    state[place] = QUEUED
                    queue[tail] = place
                    tail += 1
                    break

    head = 0
    # Whether a region may still take a line pixel: one flag for the whole flood, not one per pixel.
    soft_line = False
    while head < tail:
        place = queue[head]
        head += 1
        own = QUEUED
        for step in left_up_right_down:
            other = state[place + step]
            if other > 0:
                if own == QUEUED or (own == LINE and soft_line):
                    own = other
                elif own > 0 and own != other:
                    own = LINE
                    soft_line = False
            elif other == LINE:
                if own == QUEUED:
                    own = LINE
                    soft_line = True
            elif other == WAITING:
                state[place + step] = QUEUED
                queue[tail] = place + step
                tail += 1
        state[place] = own
    return state.reshape(width + 2, stride)


def thin_transposed(mask_WH: NDArray[np.bool_]) -> NDArray[np.int32]:
    """`thin` of a transposed mask, with a border of one pixel (negative) left on: (W + 2, H + 2)."""
    return np.asarray(_flood(regions(mask_WH)))


def thin(binary_HW: NDArray[np.generic]) -> NDArray[np.int32]:
    """Grow the regions of a binary prediction until lines of about one pixel separate them.

    A two-level watershed with 4-connected regions, as the ISBI 2012 challenge applies it to the prediction (never to
    the label) before V_Rand and V_Info.

    Args:
        binary_HW: non-zero = cell.

    Returns:
        int32 HW: regions from 1, and 0 on the lines. A slice without a cell pixel is one region.

    Raises:
        SegbenchError: the input is not two-dimensional or is empty.

    Example:
        >>> thin(np.array([[1, 0, 0, 0, 1]]))
        array([[1, 1, 0, 2, 2]], dtype=int32)
    """
    binary = np.asarray(binary_HW)
    if binary.ndim != 2 or binary.size == 0:
        raise SegbenchError(f"a mask of shape {binary.shape}", "H x W with at least one pixel", "thin slice by slice")
    thinned_WH = thin_transposed(np.ascontiguousarray(binary.T != 0))[1:-1, 1:-1]
    return np.ascontiguousarray(thinned_WH.T)


def thinned_tables(levels_HW: NDArray[np.uint8], cell_HW: NDArray[np.bool_]) -> list[Contingency]:
    """How the label's regions overlap the thinned prediction's, at every threshold.

    Args:
        levels_HW: uint8 of `threshold_levels`.
        cell_HW: where the label is cell.

    Returns:
        for each of the 11 thresholds the table of the pixels where the label is cell; rows = label, column 0 = line.
    """
    truth = np.pad(regions(np.ascontiguousarray(cell_HW.T)), 1)
    levels_WH = np.ascontiguousarray(levels_HW.T)
    return per_mask(levels_WH, lambda mask_WH: contingency(truth, thin_transposed(mask_WH), skip_background=True))
