"""The cells of a drawn slice: profiles of neurites packed without gaps, and the membranes between them.

Cells are the generalised Voronoi diagram of discs and bent rods of very different sizes: pixels nearest to a large disc
form a large axon, those nearest to a rod a neurite in the plane. A warp bends their borders.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segbench.data.drawn_em.noise import FloatImage, smooth_noise
from segbench.data.drawn_em.parameters import EMParameters
from segbench.metrics.distance import distance_inside

MARGIN = 32
"""Pixels drawn around a slice, so that cells at its rim look like those inside."""

_SMALLEST_CELL = 14
"""Pixels; smaller specks, cut off where a cell is pinched, become membrane."""


@dataclass(frozen=True)
class Cells:
    """The tissue in the plane of the label.

    Attributes:
        instances: HW int32, one 4-connected component per id from 1, 0 = membrane.
        profile: HW int32, each pixel's cell, membranes divided between their cells; ids from 0 in no order.
        depth: HW float32, distance to the nearest border between two cells, in pixels.
        half_width: HW float32, half the local width of the membrane label, in pixels.
    """

    instances: NDArray[np.int32]
    profile: NDArray[np.int32]
    depth: FloatImage
    half_width: FloatImage


def _kernels(rng: np.random.Generator, height: int, width: int, parameters: EMParameters) -> NDArray[np.uint8]:
    """HW uint8, 0 inside the discs and rods that cells grow from, 255 outside."""
    radius = parameters.cell_radius
    sparse, filling = height * width // 1800 + 2, height * width // 360 + 8
    count = sparse + filling
    radii = np.concatenate(
        (
            # Large ones first, or they would find no room.
            np.sort(np.clip(radius * np.exp(parameters.cell_spread * rng.standard_normal(sparse)), 2.0, 36.0))[::-1],
            rng.uniform(1.0, 0.45 * radius, filling),
        )
    )
    # A slice cuts a tract along its fibres, across them, or anything between.
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
        cv2.polylines(taken, [points[i]], False, 1, round(thickness + 2 * parameters.cell_gap))
    return cells


def draw_cells(rng: np.random.Generator, height: int, width: int, parameters: EMParameters) -> Cells:
    """Pack `height` x `width` pixels, at least 16 x 16, with cells."""
    warp, (thinnest, widest) = parameters.border_warp, parameters.membrane_width
    tall, wide = height + 2 * MARGIN, width + 2 * MARGIN
    _, nearest = cv2.distanceTransformWithLabels(
        _kernels(rng, tall, wide, parameters), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP
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
    # The exact transform gives the same labels on every machine; the blur smooths the pixels' staircase.
    depth = distance_inside(~border)
    depth = cv2.GaussianBlur(depth, (0, 0), 1.0)

    inside = np.s_[MARGIN : MARGIN + height, MARGIN : MARGIN + width]
    profile, border, depth = profile[inside], border[inside], depth[inside]
    uneven = np.exp(0.2 * smooth_noise(rng, height, width, 24))
    wanted = np.quantile(depth / uneven, parameters.membrane_share * rng.uniform(0.88, 1.12))
    # Rounded to 1/64 pixel, as a pixel's own depth may differ between machines in the last bit.
    half = np.float32(np.rint(64 * np.clip(wanted, thinnest / 2, widest / 2)) / 64)
    half_width = half * uneven
    _, instances, statistics, _ = cv2.connectedComponentsWithStats(
        ((depth > half_width) & ~border).astype(np.uint8), connectivity=4, ltype=cv2.CV_32S
    )
    kept = statistics[:, cv2.CC_STAT_AREA] >= _SMALLEST_CELL
    kept[0] = False
    ids = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return Cells(ids[instances], profile, depth, half_width)
