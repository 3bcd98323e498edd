"""The values of a file in the unit of the training images; another scale is refused, never guessed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.data.files.statements import Decoded
from segbench.data.nyudv2 import log_depth
from segbench.errors import SegbenchError
from segbench.spec import ModalitySpec

LOG_DEPTH = "ln(millimetres)"
COLOURS = "R, G, B"
"""Prefix of units that data sets read as colours: grey in three equal channels, no alpha."""

_SPLIT_BY_OPENCV = (np.uint8, np.uint16, np.int16, np.float32)


def check_kind(path: Path, channels: int, dtype: np.dtype[Any], name: str, spec: ModalitySpec, pages: int = 1) -> None:
    """Refuse an image of another kind, from its header.

    Args:
        path: the file.
        channels: C of the image.
        dtype: of its values.
        name: the modality.
        spec: of the modality.
        pages: images in the file.

    Raises:
        SegbenchError: wrong channels or type.
    """
    if spec.unit == LOG_DEPTH:
        if channels != 1 or dtype != np.dtype(np.uint16):
            raise SegbenchError(
                f"{path} has {channels} channels of {dtype}",
                f"one 16-bit channel, depth in millimetres ({name})",
                "use depth files like those of the data set, not renderings",
            )
        return
    given = (spec.channels, *((1, 4) if _is_colour(spec) else ()))
    if channels not in given:
        pages_are_channels = channels == 1 and pages == spec.channels
        raise SegbenchError(
            f"{path} has {pages} pages of one channel" if pages_are_channels else f"{path} has {channels} channels",
            f"{spec.channels} ({name}, {spec.unit})",
            "if the pages are channels, add data.axes=CYX" if pages_are_channels else "convert it first",
        )
    if dtype.kind not in "buif" or not _fits(dtype, spec):
        raise SegbenchError(
            f"{path} holds values of type {dtype}",
            f"{spec.unit}, as the network was trained",
            "convert the image to the type and scale of the training images",
        )


def check_range(path: Path, part: Decoded, spec: ModalitySpec, whole: bool = True) -> None:
    """Refuse values that are impossible in the modality's unit.

    Args:
        path: the file, for messages.
        part: all of an image, or a part of it; pixels without data may hold anything.
        spec: of the modality.
        whole: whether the part can tell fractions from 0 to 1 from a dark image.

    Raises:
        SegbenchError: infinite values, values beyond the unit's range, or fractions instead of levels.
    """
    limits, dtype = _limits(spec), part.image_HWC.dtype
    if dtype.kind != "f" and (limits is None or _within(dtype, limits)):
        return
    values = part.image_HWC if part.empty_HW is None else part.image_HWC[~part.empty_HW]
    if not values.size:
        return
    low, high = values.min(), values.max()
    within = bool(np.isfinite(low) and np.isfinite(high)) and (limits is None or _inside(low, high, limits))
    fractions = limits is not None and limits[1] > 1 and whole and dtype.kind == "f" and 0 < high <= 1
    if within and not fractions:
        return
    scale = (
        "" if limits is None else f"; multiply it by {limits[1]}" if fractions else f" to {limits[0]} to {limits[1]}"
    )
    raise SegbenchError(
        f"{path} holds values from {low:g} to {high:g} ({dtype})",
        f"{spec.unit}, as the network was trained",
        f"rescale the image first{scale}" if limits != (0, 255) or fractions else "rescale the image to 8 bits first",
    )


def filled(part: Decoded, spec: ModalitySpec) -> NDArray[Any]:
    """HWC with the modality's mean where there is no data, in the unit of the file."""
    if part.empty_HW is None:
        return part.image_HWC
    mean = np.exp(spec.mean) if spec.unit == LOG_DEPTH else np.array(spec.mean)
    channels = part.image_HWC.shape[2]
    return part.filled(mean if channels == spec.channels else np.full(channels, mean.mean()))


def in_unit(part_HWC: NDArray[Any], spec: ModalitySpec) -> NDArray[Any]:
    """A part of an image as data sets give it, HW or HWC.

    Args:
        part_HWC: values of the file, accepted by `check_kind`.
        spec: of the modality.
    """
    if spec.unit == LOG_DEPTH:
        return log_depth(part_HWC[..., 0])
    if part_HWC.dtype not in _SPLIT_BY_OPENCV:
        part_HWC = part_HWC.astype(np.float32)
    if _is_colour(spec) and part_HWC.shape[2] != spec.channels:
        part_HWC = np.repeat(part_HWC, 3, axis=2) if part_HWC.shape[2] == 1 else part_HWC[..., :3]
    return part_HWC[..., 0] if part_HWC.shape[2] == 1 else np.ascontiguousarray(part_HWC)


def _is_colour(spec: ModalitySpec) -> bool:
    return spec.unit.startswith(COLOURS) and spec.channels == 3


def _limits(spec: ModalitySpec) -> tuple[int, int] | None:
    """The range of a unit such as `grey level, 0 to 255` or `value, 0 or 1`; None if it has none."""
    named = re.search(r"(-?\d+) (?:to|or) (\d+)$", spec.unit)
    return (int(named[1]), int(named[2])) if named else None


def _fits(dtype: np.dtype[Any], spec: ModalitySpec) -> bool:
    """Whether a type can hold the unit's values: no coarser than those of the training images."""
    limits = _limits(spec)
    if limits is None:
        return dtype.kind == "f" or not re.search(r"\bfloat\d+$", spec.unit)
    if dtype.kind == "f" or limits == (0, 1):
        return True
    return dtype.kind != "b" and np.iinfo(dtype).bits >= np.min_scalar_type(limits[1]).itemsize * 8


def _within(dtype: np.dtype[Any], limits: tuple[int, int]) -> bool:
    """Whether every value of an integer type is in range."""
    least, most = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return _inside(least, most, limits)


def _inside(low: Any, high: Any, limits: tuple[int, int]) -> bool:
    return bool(low >= limits[0] and high <= limits[1])
