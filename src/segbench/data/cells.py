"""Single cells: from a label to instances and back, and background pixels' distances to the two nearest of them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segbench.compiled import compiled
from segbench.errors import check
from segbench.spec import CORE, VOID, HeadSpec


def connected_cells(label_HW: NDArray[np.integer], background: int = 0, ignore_index: int = VOID) -> NDArray[np.int32]:
    """The 4-connected components of a label's cells, HW int32 ids from 1; background and void are 0.

    Two cells that share only a corner are two cells. Pixels of different classes are never one cell.

    Args:
        label_HW: integers.
        background: the label between cells (0: the membrane of `isbi_em`).
        ignore_index: the void label.
    """
    instances_HW: NDArray[np.int32] | None = None
    count = 0
    for value in np.flatnonzero(np.bincount(label_HW.ravel())):
        if value in (background, ignore_index):
            continue
        found, components_HW = cv2.connectedComponents((label_HW == value).view(np.uint8), connectivity=4)
        if instances_HW is None:
            instances_HW = components_HW
        else:
            np.add(components_HW, count, out=instances_HW, where=components_HW > 0)
        count += found - 1
    return np.zeros(label_HW.shape, np.int32) if instances_HW is None else instances_HW


def near_others(instances_HW: NDArray[np.int32], width: int = 1) -> NDArray[np.bool_]:
    """Pixels of cells whose square neighbourhood, `width` pixels to each side, contains another cell.

    Args:
        instances_HW: int32 ids in [0, 2^24), 0 = background.
        width: in pixels, >= 1; 1 is the 3x3 neighbourhood.
    """
    # OpenCV's morphology does not support int32; float32 represents these ids exactly.
    ids_HW = instances_HW.astype(np.float32)
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    highest_HW = cv2.dilate(ids_HW, kernel)
    lowest_HW = cv2.erode(np.where(ids_HW > 0, ids_HW, np.float32(np.inf)), kernel)
    near_HW: NDArray[np.bool_] = (ids_HW > 0) & ((highest_HW != ids_HW) | (lowest_HW != ids_HW))
    return near_HW


def cores(instances_HW: NDArray[np.integer], share: float) -> NDArray[np.bool_]:
    """The middles of cells: the pixels whose depth in their cell is at least a share of the deepest one's.

    Depth is the Euclidean distance between pixel centres to the nearest pixel that is not of the same cell, background
    or another one: 1 at the rim, so touching cells are judged apart. Beyond the image does not count. A pixel with
    another cell in its 3x3 neighbourhood is in no core: cores never touch.

    Args:
        instances_HW: ids >= 0, 0 = background.
        share: above 0, at most 1; every pixel of depth `share` times the cell's largest or more.
    """
    cores_HW = np.zeros(instances_HW.shape, np.bool_)
    ids_HW = instances_HW.astype(np.int32, copy=False)
    for number, box in enumerate(ndimage.find_objects(ids_HW), 1):
        if box is None:
            continue
        # With one more pixel around the cell, the nearest one outside is always there.
        around = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        inside_HW = ids_HW[around] == number
        # A cell that is the whole image has no depth: it is all core.
        depth_HW = inside_HW if inside_HW.all() else ndimage.distance_transform_edt(inside_HW)
        cores_HW[around] |= inside_HW & (depth_HW >= share * depth_HW.max())
    cores_HW &= ~near_others(ids_HW)
    return cores_HW


BORDER_COLOUR, CORE_COLOUR = (230, 80, 60), (70, 130, 200)


def check_parts(border: int, core: float | None) -> None:
    """Check `data.border` and `data.core`, which `label_parts` describes.

    Raises:
        SegbenchError: out of range.
    """
    check("data.border", border, border >= 0, "a width of 0 pixels or more", 2)
    check("data.core", core, core is None or 0 < core <= 1, "a share of the depth, up to 1, or null", 0.5)


def with_parts(head: HeadSpec, border: int, core: float | None) -> HeadSpec:
    """A head of background and cell, and the classes that `label_parts` adds."""
    added = [*([("border", BORDER_COLOUR)] if border else []), *([(CORE, CORE_COLOUR)] if core is not None else [])]
    names, colours = (tuple(each) for each in zip(*added, strict=True)) if added else ((), ())
    return replace(head, class_names=(*head.class_names, *names), palette=(*head.palette, *colours))


def label_parts(label_HW: NDArray[np.uint8], instances_HW: NDArray[np.int32], border: int, core: float | None) -> None:
    """Part the cells of a label, in place: touching ones from each other, and cores from what is around them.

    Args:
        label_HW: 0 is background, 1 cell.
        instances_HW: int32 ids of the cells, 0 = none.
        border: width in pixels: pixels of a cell with another cell this near, along rows, columns and diagonals, are of
            class 2. 0: there is no such class; touching cells are separated by one background pixel of each.
        core: share of the depth from which pixels are of a further class, the last one, see `cores`; it goes before
            the border. None: there is no such class.
    """
    label_HW[near_others(instances_HW, max(border, 1))] = 2 if border else 0
    if core is not None:
        label_HW[cores(instances_HW, core)] = 3 if border else 2


def two_nearest(instances_HW: NDArray[np.int32], reach: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distances of each background pixel to its nearest and second nearest cell, exact up to `reach`.

    The distance to a cell is that between pixel centres, to the cell's nearest pixel: 1 right beside it. Squared
    distances are integers, so nothing is rounded before the root. The cost does not depend on the number of cells.

    Args:
        instances_HW: int32 ids >= 0, 0 = background.
        reach: in pixels; a background pixel whose second nearest cell is farther gets no distances.

    Returns:
        d1 and d2, HW float32; infinite in cells and out of reach.
    """
    ids, distances = _column_pass(instances_HW)
    d1_HW, d2_HW = _row_pass(instances_HW, ids, distances, max(math.ceil(reach), 1))
    return d1_HW, d2_HW


