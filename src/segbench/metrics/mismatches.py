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
from numpy.typing import NDArray

from segbench.compiled import compiled
from segbench.metrics.region_runs import regions
from segbench.metrics.simple_points import RING

MERGE, SPLIT, HOLE_ADDITION, OBJECT_DELETION, OBJECT_ADDITION, HOLE_DELETION = 1, 2, 4, 8, 16, 32
RADIUS = 20
"""Half the side of the window that is searched for a split; the challenge's value."""
ONE, ONES = np.uint64(1), np.uint64(2**64 - 1)


@compiled
def _parts(code: int) -> int:
    # Runs of foreground around the ring; neighbours along the ring share an edge.
    runs = 0
    for bit in range(8):
        runs += int(code >> bit & 1 and not code >> ((bit + 1) & 7) & 1)
    return runs


@compiled
def _words(warped: NDArray[np.bool_], swapped: bool) -> NDArray[np.uint64]:
    # Each line, or if `swapped` each column, as bits, 64 to a word; the last word is empty, so a window may end in it.
    length, lines = warped.shape if swapped else warped.shape[::-1]
    words = np.zeros((lines, (length >> 6) + 2), np.uint64)
    for line in range(lines):
        for place in range(length):
            bit = warped[place, line] if swapped else warped[line, place]
            words[line, place >> 6] |= np.uint64(bit) << np.uint64(place & 63)
    return words


@compiled
def _filled(seed: np.uint64, line: np.uint64) -> np.uint64:
    # The runs of ones of `line` that hold a one of `seed`: upwards by the carry of a sum, downwards by doubling steps.
    up = (((line + seed) ^ line) | seed) & line
    for step in (1, 2, 4, 8, 16, 32):
        up |= line & (up >> np.uint64(step))
        line &= line >> np.uint64(step)
    return up


@compiled
def _comes_apart(
    words: NDArray[np.uint64],
    x: int,
    y: int,
    length: int,
    radius: int,
    free: NDArray[np.uint64],
    met: NDArray[np.uint64],
) -> bool:
    # Whether the foreground neighbours of (x, y) are in several pieces once it is background: one of them is filled
    # from line to line of the window, up and down, until it has met the others or grows no more.
    first, last = max(x - radius, 1), min(x + radius, len(words) - 2)
    start, end = max(y - radius, 1), min(y + radius, length - 2)
    inside = ONES >> np.uint64(63 - (end - start))
    word, shift = start >> 6, np.uint64(start & 63)
    lines = last - first + 1
    for line in range(lines):
        bits = words[first + line, word] >> shift
        if shift:
            bits |= words[first + line, word + 1] << (np.uint64(64) - shift)
        free[line] = bits & inside
        met[line] = np.uint64(0)
    centre, bit = x - first, np.uint64(y - start)
    free[centre] &= ~(ONE << bit)
    around = (np.uint64(7) << bit) >> ONE
    above, below = max(centre - 1, 0), min(centre + 1, lines - 1)
    for line in range(above, below + 1):
        found = free[line] & around
        if found:
            met[line] = _filled(found & (~found + ONE), free[line])
            low = high = line
            break
    grows = True
    while grows:
        left = np.uint64(0)
        for line in range(above, below + 1):
            left |= free[line] & around & ~met[line]
        if not left:
            return False
        grows = False
        for line in range(low, lines - 1):
            seed = met[line] & free[line + 1] & ~met[line + 1]
            if seed:
                met[line + 1] = _filled(met[line + 1] | seed, free[line + 1])
                high, grows = max(high, line + 1), True
            elif line >= high:
                break
        for line in range(high, 0, -1):
            seed = met[line] & free[line - 1] & ~met[line - 1]
            if seed:
                met[line - 1] = _filled(met[line - 1] | seed, free[line - 1])
                low, grows = min(low, line - 1), True
            elif line <= low:
                break
    return True


@compiled
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
    # A window is at most 41 wide, or as wide as the shorter side.
    swapped = height > width
    words = _words(warped, swapped)
    lines = min(2 * radius + 1, len(words))
    free, reached = np.empty(lines, np.uint64), np.empty(lines, np.uint64)
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
            apart = False
            if _parts(code) > 1:
                line, place = (y, x) if swapped else (x, y)
                apart = _comes_apart(words, line, place, min(width, height), radius, free, reached)
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
