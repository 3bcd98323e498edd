"""The kind of topological error of a pixel that warping cannot remove (ISBI 2012 challenge; Jain et al. 2010).

With C the 4-connected components of the warped label and ids the set of C over the pixel's neighbours inside the slice,
background (0) included:

    ids              pixel is membrane     pixel is cell
    {0}              object addition       object deletion
    {k}              hole deletion         hole addition
    two of them      hole addition         split, or hole deletion (see below)
    three or more    merge                 split

A cell pixel with two ids is turned into membrane, and the cells are labelled again in a window of 41 x 41 around it: if
its neighbours then have more than two ids it is a split, else a hole deletion.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from segbench.metrics.region_runs import regions
from segbench.metrics.simple_points import RING

MERGE, SPLIT, HOLE_ADDITION, OBJECT_DELETION, OBJECT_ADDITION, HOLE_DELETION = 1, 2, 4, 8, 16, 32
RADIUS = 20
"""Half the side of the window that is searched for a split; the challenge's value."""


@njit(cache=True, nogil=True)
def _parts(code: int) -> int:
    # Runs of foreground around the ring; neighbours along the ring share an edge.
    runs = 0
    for bit in range(8):
        runs += int(code >> bit & 1 and not code >> ((bit + 1) & 7) & 1)
    return runs


@njit(cache=True, nogil=True)
def _comes_apart(
    warped: NDArray[np.bool_], x: int, y: int, radius: int, window: NDArray[np.uint8], queue: NDArray[np.int32]
) -> bool:
    # Whether the foreground neighbours of (x, y) are in several pieces once it is background. Window values: 0
    # background or seen, 1 foreground, 2 a neighbour to reach.
    width, height = warped.shape
    left, top = max(x - radius, 1), max(y - radius, 1)
    right, bottom = min(x + radius, width - 2), min(y + radius, height - 2)
    stride = bottom - top + 3
    size = (right - left + 3) * stride
    window[:size] = 0
    for column in range(left, right + 1):
        offset = (column - left + 1) * stride + 1
        for row in range(top, bottom + 1):
            window[offset + row - top] = warped[column, row]
    centre = (x - left + 1) * stride + y - top + 1
    window[centre] = 0
    pending, start = 0, 0
    for step in RING:
        place = centre + step[0] * stride + step[1]
        if window[place]:
            window[place] = 2
            pending += 1
            start = place
    window[start] = 0
    pending -= 1
    queue[0] = start
    head, tail = 0, 1
    while head < tail and pending:
        place = queue[head]
        head += 1
        for beside in (place - stride, place - 1, place + 1, place + stride):
            value = window[beside]
            if value:
                pending -= value >> 1
                window[beside] = 0
                queue[tail] = beside
                tail += 1
    return pending > 0


@njit(cache=True, nogil=True)
def _kinds(
    warped: NDArray[np.bool_],
    codes: NDArray[np.uint8],
    components: NDArray[np.int32],
    places: NDArray[np.int32],
    radius: int,
) -> NDArray[np.uint8]:
    width, height = warped.shape
    kinds = np.empty(places.size, np.uint8)
    if radius > width - 2 or radius > height - 2:
        radius = max(width, height)
    side = 2 * radius + 3
    window = np.empty(min(side, width) * min(side, height), np.uint8)
    queue = np.empty(window.size, np.int32)
    ids = np.empty(8, np.int32)
    for entry in range(places.size):
        x, y = places[entry] // height, places[entry] % height
        met = 0
        for step in RING:
            column, row = x + step[0], y + step[1]
            component = components[column, row]
            # The border of the padded slice does not count.
            known = column == 0 or row == 0 or column == width - 1 or row == height - 1
            for index in range(met):
                known |= ids[index] == component
            if not known:
                ids[met] = component
                met += 1
        is_cell = components[x, y] > 0
        if met == 0 or (met == 1 and ids[0] == 0):
            kind = OBJECT_DELETION if is_cell else OBJECT_ADDITION
        elif met == 1:
            kind = HOLE_ADDITION if is_cell else HOLE_DELETION
        elif not is_cell:
            kind = HOLE_ADDITION if met == 2 else MERGE
        elif met > 2:
            kind = SPLIT
        else:
            code = int(codes[x, y])
            apart = _parts(code) > 1 and _comes_apart(warped, x, y, radius, window, queue)
            kind = SPLIT if apart else HOLE_DELETION
        kinds[entry] = kind
    return kinds


def mismatch_kinds(
    warped_WH: NDArray[np.bool_], codes_WH: NDArray[np.uint8], places: NDArray[np.int32], label_is_all_cell: bool
) -> NDArray[np.uint8]:
    """The kind of each mismatch.

    Args:
        warped_WH: the warped label, transposed, with a border of membrane: (W + 2, H + 2).
        codes_WH: its `neighbour_codes`.
        places: flat positions in `warped_WH` that differ from the prediction.
        label_is_all_cell: the label, before warping, has no membrane; the challenge then takes all components as
            background, so there are no splits or merges and every mismatch is an object addition.

    Returns:
        uint8, one for each place: 1 merge, 2 split, 4 hole addition, 8 object deletion, 16 object addition, 32 hole
        deletion.
    """
    if not places.size:
        return np.empty(0, np.uint8)
    components = np.zeros(warped_WH.shape, np.int32) if label_is_all_cell else regions(warped_WH)
    return np.asarray(_kinds(warped_WH, codes_WH, components, places, RADIUS))
