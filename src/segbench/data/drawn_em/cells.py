"""The cells of a drawn slice: profiles of neurites packed without gaps, and the membranes between them.

Cells are the generalised Voronoi diagram of discs and bent rods of very different sizes: what is nearest to a large
disc is a large axon, what is nearest to a rod is a neurite that runs in the plane. A warp bends their borders.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segbench.data.drawn_em.noise import FloatImage, smooth_noise

MARGIN = 32
"""Pixels drawn around a slice, so that cells at its rim are cut as those inside were."""

_SMALLEST_CELL = 14
"""Pixels; a smaller speck, cut off where a cell is pinched, is painted as membrane."""


@dataclass(frozen=True)
class Cells:
    """The tissue in the plane of the label.

    Attributes:
        instances: HW int32, one 4-connected component an id from 1, 0 = membrane.
        profile: HW int32, the cell that a pixel belongs to, membranes shared out; ids from 0 without meaning.
        depth: HW float32, distance to the nearest border between two cells, in pixels.
        half_width: HW float32, half the width of the membrane label around, in pixels.
    """

    instances: NDArray[np.int32]
    profile: NDArray[np.int32]
    depth: FloatImage
    half_width: FloatImage


def _kernels(
    rng: np.random.Generator, height: int, width: int, radius: float, spread: float, gap: float
) -> NDArray[np.uint8]:
    """HW uint8, 0 inside the discs and rods that cells grow from, 255 outside."""
    sparse, filling = height * width // 1800 + 2, height * width // 360 + 8
    count = sparse + filling
    radii = np.concatenate(
        (
            # Large ones first, or none of them would find room.
            np.sort(np.clip(radius * np.exp(spread * rng.standard_normal(sparse)), 2.0, 36.0))[::-1],
            rng.uniform(1.0, 0.45 * radius, filling),
        )
    )
    # A slice cuts a tract along its fibres or across them, or anything between.
    tract, order = rng.uniform(0.0, np.pi), rng.uniform(0.0, 1.0)
    long = rng.random(count) < 0.3 + 0.4 * order
    half_length = np.where(long, rng.exponential((1.2 + 1.6 * order) * radius, count), 0.4 * radii)
    half_length = np.minimum(half_length, 76.0 - radii)
    angle = tract + (1.6 - 1.2 * order) * rng.standard_normal(count)
    along = np.stack((np.cos(angle), np.sin(angle)), axis=-1)
    across = np.stack((-along[:, 1], along[:, 0]), axis=-1)
    centre = rng.random((count, 2)) * (width, height)
    bend = rng.uniform(-0.45, 0.45, count) * half_length
    steps = np.linspace(-1.0, 1.0, 7)
    axis = (
        centre[:, None]
        + (half_length[:, None] * steps)[..., None] * along[:, None]
        + (bend[:, None] * (steps**2 - 0.5))[..., None] * across[:, None]
    )
    flank = (radii[:, None] * np.ones(7))[..., None] * across[:, None]
    probes = np.concatenate((axis, axis + flank, axis - flank), axis=1)
    columns = np.clip(probes[..., 0], 0, width - 1).astype(np.intp)
    rows = np.clip(probes[..., 1], 0, height - 1).astype(np.intp)
    cells = np.full((height, width), 255, np.uint8)
    taken = np.zeros((height, width), np.uint8)
    points = np.rint(axis).astype(np.int32)
    for i in range(count):
        if taken[rows[i], columns[i]].any():
            continue
        thickness = max(1, round(2 * radii[i]))
        cv2.polylines(cells, [points[i]], False, 0, thickness)
        cv2.polylines(taken, [points[i]], False, 1, round(thickness + 2 * gap))
    return cells


def draw_cells(
    rng: np.random.Generator,
    height: int,
    width: int,
    radius: float,
    spread: float,
    gap: float,
    warp: float,
    share: float,
    label_width: tuple[float, float],
) -> Cells:
    """Pack `height` x `width` pixels with cells.

    Args:
        rng: the slice's generator.
        height: H, at least 16.
        width: W, at least 16.
        radius: median radius of the large cells' kernels, in pixels.
        spread: standard deviation of the logarithm of the radius.
        gap: free space around a kernel, in pixels.
        warp: amplitude of the bends of borders, in pixels.
        share: aimed-at share of membrane pixels; a slice draws its own within 12 % of it.
        label_width: smallest and largest mean width of membranes, in pixels; goes before `share`.
    """
    tall, wide = height + 2 * MARGIN, width + 2 * MARGIN
    _, nearest = cv2.distanceTransformWithLabels(
        _kernels(rng, tall, wide, radius, spread, gap), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP
    )
    # Slow bends give a cell its shape, quick ones the ruffle of its membrane.
    columns, rows = (
        np.add(
            warp * smooth_noise(rng, tall, wide, 40) + 0.3 * warp * smooth_noise(rng, tall, wide, 14),
            0.1 * warp * smooth_noise(rng, tall, wide, 5),
        )
        + positions
        for positions in (np.arange(wide, dtype=np.float32), np.arange(tall, dtype=np.float32)[:, None])
    )
    profile = cv2.remap(nearest, columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)

    border = np.zeros((tall, wide), bool)
    beside, below = profile[:, 1:] != profile[:, :-1], profile[1:] != profile[:-1]
    border[:, 1:] |= beside
    border[:, :-1] |= beside
    border[1:] |= below
    border[:-1] |= below
    # The exact transform, for the same labels on every machine; the blur rounds off the pixels' staircase.
    depth = cv2.distanceTransform((~border).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    depth = cv2.GaussianBlur(depth, (0, 0), 1.0)

    inside = np.s_[MARGIN : MARGIN + height, MARGIN : MARGIN + width]
    profile, border, depth = profile[inside], border[inside], depth[inside]
    uneven = np.exp(0.2 * smooth_noise(rng, height, width, 24))
    wanted = np.quantile(depth / uneven, share * rng.uniform(0.88, 1.12))
    # On a grid of 1/64 pixel the bound is no pixel's own depth, which may differ by a rounding between machines.
    half = np.float32(np.rint(64 * np.clip(wanted, label_width[0] / 2, label_width[1] / 2)) / 64)
    half_width = half * uneven
    _, instances, statistics, _ = cv2.connectedComponentsWithStats(
        ((depth > half_width) & ~border).astype(np.uint8), connectivity=4, ltype=cv2.CV_32S
    )
    kept = statistics[:, cv2.CC_STAT_AREA] >= _SMALLEST_CELL
    kept[0] = False
    ids = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return Cells(ids[instances], profile, depth, half_width)
