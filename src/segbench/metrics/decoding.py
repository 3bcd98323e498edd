"""From class probabilities back to objects: components, or watersheds on the distance, then clean-up."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segbench.compiled import compiled
from segbench.errors import SegbenchError, check, check_one_of
from segbench.metrics.distance import distance_inside
from segbench.metrics.region_runs import regions, root

Method = Literal["components", "watershed", "cores"]
USED_BY: Mapping[str, Method] = {"depth": "watershed", "core_threshold": "cores", "min_core": "cores"}
"""The settings that a single method uses."""
CLASSES = ("cell_class", "core_class")
"""The settings that name classes of objects."""


@dataclass(frozen=True)
class Decoding:
    """How to derive objects from class probabilities; class 0 is background.

    Attributes:
        method: `components`: each 4-connected component of the cell pixels is an object. `watershed`: components are
            cut at the necks of their distance to the nearest other pixel. `cores`: components are divided among their
            cores, see `from_cores`.
        cell_class: the class of the objects.
        core_class: the class of their middles, K - 1 if it is -1; its probability is added to P(cell). None: none.
        threshold: a pixel is cell where P(cell) exceeds it; None: where a class of objects is the likeliest.
        depth: of the watershed, in pixels: two bulges are two objects if the distance at the neck between them is
            smaller by at least this much than at the middle of the flatter one.
        core_threshold: of `cores`: a cell pixel is core where P(core) is more than this share of P(cell) with it.
        min_core: of `cores`, in pixels; smaller cores are passed over.
        grow: in pixels; pixels whose likeliest class is neither background nor one of objects (the border) join the
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
    core_class: int | None = None
    core_threshold: float = 0.5
    min_core: int = 0

    def __post_init__(self) -> None:
        check_one_of("decoding.method", self.method, ("components", "watershed", "cores"))
        needed = self.method != "cores" or self.core_class is not None
        check("decoding.core_class", self.core_class, needed, "the class of cores, for decoding.method=cores", -1)
        share = self.core_threshold
        check("decoding.core_threshold", share, 0 <= share < 1, "a share below 1", 0.5)
        good = self.threshold is None or 0 <= self.threshold < 1
        check("decoding.threshold", self.threshold, good, "a probability below 1, or null", "null")
        for name in ("cell_class", "depth", "grow", "min_size", "min_core"):
            value = getattr(self, name)
            check(f"decoding.{name}", value, 0 <= value < math.inf, "a finite number from 0", 1)


def classes_among(decoding: Decoding, K: int) -> tuple[int, int | None]:
    """The class of objects and that of their cores, counted from 0, among K.

    Raises:
        SegbenchError: `decoding.cell_class` or `core_class` is not one of them, or they are the same.
    """
    if not decoding.cell_class < K:
        raise SegbenchError(
            f"decoding.cell_class={decoding.cell_class} for {K} classes",
            f"0 to {K - 1}",
            "set decoding.cell_class to the class of the objects",
        )
    if decoding.core_class is None:
        return decoding.cell_class, None
    core_class = decoding.core_class if decoding.core_class >= 0 else K + decoding.core_class
    if not 0 < core_class < K or core_class == decoding.cell_class:
        raise SegbenchError(
            f"decoding.core_class={decoding.core_class} for {K} classes, of which {decoding.cell_class} is cell",
            "the class of the objects' cores, which data.core=0.5 makes",
            "set decoding.core_class to it, or choose decoding=watershed",
        )
    return decoding.cell_class, core_class


