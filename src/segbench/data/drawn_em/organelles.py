"""The contents of a drawn slice's cells, as dark as membranes, so that a threshold fails.

Densities are numbers tried per 10,000 pixels; those without room are left out.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from segbench.data.drawn_em.cells import Cells
from segbench.data.drawn_em.noise import FloatImage, blurred_noise, smooth_noise

_SUBPIXEL = 4
"""Fractional bits of coordinates in OpenCV's drawing functions."""


def _count(rng: np.random.Generator, density: float, height: int, width: int) -> int:
    """Draw the number of objects of `density` per 10,000 pixels."""
    return int(rng.poisson(density * height * width / 1e4))


def _fixed(points: NDArray[np.float64] | tuple[float, float]) -> NDArray[np.int32]:
    """Coordinates for OpenCV's drawing functions, with `_SUBPIXEL` fractional bits."""
    fixed: NDArray[np.int32] = np.rint(np.asarray(points) * 2**_SUBPIXEL).astype(np.int32)
    return fixed


def mitochondria(rng: np.random.Generator, cells: Cells, density: float) -> FloatImage:
    """HW float32 darkness of bodies with a double border and cristae."""
    height, width = cells.depth.shape
    body = np.zeros((height, width), np.uint8)
    border = np.zeros((height, width), np.uint8)
    taken = np.zeros((height, width), np.uint8)
    tried = _count(rng, 40 * density, height, width)
    wanted = _count(rng, density, height, width)
    rows, columns = rng.integers(0, height, tried), rng.integers(0, width, tried)
    turn = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
    harmonics = np.arange(2, 5)[:, None] * turn
    waves = rng.normal(0.0, 0.05, (tried, 2, 3))
    filled = rng.uniform(0.55, 0.85, tried)
    tone = rng.integers(120, 255, tried)
    for i in np.flatnonzero(cells.depth[rows, columns] > 9.0):
        if wanted == 0:
            break
        row, column = int(rows[i]), int(columns[i])
        radius = min(float(cells.depth[row, column]) * filled[i], 24.0)
        if taken[row, column]:
            continue
        wanted -= 1
        wobble = waves[i, 0] @ np.cos(harmonics) + waves[i, 1] @ np.sin(harmonics)
        outline = radius * (1.0 + wobble)[:, None] * np.stack((np.cos(turn), np.sin(turn)), axis=-1)
        centre = np.array((column, row), float)
        cv2.fillPoly(body, [_fixed(centre + outline)], int(tone[i]), cv2.LINE_AA, _SUBPIXEL)
        cv2.polylines(border, [_fixed(centre + outline)], True, 255, 1, cv2.LINE_AA, _SUBPIXEL)
        cv2.polylines(border, [_fixed(centre + outline * (1.0 - 3.2 / radius))], True, 170, 1, cv2.LINE_AA, _SUBPIXEL)
        cv2.circle(taken, (column, row), int(2.3 * radius), 1, -1)
    if not body.any():
        return np.zeros((height, width), np.float32)
    # Cristae: band-passed noise has the width of their folds and, like them, no preferred direction.
    folds = blurred_noise(rng, height, width, 1.3) - blurred_noise(rng, height, width, 2.6)
    matrix = cv2.GaussianBlur(body, (0, 0), 1.0).astype(np.float32) / 255.0
    result: FloatImage = matrix * (58.0 + 24.0 * np.tanh(1.5 * folds)) + 0.28 * border
    return result


