"""A picture of where a prediction splits and merges cells: the warping map drawn over the image."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from segbench.errors import SegbenchError
from segbench.metrics.mismatches import HOLE_ADDITION, HOLE_DELETION, MERGE, OBJECT_ADDITION, OBJECT_DELETION, SPLIT

COLOURS = {
    HOLE_ADDITION: (240, 228, 66),
    HOLE_DELETION: (0, 158, 115),
    OBJECT_ADDITION: (204, 121, 167),
    OBJECT_DELETION: (0, 114, 178),
    SPLIT: (86, 180, 233),
    MERGE: (255, 64, 0),
}
"""RGB by kind, in the order of drawing: yellow hole addition, green hole deletion, pink object addition, dark blue
object deletion, and on top, ringed, light blue split and red merge. Colour-blind readers can tell them apart."""


def overlay(raw_HW: NDArray[np.generic], mismatch_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colour the mismatches of a slice.

    Each pixel is drawn as a square of 3 x 3. A merge is often a single pixel, so splits and merges get a ring at one
    sixtieth of the longer side (at least 5 pixels), whose inside stays visible.

    Args:
        raw_HW: the image, any range, drawn in grey from its smallest to its largest value.
        mismatch_HW: uint8 of `Warped.mismatch_HW`: 0 none, else the kind.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        SegbenchError: the shapes differ or are not two-dimensional.
    """
    if raw_HW.ndim != 2 or raw_HW.shape != mismatch_HW.shape:
        raise SegbenchError(
            f"an image of shape {raw_HW.shape} and a mismatch map of shape {mismatch_HW.shape}",
            "two H x W arrays of one shape",
            "pass one slice and the mismatch_HW that warp() gave for it",
        )
    picture = np.repeat(_grey(raw_HW.astype(np.float32))[..., None], 3, axis=2)
    radius = max(5, round(max(raw_HW.shape) / 60))
    for kind, colour in COLOURS.items():
        marks = (mismatch_HW == kind).view(np.uint8)
        if not marks.any():
            continue
        if kind in (SPLIT, MERGE):
            ring = cv2.dilate(marks, _disc(radius)) > cv2.dilate(marks, _disc(radius - 2))
            picture[ring] = colour
        picture[cv2.dilate(marks, np.ones((3, 3), np.uint8)) > 0] = colour
    return picture


def _grey(raw_HW: NDArray[np.float32]) -> NDArray[np.uint8]:
    if not raw_HW.size:
        return raw_HW.astype(np.uint8)
    low, high = float(raw_HW.min()), float(raw_HW.max())
    return np.asarray(np.rint((raw_HW - low) * (255.0 / (high - low if high > low else 1.0))).astype(np.uint8))


def _disc(radius: int) -> NDArray[np.uint8]:
    offset = np.arange(-radius, radius + 1)
    return (offset[:, None] ** 2 + offset**2 <= radius**2).astype(np.uint8)
