"""What is done with the probabilities of two classes at the end: calibration, a median filter, closed contours.

As the sliding-window paper does it (Ciresan et al., NIPS 2012): trained on as many membrane pixels as others, a network
over-states membrane; a cubic polynomial, fitted on training images, maps its output to calibrated probabilities. Then a
median filter with a radius of two pixels takes out what is smaller than a membrane.
Contours close gaps in it, see `contours.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from torch import Tensor

from segbench.errors import SegbenchError
from segbench.inference.contours import HELD, contour_map
from segbench.inference.memory import free_bytes
from segbench.inference.windows import Window

DEGREE = 3
_HELD = 5
"""Whole float32 maps that a median filter needs at once: two classes, the filtered one, and two classes again."""


class CubicFit:
    """The cubic polynomial p(x) of least squares from probabilities x of a class to whether a pixel is of it, 0 or 1.

    Pixels are summed up image by image, so that no prediction is kept. Nothing makes p monotone; `rises` says whether
    it is. Over which pixels the paper fits its polynomial, and whether it keeps it monotone, is open: here over every
    labelled one.
    """

    def __init__(self) -> None:
        self._powers = np.zeros(2 * DEGREE + 1)
        self._labelled = np.zeros(DEGREE + 1)

    def add(self, probability_HW: NDArray[np.floating], label_HW: NDArray[np.integer], void: int) -> None:
        """One image.

        Args:
            probability_HW: of the second class.
            label_HW: 0, 1 or void.
            void: the label of pixels that do not count.
        """
        counts = label_HW != void
        x, y = probability_HW[counts].astype(np.float64), label_HW[counts].astype(np.float64)
        power = np.ones_like(x)
        for degree in range(2 * DEGREE + 1):
            self._powers[degree] += power.sum()
            if degree <= DEGREE:
                self._labelled[degree] += (power * y).sum()
            power *= x

    def coefficients(self) -> tuple[float, float, float, float]:
        """a0 to a3 of p(x) = a0 + a1 x + a2 x^2 + a3 x^3.

        Raises:
            SegbenchError: no labelled pixel was added.
        """
        if self._powers[0] == 0:
            raise SegbenchError(
                "calibration=cubic, and no training pixel is labelled",
                "labelled training images",
                "set calibration=null in a training, calibration=none in evaluate and predict",
            )
        places = np.arange(DEGREE + 1)
        normal = self._powers[places[:, None] + places]
        # Of the least norm where the network gives fewer than four values.
        solved = np.linalg.lstsq(normal, self._labelled, rcond=None)[0]
        a0, a1, a2, a3 = map(float, solved)
        return a0, a1, a2, a3


def rises(polynomial: Iterable[float]) -> bool:
    """Whether a polynomial is monotone from 0 to 1, so that the order of probabilities stays."""
    values = np.polynomial.Polynomial([*polynomial])(np.linspace(0, 1, 1001))
    return bool((np.diff(values) >= 0).all())


@dataclass(frozen=True)
class Finishing:
    """The last steps of a prediction; heads are of two classes.

    Attributes:
        polynomials: a0 to a3 by head, that P(second class) goes through, cut at 0 and 1; empty: none.
        radius: of the median filter in pixels, 0 for none: of the pixels whose centres are no farther. At the border
            the image is mirrored.
        sigma: of the contours that are drawn in place of the probabilities, in pixels, 0 for none.
    """

    polynomials: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    radius: int = 0
    sigma: float = 0

    @property
    def across(self) -> str:
        """The settings that look across tiles, so that a window is a whole image; "" if none does."""
        return " ".join(["median="] * bool(self.radius) + ["contours="] * bool(self.sigma))

    def __call__(self, probabilities: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The finished probabilities of a whole image, KHW by head; without a step `across` tiles also of a part."""
        return {head: self._of_head(head, both_KHW) for head, both_KHW in probabilities.items()}

    def _of_head(self, head: str, both_KHW: Tensor) -> Tensor:
        second_HW = both_KHW[1]
        if head in self.polynomials:
            value_HW = torch.zeros_like(second_HW)
            for coefficient in reversed(self.polynomials[head]):
                value_HW = value_HW * second_HW + coefficient
            second_HW = value_HW.clamp(0, 1)
        if self.radius:
            filtered_HW = median_filter(second_HW.cpu().numpy(), footprint=disk(self.radius), mode="mirror")
            second_HW = torch.from_numpy(filtered_HW).to(both_KHW.device)
        if self.sigma:
            second_HW = torch.from_numpy(contour_map(second_HW.cpu().numpy(), self.sigma)).to(both_KHW.device)
        # A network's NaN is neither filtered away nor the inside of a contour.
        second_HW = second_HW.where(~both_KHW[1].isnan(), torch.nan)
        return torch.stack([1 - second_HW, second_HW])

    def windows(self, windows: Iterable[Window], sizes: dict[Any, tuple[int, int]]) -> Iterator[Window]:
        """The finished windows of a stream; with a step `across` tiles each is a whole image.

        Args:
            windows: those of each image cover each pixel once.
            sizes: H and W of the images by their keys; those of finished images are removed.

        Raises:
            SegbenchError: a whole image does not fit into memory.
        """
        whole: dict[Any, dict[str, Tensor]] = {}
        left: dict[Any, int] = {}
        for window in windows:
            if not self.across:
                yield Window(window.key, window.y, window.x, self(window.probabilities))
                continue
            maps, (height, width) = whole.setdefault(window.key, {}), sizes[window.key]
            for head, part_Khw in window.probabilities.items():
                K, h, w = part_Khw.shape
                if head not in maps:
                    _refuse_too_large(height, width, self)
                    maps[head] = part_Khw.new_empty(K, height, width)
                maps[head][:, window.y : window.y + h, window.x : window.x + w] = part_Khw
            left[window.key] = left.get(window.key, height * width) - h * w
            if left[window.key] == 0:
                # The key may hold the image.
                del left[window.key], sizes[window.key]
                yield Window(window.key, 0, 0, self(whole.pop(window.key)))


def disk(radius: int) -> NDArray[np.bool_]:
    """The pixels whose centres are at most `radius` from the middle one: 13 for radius 2."""
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(y**2 + x**2 <= radius**2)


def _refuse_too_large(height: int, width: int, finishing: Finishing) -> None:
    needed = (_HELD + HELD * bool(finishing.sigma)) * 4 * height * width
    if needed > (free := free_bytes()):
        sizes = f"{needed / 2**30:.1f} GiB needed, {free / 2**30:.1f} free"
        raise SegbenchError(
            f"{finishing.across} on {height} x {width} pixels: {sizes}",
            "room for the whole image, since it looks across tiles",
            f"set {' and '.join(key + '0' for key in finishing.across.split())}, or cut the image",
        )
