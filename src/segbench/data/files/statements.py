"""What a file states about its pixels beside their values, applied the same way on every path.

Pixels without data, the turn of a photograph (EXIF), and grey or colours with or without transparency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segbench.errors import check, check_one_of
from segbench.spec import Reading


def checked_reading(reading: Reading) -> Reading:
    """The same, with axes in capitals.

    Raises:
        SegbenchError: a value that is none of those that `Reading` names.
    """
    check_one_of("data.exif", reading.exif, ("ignore", "turn"))
    axes = None if reading.axes is None else str(reading.axes).upper()
    if axes is not None:
        once = len(set(axes)) == len(axes) and axes.isalpha() and {"X", "Y"} <= {*axes}
        check("data.axes", reading.axes, once, "different letters, Y and X among them, C for channels", "CYX")
    nodata = reading.nodata
    numeric = nodata is None or (isinstance(nodata, int | float) and not isinstance(nodata, bool))
    check("data.nodata", nodata, numeric, "a number; NaN always means no data", -9999)
    return replace(reading, axes=axes, nodata=None if nodata is None or nodata != nodata else float(nodata))


Nodata = tuple[float, ...]
"""The value without data in each channel; one value stands for every channel."""


@dataclass(frozen=True)
class Decoded:
    """A decoded image, or a part of it.

    Attributes:
        image_HWC: its values, as the file has them.
        empty_HW: true where there is no data; None if there is data everywhere.
        declared: the value that the file itself declares to mean no data, if it does.
    """

    image_HWC: NDArray[Any]
    empty_HW: NDArray[np.bool_] | None = None
    declared: Nodata | None = None

    def filled(self, values: Sequence[float] | NDArray[np.float64]) -> NDArray[Any]:
        """HWC with a value per channel where there is no data, rounded for integers."""
        if self.empty_HW is None:
            return self.image_HWC
        image_HWC, wanted = self.image_HWC.copy(), np.asarray(values, np.float64)
        image_HWC[self.empty_HW] = wanted if image_HWC.dtype.kind == "f" else np.rint(wanted).astype(image_HWC.dtype)
        return image_HWC


def empty_pixels(image_HWC: NDArray[Any], nodata: Sequence[Nodata]) -> NDArray[np.bool_] | None:
    """Where an image has no data.

    Args:
        image_HWC: as stored.
        nodata: values that mean it. In integers a pixel is empty if every channel has the value, as a colour may have a
            channel of 0; in floats if any has it, or is NaN.

    Returns:
        HW, or None if no pixel is empty.
    """
    real = image_HWC.dtype.kind == "f"
    # A sum is finite if every value is, and costs a tenth of looking at each.
    some_nan = real and not np.isfinite(_sum(image_HWC)) and bool(np.isnan(image_HWC).any())
    masks_HW = [np.isnan(image_HWC).any(axis=2)] if some_nan else []
    for values in nodata:
        if (stored := _stored(values, image_HWC.dtype)) is not None:
            same_HWC = image_HWC == stored
            masks_HW.append(same_HWC.any(axis=2) if real else same_HWC.all(axis=2))
    empty_HW = np.logical_or.reduce(masks_HW) if masks_HW else None
    return empty_HW if empty_HW is not None and empty_HW.any() else None


def _sum(image_HWC: NDArray[Any]) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        return float(image_HWC.sum(dtype=np.float64))


def _stored(values: Nodata, dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """The values in the image's type; None if it cannot hold them."""
    given = np.asarray(values, np.float64)
    if dtype.kind != "f":
        limits = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        fits = np.isfinite(given).all() and (given == np.floor(given)).all()
        return given.astype(dtype) if fits and limits[0] <= given.min() and given.max() <= limits[1] else None
    with np.errstate(over="ignore"):
        stored = given.astype(dtype)
    return None if np.isnan(given).any() or (np.isinf(stored) & np.isfinite(given)).any() else stored


# EXIF's eight: whether rows become columns, and then which of rows and columns are reversed.
_TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def turned(image: NDArray[Any], turn: int) -> NDArray[Any]:
    """HW or HWC as a viewer shows it, for an EXIF orientation of 1 to 8."""
    across, rows, columns = _TURNS[turn]
    image = image.swapaxes(0, 1) if across else image
    return image[:: -1 if rows else 1, :: -1 if columns else 1]


def turned_size(height: int, width: int, turn: int) -> tuple[int, int]:
    """H and W after `turned`."""
    return (width, height) if _TURNS[turn][0] else (height, width)


def window_before(turn: int, window: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The part of the stored image that becomes a part of the turned one.

    Args:
        turn: EXIF orientation.
        window: y0, y1, x0, x1 in the turned image.
        size: H and W of the turned image.
    """
    across, rows, columns = _TURNS[turn]
    y0, y1, x0, x1 = window
    y0, y1 = (size[0] - y1, size[0] - y0) if rows else (y0, y1)
    x0, x1 = (size[1] - x1, size[1] - x0) if columns else (x0, x1)
    return (x0, x1, y0, y1) if across else (y0, y1, x0, x1)


def channels_as(reading: Reading, channels: int, alpha: bool) -> int:
    """C after `in_channels`."""
    if reading.channels is None or not kind_of(channels, alpha):
        return channels
    return 1 if reading.channels == "grey" else 3


def kind_of(channels: int, alpha: bool) -> str:
    """`grey`, `grey with alpha`, `RGB` or `RGBA`; empty for channels that are no colours."""
    return {(1, False): "grey", (2, True): "grey with alpha", (3, False): "RGB", (4, True): "RGBA"}.get(
        (channels, alpha), ""
    )


def in_channels(image_HWC: NDArray[Any], reading: Reading, alpha: bool) -> NDArray[Any]:
    """Grey, grey with alpha, RGB and RGBA in the channels that a run reads; other numbers of channels stay.

    Args:
        image_HWC: as stored.
        reading: `grey` weighs R, G, B by 0.299, 0.587, 0.114 (BT.601): equal channels keep their value. Alpha is
            dropped.
        alpha: whether the last of two or four channels is transparency.
    """
    channels = image_HWC.shape[2]
    wanted = channels_as(reading, channels, alpha)
    if reading.channels is None or wanted == channels or not kind_of(channels, alpha):
        return image_HWC
    if wanted == 3:
        return image_HWC[..., :3] if channels == 4 else np.repeat(image_HWC[..., :1], 3, axis=2)
    return image_HWC[..., :1] if channels == 2 else _grey(image_HWC[..., :3])


def _grey(rgb_HW3: NDArray[Any]) -> NDArray[Any]:
    if rgb_HW3.dtype in (np.uint8, np.uint16):
        grey_HW: NDArray[Any] = np.asarray(cv2.cvtColor(np.ascontiguousarray(rgb_HW3), cv2.COLOR_RGB2GRAY))
        return grey_HW[..., None]
    red, green, blue = (rgb_HW3[..., [channel]].astype(np.float64) for channel in range(3))
    grey_HW1 = red + 0.587 * (green - red) + 0.114 * (blue - red)
    return (grey_HW1 if rgb_HW3.dtype.kind == "f" else np.rint(grey_HW1)).astype(rgb_HW3.dtype)
