"""Predictions of an image at one or several other scales, averaged at its own size.

As DeepLab tests (Chen et al., arXiv:1706.05587, section 4.1): each scale also mirrored, see `symmetries`. Images are
resized bilinearly with half-pixel centres and without a low-pass filter; so are the probabilities, back to the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segbench.errors import SegbenchError, check
from segbench.inference.memory import free_bytes
from segbench.inference.windows import ReadableImage, Window

MULTISCALE = "multiscale"
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""DeepLab's."""
_FLOAT = 4


def scales_of(tta: str, scales: Sequence[float] | None) -> tuple[float, ...]:
    """The scales that are averaged over; empty unless `tta` is `multiscale`.

    Args:
        tta: as in `symmetries`.
        scales: positive factors of both sides; None: `SCALES`.

    Raises:
        SegbenchError: no scale, or one that is not a positive number.
    """
    if tta != MULTISCALE:
        return ()
    chosen = SCALES if scales is None else tuple(map(float, scales))
    good = bool(chosen) and all(math.isfinite(scale) and scale > 0 for scale in chosen)
    check("tta_scales", list(chosen), good, "at least one positive number", list(SCALES))
    return chosen


def resized_by(tta: str, scales: Sequence[float] | None, input_scale: float | None) -> tuple[float, ...]:
    """The scales that a network sees an image at; empty if only at its own.

    Args:
        tta: as in `symmetries`.
        scales: as in `scales_of`.
        input_scale: a factor of them all, or the only scale where `tta` has none; None: 1.

    Raises:
        SegbenchError: as `scales_of`, or an `input_scale` that is not a positive number.
    """
    chosen = scales_of(tta, scales)
    if input_scale is None:
        return chosen
    check("input_scale", input_scale, math.isfinite(input_scale) and input_scale > 0, "a positive number", 1)
    return tuple(scale * input_scale for scale in chosen or (() if input_scale == 1 else (1.0,)))


@dataclass(frozen=True)
class _Scaled:
    """The key of an image at one scale.

    Attributes:
        key: of the image.
        full: its H and W.
        size: those at the scale.
        first: whether it is the image's first scale.
        count: how many scales there are; 0 on all but the last.
    """

    key: Any
    full: tuple[int, int]
    size: tuple[int, int]
    first: bool
    count: int


def at_scales(images: Iterable[ReadableImage], scales: Sequence[float]) -> Iterator[ReadableImage]:
    """Each image at each scale, in their order; sides are rounded half up, to at least one pixel.

    An image is read whole, and kept until its last scale is read.

    Args:
        images: taken one by one when needed.
        scales: positive factors.

    Raises:
        SegbenchError: an image that main memory cannot hold, with its largest copy.
    """
    for image in images:
        height, width = image.size
        if min(image.size) < 1:
            # Refused where it is cut.
            yield image
            continue
        sizes = [(max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))) for scale in scales]
        channels = sum(len(part_CHW) for part_CHW in image.read(0, 1, 0, 1).values())
        largest = max(h * w for h, w in sizes)
        _refuse_too_large(channels * _FLOAT * (height * width + largest), image.size, "reading it")
        whole = {name: torch.as_tensor(part_CHW) for name, part_CHW in image.read(0, height, 0, width).items()}
        for place, size in enumerate(sizes):
            count = len(sizes) if place + 1 == len(sizes) else 0
            key = _Scaled(image.key, image.size, size, place == 0, count)
            yield ReadableImage(key, size, _reader({name: _resized(part, size) for name, part in whole.items()}))


def averaged(windows: Iterable[Window]) -> Iterator[Window]:
    """The windows of images `at_scales` as one window an image: the mean over the scales, of the image's size.

    Raises:
        SegbenchError: maps that main memory cannot hold.
    """
    mean = _Mean()
    for window in windows:
        if (done := mean.added(window)) is not None:
            yield done


class _Mean:
    """The sum over the scales of an image so far, and the map of the present one; KHW float32 by head."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._maps: dict[str, Tensor] = {}
        self._left = 0

    @torch.no_grad()
    def added(self, window: Window) -> Window | None:
        """The mean, once the window is an image's last."""
        scaled: _Scaled = window.key
        if not self._maps:
            self._begin(scaled, window)
        for head, part_Khw in window.probabilities.items():
            h, w = part_Khw.shape[-2:]
            self._maps[head][:, window.y : window.y + h, window.x : window.x + w] = part_Khw
        self._left -= h * w
        if self._left:
            return None
        for head, map_Khw in self._maps.items():
            own_KHW = _resized(map_Khw, scaled.full)
            self._sums[head] = own_KHW if scaled.first else self._sums[head].add_(own_KHW)
        self._maps = {}
        if not scaled.count:
            return None
        sums, self._sums = self._sums, {}
        return Window(scaled.key, 0, 0, {head: sum_KHW.div_(scaled.count) for head, sum_KHW in sums.items()})

    def _begin(self, scaled: _Scaled, window: Window) -> None:
        height, width = scaled.size
        self._left = height * width
        parts = list(window.probabilities.values())
        if parts[0].device.type == "cpu":
            # The map, its resized copy and, until the first is added, the sum.
            copies = scaled.full[0] * scaled.full[1] * (2 if scaled.first else 1)
            classes = sum(len(part_Khw) for part_Khw in parts)
            _refuse_too_large(classes * _FLOAT * (height * width + copies), scaled.full, "its probabilities")
        self._maps = {
            head: part_Khw.new_empty(len(part_Khw), height, width) for head, part_Khw in window.probabilities.items()
        }


def _resized(image_CHW: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(image_CHW.shape[-2:]) == size:
        return image_CHW
    resized: Tensor = interpolate(image_CHW[None], size=size, mode="bilinear", align_corners=False)[0]
    return resized


def _reader(pixels: Mapping[str, Tensor]) -> Callable[[int, int, int, int], Mapping[str, Tensor]]:
    def read(y0: int, y1: int, x0: int, x1: int) -> Mapping[str, Tensor]:
        return {name: image_CHW[:, y0:y1, x0:x1] for name, image_CHW in pixels.items()}

    return read


def _refuse_too_large(needed: float, size: tuple[int, int], what: str) -> None:
    if needed > (free := free_bytes()):
        raise SegbenchError(
            f"an image of {size[0]} x {size[1]} pixels at other scales: {what} takes {needed / 2**30:.1f} GiB, "
            f"{free / 2**30:.1f} are free",
            "room for the whole image, since probabilities are resized to its own size",
            "set smaller tta_scales= and input_scale=, or tta=none and input_scale=1, which predict it part by part",
        )