def _draw_reticulum(rng: np.random.Generator, cells: Cells, density: float, stain: NDArray[np.uint8]) -> None:
    """Draw endoplasmic reticulum cut lengthwise into `stain`: bent lines that are not the cell's membrane."""
    height, width = stain.shape
    count = _count(rng, density, height, width)
    positions = rng.random((count, 2)) * (height, width)
    axes = rng.uniform((5.0, 2.0), (18.0, 9.0), (count, 2))
    turns = rng.uniform(0.0, 360.0, (count, 2))
    tones = rng.integers(50, 150, count)
    rows, columns = positions.astype(np.intp).T
    for i in np.flatnonzero(cells.depth[rows, columns] > axes.max(axis=1) + 2.0):
        x, y = (int(v) for v in _fixed((positions[i, 1], positions[i, 0])))
        size = (int(axes[i, 0] * 2**_SUBPIXEL), int(axes[i, 1] * 2**_SUBPIXEL))
        sweep = turns[i, 1] + 60.0 + 100.0 * (i % 2)
        cv2.ellipse(stain, (x, y), size, turns[i, 0], turns[i, 1], sweep, int(tones[i]), 1, cv2.LINE_AA, _SUBPIXEL)


def inner_membranes(
    rng: np.random.Generator, cells: Cells, vesicles: float, microtubules: float, reticulum: float
) -> FloatImage:
    """HW float32 darkness of vesicles (rings, some with a dense core) and of microtubules (small rings and dots)."""
    height, width = cells.depth.shape
    stain = np.zeros((height, width), np.uint8)
    crowd = smooth_noise(rng, height, width, 40)
    for density, smallest, largest, clustered in (
        (vesicles, 2.6, 4.6, True),
        (microtubules, 1.0, 2.0, False),
    ):
        count = _count(rng, density * (2.5 if clustered else 1.0), height, width)
        positions = rng.random((count, 2)) * (height, width)
        radii = rng.uniform(smallest, largest, count)
        tones = rng.integers(60, 200, count)
        cores = rng.random(count) < 0.2
        rows, columns = positions.astype(np.intp).T
        room = cells.depth[rows, columns] > radii + cells.half_width[rows, columns]
        if clustered:
            room &= crowd[rows, columns] > 0.3
        for i in np.flatnonzero(room):
            x, y = (int(v) for v in _fixed((positions[i, 1], positions[i, 0])))
            radius = int(radii[i] * 2**_SUBPIXEL)
            cv2.circle(stain, (x, y), radius, int(tones[i]), 1, cv2.LINE_AA, _SUBPIXEL)
            if cores[i]:
                cv2.circle(stain, (x, y), radius // 2, int(tones[i]), -1, cv2.LINE_AA, _SUBPIXEL)
    _draw_reticulum(rng, cells, reticulum, stain)
    result: FloatImage = cv2.GaussianBlur(stain, (0, 0), 0.6).astype(np.float32) * 0.7
    return result


def smears(rng: np.random.Generator, cells: Cells, density: float) -> FloatImage:
    """HW float32 darkness of synaptic densities beside membranes and of a few clots of stain anywhere."""
    height, width = cells.depth.shape
    dark = np.zeros((height, width), np.uint8)
    tried = _count(rng, 12 * density, height, width)
    wanted = _count(rng, density, height, width)
    rows, columns = rng.integers(0, height, tried), rng.integers(0, width, tried)
    axes = rng.uniform(3.0, 11.0, (tried, 2))
    angle = rng.uniform(0.0, 180.0, tried)
    beside = np.flatnonzero(cells.depth[rows, columns] < 4.0)[:wanted]
    for i in beside:
        centre = (int(columns[i]), int(rows[i]))
        cv2.ellipse(dark, centre, (int(axes[i, 0]), int(axes[i, 1])), float(angle[i]), 0, 360, 255, -1)
    for _ in range(_count(rng, 0.4, height, width)):
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        cv2.circle(dark, centre, int(rng.integers(1, 4)), 255, -1)
    if not dark.any():
        return np.zeros((height, width), np.float32)
    grain = 0.7 + 0.3 * blurred_noise(rng, height, width, 1.5)
    result: FloatImage = cv2.GaussianBlur(dark, (0, 0), 3.0).astype(np.float32) * (0.3 * grain)
    return result
