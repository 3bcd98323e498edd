"""The exact Euclidean distance transform, the same in every process."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def distance_inside(mask_HW: NDArray[Any]) -> NDArray[np.float32]:
    """The distance of each pixel of a mask to the nearest pixel outside it, between centres: 1 at the rim.

    Intel's IPP, which OpenCV takes in one thread or for small images, rounds otherwise from call to call, by where the
    array lies in memory; a watershed then ends at another pixel. Without it the root of the whole squared distance is
    rounded once, and no slower.

    Args:
        mask_HW: non-zero = inside; at least one pixel is outside, else the values mean nothing.

    Returns:
        float32 HW in pixels, 0 outside.
    """
    used = cv2.ipp.useIPP()
    # Of this thread alone.
    cv2.ipp.setUseIPP(False)
    try:
        distance_HW = cv2.distanceTransform((mask_HW != 0).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    finally:
        cv2.ipp.setUseIPP(used)
    return np.asarray(distance_HW, np.float32)
