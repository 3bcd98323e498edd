"""From a probability of cell to a hierarchy of regions, drawn as contours: an ultrametric contour map.

A membrane with a gap of a few pixels joins two cells, which costs little as pixels and much as regions. Here an image
is divided into basins of the membrane probability (the watershed, Beucher and Lantuejoul 1979), and basins are merged,
the pair with the lowest mean membrane probability along its common border first. A gap in a border counts by its length
and no longer opens it. Small regions, which are rarely cells, are merged somewhat earlier (to merge by area and
contrast is Beaulieu's and Goldberg's: "Hierarchy in picture segmentation: a stepwise optimization approach", IEEE TPAMI
11(2), 1989; the weight is ours). The border of two basins is drawn with the height at which they become one region
(Arbelaez: "Boundary extraction in natural images using ultrametric contour maps", POCV 2006), so every threshold gives
closed regions, and a higher one merges them.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from segbench.compiled import compiled

HELD = 30
"""Whole float32 maps that `contour_map` holds at once: pairs of pixels, and their sorted keys."""

FULL = 25
"""The side in sigmas of a square as large as a region that is no longer small."""


def contour_map(cell_HW: NDArray[np.floating], sigma: float) -> NDArray[np.float32]:
    """The probability of cell, 1 inside the basins and lower on their borders.

    A pixel whose right or lower neighbour is in another basin gets 1 - h: h is the height at which the two basins
    become one region, the larger one if there are two. The pixels above a threshold are so the 4-connected regions of
    the hierarchy, and the others lines between them that are closed.

    Args:
        cell_HW: in [0, 1].
        sigma: of the Gaussian, in pixels, that the membrane probability is smoothed with before basins are sought; the
            means along borders are of the probability as it is. Regions of fewer than (25 sigma)^2 pixels are small.

    Returns:
        float32 in [0, 1].
    """
    membrane_HW = 1 - np.asarray(cell_HW, np.float64)
    basins_HW = watershed_basins(gaussian_filter(membrane_HW, sigma))
    pairs = [
        (basins_HW[:, :-1], basins_HW[:, 1:], membrane_HW[:, :-1], membrane_HW[:, 1:]),
        (basins_HW[:-1], basins_HW[1:], membrane_HW[:-1], membrane_HW[1:]),
    ]
    size, borders = int(basins_HW.max(initial=0)) + 1, [first != second for first, second, _, _ in pairs]
    keys_P, heights_P = [], []
    for (first, second, one, other), border in zip(pairs, borders, strict=True):
        low, high = np.minimum(first, second)[border], np.maximum(first, second)[border]
        keys_P.append(low.astype(np.int64) * size + high)
        heights_P.append(np.maximum(one, other)[border])
    edges_E, edge_P = np.unique(np.concatenate(keys_P), return_inverse=True)
    sums_E = np.asarray(np.bincount(edge_P, np.concatenate(heights_P), len(edges_E)), np.float64)
    counts_E = np.bincount(edge_P, minlength=len(edges_E))
    pairs_E2 = np.stack((edges_E // size, edges_E % size), 1)
    areas_R = np.bincount(basins_HW.ravel(), minlength=size)
    merged_E = merge_heights(pairs_E2, sums_E, counts_E, areas_R, (FULL * sigma) ** 2)
    right_P, below_P = np.split(merged_E[edge_P], [len(keys_P[0])])
    contour_HW = np.zeros(cell_HW.shape)
    contour_HW[:, :-1][borders[0]] = right_P
    # A view; a pixel with both borders has the higher one.
    upper_HW = contour_HW[:-1]
    upper_HW[borders[1]] = np.maximum(upper_HW[borders[1]], below_P)
    return np.clip(1 - contour_HW, 0, 1).astype(np.float32)


def merge_heights(
    pairs_E2: NDArray[np.integer],
    sums_E: NDArray[np.floating],
    counts_E: NDArray[np.integer],
    areas_R: NDArray[np.integer],
    full: float,
) -> NDArray[np.float64]:
    """The height at which the two regions of each edge become one, by mean linkage along borders.

    The edge with the lowest cost goes first: its mean, times the eighth root of the smaller region's share of `full`,
    at most 1. Its regions become one, and what bordered on both has one edge then, whose sum and count are those of the
    two. A height is the largest cost merged at so far, so heights never fall. Of equal costs the lowest numbers go
    first, and the root is taken by square roots, which IEEE 754 defines to the last bit, so the result is the same on
    every machine.

    Args:
        pairs_E2: two regions each, no pair twice.
        sums_E: of the border's values.
        counts_E: how many there are, at least 1.
        areas_R: of the regions, in pixels.
        full: the area from which a region is not small.
    """
    heights_E = np.zeros(len(pairs_E2))
    areas = areas_R.tolist()
    around: list[dict[int, tuple[float, int, list[int]]]] = [{} for _ in areas]
    for edge, ((i, j), total, count) in enumerate(
        zip(pairs_E2.tolist(), sums_E.tolist(), counts_E.tolist(), strict=True)
    ):
        around[i][j] = around[j][i] = (total, count, [edge])

    def cost(i: int, j: int) -> float:
        total, count, _ = around[i][j]
        smaller = min(areas[i], areas[j])
        return float(total / count * (sqrt(sqrt(sqrt(smaller / full))) if smaller < full else 1))

    heap = [(cost(i, j), i, j) for i in range(len(areas)) for j in around[i] if i < j]
    heapify(heap)
    reached = 0.0
    while heap:
        lowest, i, j = heappop(heap)
        if j not in around[i] or cost(i, j) != lowest:
            # Merged, or with another cost, since it was listed.
            continue
        reached = max(reached, lowest)
        heights_E[around[i][j][2]] = reached
        kept, gone = (i, j) if len(around[i]) >= len(around[j]) else (j, i)
        del around[kept][gone], around[gone][kept]
        # While it is small, what is added to its area changes the costs of all its edges.
        changed = around[kept] if areas[kept] < full else around[gone]
        areas[kept] += areas[gone]
        for other, (total, count, edges) in around[gone].items():
            del around[other][gone]
            if other in around[kept]:
                theirs = around[kept][other]
                total, count, edges = total + theirs[0], count + theirs[1], edges + theirs[2]
            around[kept][other] = around[other][kept] = (total, count, edges)
        for other in changed:
            heappush(heap, (cost(kept, other), min(kept, other), max(kept, other)))
        around[gone].clear()
    return heights_E


def watershed_basins(height_HW: NDArray[np.floating]) -> NDArray[np.int32]:
    """The basins of a map, from 0, without lines between them: each regional minimum has one, 4-connected.

    A pixel joins its lowest neighbour; of equally low ones the upper, left, right, lower in this order.
    """
    heights_HW: NDArray[np.float64] = np.ascontiguousarray(height_HW, np.float64)
    # Stable: pixels of one height stay in row order on any machine.
    order = np.argsort(heights_HW.ravel(), kind="stable")
    found_HW = _flood(heights_HW, order)
    return np.unique(found_HW, return_inverse=True)[1].reshape(height_HW.shape).astype(np.int32)


@compiled
def _flood(height_HW: NDArray[np.float64], order: NDArray[np.int64]) -> NDArray[np.int32]:
    H, W = height_HW.shape
    heights = height_HW.ravel()
    basins = np.full(H * W, -1, np.int32)
    # A basin's number is its first pixel.
    parents = np.arange(H * W).astype(np.int32)
    for pixel in order:
        row, column = pixel // W, pixel % W
        own = -1
        lowest = np.inf
        for side in range(4):
            y, x = row + (side == 3) - (side == 0), column + (side == 2) - (side == 1)
            if y < 0 or y >= H or x < 0 or x >= W or basins[y * W + x] < 0:
                continue
            if heights[y * W + x] < lowest:
                lowest, own = heights[y * W + x], basins[y * W + x]
        if own < 0:
            basins[pixel] = pixel
            continue
        while parents[own] != own:
            own = parents[own]
        basins[pixel] = own
        # Parts of one plateau that were begun apart: a part that is no deeper than here is no minimum of its own.
        for side in range(4):
            y, x = row + (side == 3) - (side == 0), column + (side == 2) - (side == 1)
            if y < 0 or y >= H or x < 0 or x >= W or basins[y * W + x] < 0:
                continue
            other = basins[y * W + x]
            while parents[other] != other:
                other = parents[other]
            if other != own and heights[other] == heights[pixel]:
                parents[other] = own
            elif other != own and heights[own] == heights[pixel]:
                parents[own] = other
                own = other
    for pixel in order:
        own = basins[pixel]
        while parents[own] != own:
            own = parents[own]
        basins[pixel] = own
    return basins.reshape(H, W)
