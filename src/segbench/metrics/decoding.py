"""From class probabilities back to objects: components or a watershed on the distance, then clean-up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segbench.compiled import compiled
from segbench.errors import SegbenchError, check, check_one_of
from segbench.metrics.region_runs import regions, root

Method = Literal["components", "watershed"]


@dataclass(frozen=True)
class Decoding:
    """How to derive objects from class probabilities; class 0 is background.

    Attributes:
        method: `components`: each 4-connected component of the cell pixels is an object. `watershed`: components are
            cut at the necks of their distance to the nearest other pixel.
        cell_class: the class of the objects.
        threshold: a pixel is cell where P(cell) exceeds it; None: where cell is the likeliest class.
        depth: of the watershed, in pixels: two bulges are two objects if the distance at the neck between them is
            smaller by at least this much than at the middle of the flatter one.
        grow: in pixels; pixels whose likeliest class is neither background nor cell (the border class) join the
            nearest object up to this far away.
        min_size: in pixels; smaller objects are dropped.
        fill_holes: background enclosed by one object joins it.

    Raises:
        SegbenchError: a value out of range.
    """

    method: Method = "components"
    cell_class: int = 1
    threshold: float | None = None
    depth: float = 1.0
    grow: float = 0.0
    min_size: int = 0
    fill_holes: bool = False

    def __post_init__(self) -> None:
        check_one_of("decoding.method", self.method, ("components", "watershed"))
        good = self.threshold is None or 0 <= self.threshold < 1
        check("decoding.threshold", self.threshold, good, "a probability below 1, or null", "null")
        for name in ("cell_class", "depth", "grow", "min_size"):
            value = getattr(self, name)
            check(f"decoding.{name}", value, 0 <= value < math.inf, "a finite number from 0", 1)


def decode_instances(prob_KHW: NDArray[np.floating], decoding: Decoding) -> NDArray[np.int32]:
    """Number the objects of one image: `decode_instances(prob_KHW, Decoding(method="watershed", depth=2))`.

    Args:
        prob_KHW: class probabilities, or logits where `decoding.threshold` is None.
        decoding: the method.

    Returns:
        int32 HW, objects from 1 in row order, 0 = none.

    Raises:
        SegbenchError: `decoding.cell_class` is not one of the K classes.
    """
    if not decoding.cell_class < len(prob_KHW):
        raise SegbenchError(
            f"decoding.cell_class={decoding.cell_class} for {len(prob_KHW)} classes",
            f"0 to {len(prob_KHW) - 1}",
            "set decoding.cell_class to the class of the objects",
        )
    pred_HW = prob_KHW.argmax(0)
    is_cell = pred_HW == decoding.cell_class
    if decoding.threshold is not None:
        is_cell = prob_KHW[decoding.cell_class] > decoding.threshold
    objects_HW = watershed(is_cell, decoding.depth) if decoding.method == "watershed" else regions(is_cell)
    objects_HW = _without_small(objects_HW, decoding.min_size)
    if decoding.grow > 0:
        is_border = (pred_HW != 0) & (pred_HW != decoding.cell_class)
        objects_HW = _grown(objects_HW, is_border, decoding.grow)
    if decoding.fill_holes:
        _fill_holes(objects_HW)
    return objects_HW


def watershed(mask_HW: NDArray[np.generic], depth: float = 1.0) -> NDArray[np.int32]:
    """Cut the 4-connected components of a mask at their necks.

    The mask is flooded from the summits of its Euclidean distance to the nearest pixel outside (beyond the image does
    not count). Where two floods meet they are one object if the lower summit is less than `depth` above the meeting
    point: the watershed from the summits of that dynamic (Grimaud 1992), without a line between objects.

    Args:
        mask_HW: non-zero = inside.
        depth: in pixels, >= 0; infinite gives the components.

    Returns:
        int32 HW, numbered as by `regions`.
    """
    mask = np.ascontiguousarray(mask_HW, np.uint8)
    if not mask.any() or mask.all():
        # No pixel outside, no distance.
        return regions(mask)
    distance_HW = cv2.distanceTransform((mask != 0).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    inside = np.flatnonzero(mask)
    # Stable: pixels of one height stay in row order on any machine.
    order = inside[np.argsort(-distance_HW.ravel()[inside], kind="stable")]
    return _renumbered(_flood(distance_HW, order, depth))


@compiled
def _flood(height_HW: NDArray[np.float32], order: NDArray[np.int64], depth: float) -> NDArray[np.int32]:
    H, W = height_HW.shape
    heights = height_HW.ravel()
    basins = np.zeros(H * W, np.int32)
    parents, summits = np.zeros(order.size + 1, np.int32), np.zeros(order.size + 1, np.float32)
    around = np.zeros(4, np.int32)
    found = 0
    for pixel in order:
        row, column = pixel // W, pixel % W
        steepest, met = np.float32(-1), 0
        own, highest = 0, 0
        for side in range(4):
            y, x = row + (side == 3) - (side == 0), column + (side == 2) - (side == 1)
            if y < 0 or y >= H or x < 0 or x >= W or basins[y * W + x] == 0:
                continue
            basin = root(parents, basins[y * W + x])
            around[met] = basin
            met += 1
            if heights[y * W + x] > steepest:
                steepest, own = heights[y * W + x], basin
            if highest == 0 or summits[basin] > summits[highest]:
                highest = basin
        if met == 0:
            found += 1
            own, parents[found], summits[found] = found, found, heights[pixel]
        for neighbour in around[:met]:
            if neighbour != highest and summits[neighbour] - heights[pixel] < depth:
                parents[neighbour] = highest
        basins[pixel] = own
    for pixel in order:
        basins[pixel] = root(parents, basins[pixel])
    return basins.reshape(H, W)


def _renumbered(objects_HW: NDArray[np.int32]) -> NDArray[np.int32]:
    flat = objects_HW.ravel()
    ids, first = np.unique(flat, return_index=True)
    real = ids > 0
    table = np.zeros(int(flat.max(initial=0)) + 1, np.int32)
    table[ids[real][np.argsort(first[real])]] = np.arange(1, np.count_nonzero(real) + 1)
    return table[objects_HW]


def _without_small(objects_HW: NDArray[np.int32], min_size: int) -> NDArray[np.int32]:
    if min_size <= 1:
        return objects_HW
    keep = np.bincount(objects_HW.ravel()) >= min_size
    keep[0] = False
    table = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return table[objects_HW]


def _grown(objects_HW: NDArray[np.int32], into_HW: NDArray[np.bool_], reach: float) -> NDArray[np.int32]:
    if not objects_HW.any():
        return objects_HW
    distance_HW, (rows, columns) = ndimage.distance_transform_edt(objects_HW == 0, return_indices=True)
    taken = into_HW & (objects_HW == 0) & (distance_HW <= reach)
    grown_HW = objects_HW.copy()
    grown_HW[taken] = objects_HW[rows[taken], columns[taken]]
    return grown_HW


def _fill_holes(objects_HW: NDArray[np.int32]) -> None:
    for number, box in enumerate(ndimage.find_objects(objects_HW), 1):
        part_HW = objects_HW[box]
        filled_HW = ndimage.binary_fill_holes(part_HW == number)
        part_HW[filled_HW & (part_HW == 0)] = number
