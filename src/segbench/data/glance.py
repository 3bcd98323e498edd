"""A look at some training images, from which the augmentation and the size of tiles are chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from segbench.data.raw import RawImage, Source

MOST_IMAGES = 100
"""Images that are looked at, evenly spread."""
_FEWEST = 10
"""Images that show a class before anything is concluded from where it lies."""
_ALWAYS = 0.9
_OFF_CENTRE = 0.1
"""A class has a side if its centre is above (or below) the middle in at least `_ALWAYS` of the images, and by this
share of the height on average: chance and the slices of one block of tissue stay near the middle."""


@dataclass(frozen=True)
class Glance:
    """What some training images show.

    Attributes:
        side: the median of their smaller sides in pixels.
        colour: whether an image has three channels that differ.
        upright: the classes that keep to the upper or the lower half, by number.
    """

    side: int
    colour: bool
    upright: tuple[int, ...]

    @property
    def augmentation(self) -> tuple[str, str]:
        """The packaged augmentation that suits the images, and why."""
        if self.colour:
            return "hflip", "the images are colour photographs"
        if self.upright:
            return "hflip", "the masks have an above and a below"
        return "flips", "the images are grey or of many channels, and no class keeps to the upper or lower half"


def glance(source: Source, head: str) -> Glance:
    """Look at up to `MOST_IMAGES` images of a training split, one at a time.

    Args:
        source: the split, not empty.
        head: of the labels.
    """
    count = min(len(source), MOST_IMAGES)
    sides, colour = [], False
    offsets: dict[int, list[float]] = {}
    for index in np.linspace(0, len(source) - 1, count).round().astype(int).tolist():
        raw = source.read(index)
        sides.append(min(next(iter(raw.images.values())).shape[:2]))
        colour = colour or _has_colour(raw)
        if head in raw.labels:
            for label, offset in _offsets(raw.labels[head]).items():
                offsets.setdefault(label, []).append(offset)
    return Glance(int(median(sides)), colour, tuple(sorted(k for k, each in offsets.items() if _has_side(each))))


def _has_colour(raw: RawImage) -> bool:
    images = [image for image in raw.images.values() if image.ndim == 3 and image.shape[2] == 3]
    return any(bool((image[..., :1] != image[..., 1:]).any()) for image in images)


def _offsets(label_HW: NDArray[np.uint8]) -> Mapping[int, float]:
    """How far below the middle the centre of each label lies, in heights, from -1/2 to 1/2."""
    height = label_HW.shape[0]
    place_H1 = (np.arange(height) + 0.5) / height - 0.5
    rows = np.broadcast_to(place_H1[:, None], label_HW.shape).ravel()
    sums, pixels = np.bincount(label_HW.ravel(), rows), np.bincount(label_HW.ravel())
    return {label: float(sums[label] / pixels[label]) for label in np.flatnonzero(pixels).tolist()}


def _has_side(offsets: list[float]) -> bool:
    below = sum(offset > 0 for offset in offsets) / len(offsets)
    mean = abs(sum(offsets) / len(offsets))
    return len(offsets) >= _FEWEST and max(below, 1 - below) >= _ALWAYS and mean >= _OFF_CENTRE