def decode_instances(prob_KHW: NDArray[np.floating], decoding: Decoding) -> NDArray[np.int32]:
    """Number the objects of one image: `decode_instances(prob_KHW, Decoding(method="watershed", depth=2))`.

    Args:
        prob_KHW: class probabilities, or logits where `decoding.threshold` is None.
        decoding: the method.

    Returns:
        int32 HW, objects from 1 in row order, 0 = none.

    Raises:
        SegbenchError: `decoding.cell_class` or `core_class` is not one of the K classes, or they are the same.
    """
    cell_class, core_class = classes_among(decoding, len(prob_KHW))
    pred_HW, prob_HW = prob_KHW.argmax(0), prob_KHW[cell_class]
    likeliest_HW = pred_HW == cell_class
    if core_class is not None:
        core_HW, prob_HW = prob_KHW[core_class], prob_HW + prob_KHW[core_class]
        likeliest_HW |= pred_HW == core_class
    is_cell = likeliest_HW if decoding.threshold is None else prob_HW > decoding.threshold
    if decoding.method == "watershed":
        objects_HW = watershed(is_cell, decoding.depth)
    elif decoding.method == "cores":
        is_core = is_cell & (core_HW > decoding.core_threshold * prob_HW)
        objects_HW = from_cores(is_cell, _without_small(regions(is_core), decoding.min_core))
    else:
        objects_HW = regions(is_cell)
    objects_HW = _without_small(objects_HW, decoding.min_size)
    if decoding.grow > 0:
        objects_HW = _grown(objects_HW, (pred_HW != 0) & ~likeliest_HW, decoding.grow)
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
    distance_HW = distance_inside(mask)
    inside = np.flatnonzero(mask)
    # Stable: pixels of one height stay in row order on any machine.
    order = inside[np.argsort(-distance_HW.ravel()[inside], kind="stable")]
    return _renumbered(_flood(distance_HW, order, depth))


def from_cores(mask_HW: NDArray[np.generic], cores_HW: NDArray[np.integer]) -> NDArray[np.int32]:
    """Divide the 4-connected components of a mask among the cores in them; one without a core is an object of its own.

    The mask is flooded from the cores alone, the deepest pixels first and those of one depth in the order in which the
    flood reaches them (Meyer 1991): depth is the Euclidean distance to the nearest pixel outside. Two cores' objects
    meet at the neck between them.

    Args:
        mask_HW: non-zero = inside.
        cores_HW: int ids >= 0, 0 = none; those outside the mask do not count.

    Returns:
        int32 HW, numbered as by `regions`.
    """
    mask = np.ascontiguousarray(mask_HW, np.uint8)
    regions_HW = regions(mask)
    seeds_HW = np.where(mask != 0, cores_HW, 0).astype(np.int32)
    if not seeds_HW.any():
        return regions_HW
    # No pixel outside, no distance: the flood is even.
    depth_HW = np.zeros(mask.shape, np.float32) if mask.all() else distance_inside(mask)
    flooded_HW = flood_from(depth_HW, mask, seeds_HW)
    alone_HW = (mask != 0) & (flooded_HW == 0)
    flooded_HW[alone_HW] = regions_HW[alone_HW] + flooded_HW.max()
    return _renumbered(flooded_HW)


@compiled
def flood_from(
    height_HW: NDArray[np.float32], mask_HW: NDArray[np.uint8], seeds_HW: NDArray[np.int32]
) -> NDArray[np.int32]:
    """What each seed's flood reaches first within a mask, int32 HW; highest first, then by age, to 4 neighbours."""
    H, W = height_HW.shape
    basins_HW = seeds_HW.copy()
    # What the flood has reached, by height and then by age.
    front = [(np.float32(0), 0, 0, 0) for _ in range(0)]
    age = 0
    for row in range(H):
        for column in range(W):
            if seeds_HW[row, column] > 0:
                front.append((-height_HW[row, column], age, row, column))
                age += 1
    heapq.heapify(front)
    while front:
        _, _, row, column = heapq.heappop(front)
        for side in range(4):
            y, x = row + (side == 3) - (side == 0), column + (side == 2) - (side == 1)
            if y < 0 or y >= H or x < 0 or x >= W or mask_HW[y, x] == 0 or basins_HW[y, x] > 0:
                continue
            basins_HW[y, x] = basins_HW[row, column]
            heapq.heappush(front, (-height_HW[y, x], age, y, x))
            age += 1
    return basins_HW


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
