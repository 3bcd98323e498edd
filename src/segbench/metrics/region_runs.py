"""Regions of a mask as runs of pixels along rows, and how the regions of two masks overlap.

A row of a segmentation has few runs and many pixels. Joining runs instead of labelling pixels, and comparing the runs
of two masks instead of counting pixel pairs, makes the Rand error several times faster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segbench.compiled import compiled
from segbench.errors import SegbenchError
from segbench.metrics.region_overlap import Contingency, flagged, gather


@dataclass(frozen=True, eq=False)
class RegionRuns:
    """The 4-connected regions of a mask.

    Attributes:
        edges: int32 (2 R,), where each of R runs begins and ends (exclusive), counting W + 1 pixels per row, so
            that the end of a row does not touch the start of the next.
        ids: int32 (R,), the region of each run, from 1 in row order.
        shape: H and W.
    """

    edges: NDArray[np.int32]
    ids: NDArray[np.int32]
    shape: tuple[int, int]


@compiled
def _edges(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    height, width = mask.shape
    edges = np.empty(height * (width + 1) + 1, np.int32)
    changed = np.zeros((width + 8) // 8 * 8, np.uint8)
    found = 0
    for row in range(height):
        changed[0] = mask[row, 0]
        for column in range(1, width):
            changed[column] = mask[row, column] != mask[row, column - 1]
        changed[width] = mask[row, width - 1]
        found = flagged(changed, row * (width + 1), found, edges)
    return edges[:found].copy()


@compiled
def root(parents: NDArray[np.int32], node: int) -> int:
    """The root of a node in a union-find forest; halves the path on the way."""
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@compiled
def _join(edges: NDArray[np.int32], stride: int) -> NDArray[np.int32]:
    count = edges.size // 2
    parents, ids = np.empty(count, np.int32), np.empty(count, np.int32)
    above = 0
    for run in range(count):
        parents[run] = run
        # This run, moved up one row, against the runs there.
        begin, end = edges[2 * run] - stride, edges[2 * run + 1] - stride
        while edges[2 * above + 1] <= begin:
            above += 1
        other = above
        while edges[2 * other] < end:
            one, two = root(parents, other), root(parents, run)
            parents[max(one, two)] = min(one, two)
            other += 1
    regions = 0
    for run in range(count):
        # A parent is never later than its child, so its id is known.
        if parents[run] == run:
            regions += 1
            ids[run] = regions
        else:
            ids[run] = ids[parents[run]]
    return ids


def check_places(height: int, width: int) -> None:
    """Refuse an image whose places, with a border of one pixel, do not fit into int32.

    Raises:
        SegbenchError: it has too many pixels.
    """
    if (height + 2) * (width + 2) > np.iinfo(np.int32).max:
        raise SegbenchError(
            f"an image of {height} x {width} pixels",
            "at most 2 billion: places in it are counted in 32 bits",
            "score it in parts, or without the metrics of regions (metrics=overlap)",
        )


def region_runs(mask_HW: NDArray[np.bool_]) -> RegionRuns:
    """Find the 4-connected regions of a mask.

    Args:
        mask_HW: bool, at least one pixel.

    Raises:
        SegbenchError: as `check_places`.
    """
    check_places(*mask_HW.shape)
    edges = _edges(mask_HW)
    height, width = mask_HW.shape
    return RegionRuns(edges, _join(edges, width + 1), (height, width))


@compiled
def _paint(edges: NDArray[np.int32], ids: NDArray[np.int32], height: int, width: int) -> NDArray[np.int32]:
    painted = np.zeros((height, width), np.int32)
    for run in range(ids.size):
        row, begin = edges[2 * run] // (width + 1), edges[2 * run] % (width + 1)
        painted[row, begin : begin + edges[2 * run + 1] - edges[2 * run]] = ids[run]
    return painted


def regions(mask_HW: NDArray[np.generic]) -> NDArray[np.int32]:
    """Number the 4-connected components of a mask from 1 in row order; 0 elsewhere.

    Args:
        mask_HW: non-zero = inside.

    Returns:
        int32 HW.

    Example:
        >>> regions(np.array([[1, 0, 1], [1, 0, 0], [0, 1, 1]]))
        array([[1, 0, 2],
               [1, 0, 0],
               [0, 3, 3]], dtype=int32)
    """
    mask = np.ascontiguousarray(mask_HW, np.bool_)
    if not mask.size:
        return np.zeros(mask.shape, np.int32)
    runs = region_runs(mask)
    return np.asarray(_paint(runs.edges, runs.ids, *runs.shape))


@compiled
def _meet(
    edges: NDArray[np.int32], ids: NDArray[np.int32], other_edges: NDArray[np.int32], other_ids: NDArray[np.int32]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    keys, lengths = np.empty(ids.size + other_ids.size, np.uint64), np.empty(ids.size + other_ids.size, np.int64)
    found, one, two = 0, 0, 0
    while one < ids.size and two < other_ids.size:
        end, other_end = edges[2 * one + 1], other_edges[2 * two + 1]
        length = min(end, other_end) - max(edges[2 * one], other_edges[2 * two])
        keys[found] = np.uint64(ids[one]) << np.uint64(32) | np.uint64(other_ids[two])
        lengths[found] = length
        found += int(length > 0)
        if end < other_end:
            one += 1
        else:
            two += 1
    return keys[:found], lengths[:found]


def overlap(first: RegionRuns, second: RegionRuns) -> Contingency:
    """The pixels of the first mask by pair of regions; column 0 = outside the second mask, of the same shape."""
    keys, lengths = _meet(first.edges, first.ids, second.edges, second.ids)
    table = gather(keys, lengths)
    size = np.bincount(first.ids, first.edges[1::2] - first.edges[::2]).astype(np.int64)
    size -= np.bincount(table.rows, table.pixels, size.size).astype(np.int64)
    uncovered = np.flatnonzero(size)
    return Contingency(
        np.concatenate((table.rows, uncovered)),
        np.concatenate((table.columns, np.zeros(uncovered.size, np.int64))),
        np.concatenate((table.pixels, size[uncovered])),
    )
