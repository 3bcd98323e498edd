"""Predicted classes drawn over their image."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.spec import DatasetSpec, HeadSpec


class Brush:
    """Draws the classes of one head over an image, window by window in the same colours and grey levels.

    A class is tinted and outlined in its palette colour. Black classes, which mean background, are not drawn. Grey and
    white ones, invisible on a grey image, get other hues.

    Args:
        head: classes and colours.
        opacity: of the tint, 0 to 1; outlines are opaque.
    """

    def __init__(self, head: HeadSpec, opacity: float) -> None:
        colours = [_visible(colour, index) for index, colour in enumerate(head.palette)]
        self._colours = np.array([colour or (0, 0, 0) for colour in colours], np.float32)
        self._shown = np.array([colour is not None for colour in colours])
        self._opacity = np.float32(opacity)

    def draw(self, picture_HW3: NDArray[np.uint8], classes_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Tint and outline.

        Args:
            picture_HW3: RGB.
            classes_HW: class ids.

        Returns:
            RGB uint8.
        """
        shown_HW1 = self._shown[classes_HW][..., None]
        colour_HW3 = self._colours[classes_HW]
        share_HW1 = np.where(_outline(classes_HW)[..., None], np.float32(1), self._opacity) * shown_HW1
        mixed_HW3 = picture_HW3 + (colour_HW3 - picture_HW3) * share_HW1
        drawn: NDArray[np.uint8] = np.rint(mixed_HW3).astype(np.uint8)
        return drawn


def _visible(colour: tuple[int, int, int], index: int) -> tuple[int, int, int] | None:
    if max(colour) == 0:
        return None
    if max(colour) - min(colour) > 8:
        return colour
    # Steps of the golden angle from orange, which colour-blind readers too see on grey.
    red, green, blue = colorsys.hsv_to_rgb((0.08 + (index - 1) * 0.618034) % 1, 1.0, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def _outline(classes_HW: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The pixels on both sides of where two classes meet."""
    edge_HW = np.zeros(classes_HW.shape, bool)
    down, right = classes_HW[1:] != classes_HW[:-1], classes_HW[:, 1:] != classes_HW[:, :-1]
    edge_HW[1:] |= down
    edge_HW[:-1] |= down
    edge_HW[:, 1:] |= right
    edge_HW[:, :-1] |= right
    return edge_HW


def backdrop(spec: DatasetSpec) -> str:
    """The modality to draw on: the first with three channels, else the first."""
    three = [name for name, modality in spec.modalities.items() if modality.channels == 3]
    return three[0] if three else next(iter(spec.modalities))


def grey_range(sample: NDArray[Any]) -> tuple[float, float] | None:
    """The values drawn as black and white: percentiles 1 and 99; None for 8-bit images, drawn unchanged."""
    if sample.dtype == np.uint8:
        return None
    low, high = np.percentile(sample, (1, 99))
    return float(low), max(float(high), float(low) + 1e-6)


def as_picture(part: NDArray[Any], levels: tuple[float, float] | None) -> NDArray[np.uint8]:
    """HW or HWC in any unit as RGB: its first three channels, or its first in grey.

    Args:
        part: of the image.
        levels: `grey_range` of the image.
    """
    part_HWC = part[..., None] if part.ndim == 2 else part
    channels = part_HWC[..., :3] if part_HWC.shape[2] >= 3 else np.repeat(part_HWC[..., :1], 3, axis=2)
    if levels is None:
        return channels.astype(np.uint8)
    scaled = (channels.astype(np.float32) - levels[0]) * np.float32(255 / (levels[1] - levels[0]))
    picture: NDArray[np.uint8] = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    return picture
