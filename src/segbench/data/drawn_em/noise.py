"""The two noises of drawn EM: bumps of a given width, and grain of a given fineness."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]


def smooth_noise(rng: np.random.Generator, height: int, width: int, scale: int) -> FloatImage:
    """HW float32 noise of mean 0 and deviation about 1 whose bumps are about `scale` pixels wide."""
    rows, columns = height // scale + 4, width // scale + 4
    nodes = rng.standard_normal((rows, columns), dtype=np.float32)
    noise = cv2.resize(nodes, (columns * scale, rows * scale), interpolation=cv2.INTER_CUBIC)
    # Interpolation between independent nodes reduces their deviation by about a third.
    result: FloatImage = 1.4 * noise[scale : scale + height, scale : scale + width]
    return result


def blurred_noise(rng: np.random.Generator, height: int, width: int, sigma: float) -> FloatImage:
    """HW float32 noise of mean 0 and deviation 1, correlated over about `sigma` pixels."""
    noise = cv2.GaussianBlur(rng.standard_normal((height, width), dtype=np.float32), (0, 0), sigma)
    result: FloatImage = noise * (2.0 * sigma * np.pi**0.5)
    return result