@compiled
def _column_pass(instances_HW: Any) -> Any:
    """The two nearest cells along each pixel's column: ids and distances, (2, H, W) int32, id 0 = none.

    Each of a pixel's two nearest cells has its nearest pixel in some column, and is among that column's two nearest:
    two nearer ones in the column would also be nearer overall. So two per column are enough.
    """
    H, W = instances_HW.shape
    ids = np.zeros((2, H, W), np.int32)
    distances = np.zeros((2, H, W), np.int32)
    # The last two cells met in each column, and how many rows ago.
    met = np.zeros((2, W), np.int32)
    ago = np.zeros((2, W), np.int32)
    for downwards in (True, False):
        met[:] = 0
        for step in range(H):
            y = step if downwards else H - 1 - step
            for x in range(W):
                ago[0, x] += 1
                ago[1, x] += 1
                here = instances_HW[y, x]
                if here > 0:
                    if here != met[0, x]:
                        met[1, x], ago[1, x] = met[0, x], ago[0, x]
                        met[0, x] = here
                    ago[0, x] = 0
                for rank in range(2):
                    identity, distance = met[rank, x], ago[rank, x]
                    if identity == 0:
                        break
                    if identity == ids[0, y, x]:
                        distances[0, y, x] = min(distances[0, y, x], distance)
                    elif ids[0, y, x] == 0 or distance < distances[0, y, x]:
                        ids[1, y, x], distances[1, y, x] = ids[0, y, x], distances[0, y, x]
                        ids[0, y, x], distances[0, y, x] = identity, distance
                    elif ids[1, y, x] == 0 or distance < distances[1, y, x]:
                        ids[1, y, x], distances[1, y, x] = identity, distance
    return ids, distances


@compiled
def _row_pass(instances_HW: Any, ids: Any, distances: Any, reach: int) -> Any:
    """Search left and right of each background pixel, column by column, until no column can have a nearer cell."""
    H, W = instances_HW.shape
    d1_HW = np.full((H, W), np.inf, np.float32)
    d2_HW = np.full((H, W), np.inf, np.float32)
    beyond = reach * reach + 1
    for y in range(H):
        for x in range(W):
            if instances_HW[y, x] > 0:
                continue
            nearest, square1, square2 = 0, beyond, beyond
            for offset in range(reach + 1):
                if offset * offset >= square2:
                    break
                for side in range(2 if offset else 1):
                    column = x + offset if side else x - offset
                    if column < 0 or column >= W:
                        continue
                    for rank in range(2):
                        identity, distance = ids[rank, y, column], distances[rank, y, column]
                        if identity == 0 or distance > reach:
                            break
                        square = offset * offset + distance * distance
                        if identity == nearest:
                            square1 = min(square1, square)
                        elif square < square1:
                            square2 = square1
                            nearest, square1 = identity, square
                        elif square < square2:
                            square2 = square
            if square2 < beyond:
                d1_HW[y, x] = np.sqrt(np.float32(square1))
                d2_HW[y, x] = np.sqrt(np.float32(square2))
    return d1_HW, d2_HW
