"""zarr arrays and OME-Zarr as images that are read part by part; requires the extra `segbench[zarr]`."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.data.files.zarr_chunks import checked_chunks, limit_chunks
from segbench.errors import SegbenchError, not_installed, reading
from segbench.runtime.limits import refuse_bomb

_MARKS = ("zarr.json", ".zarray", ".zgroup")
_CHANNEL = ("c", "channel", "channels", "band", "bands")


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr array or group."""
    return path.is_dir() and any((path / mark).is_file() for mark in _MARKS)


def fields_of(path: Path) -> list[Path]:
    """The fields of a plate of OME-Zarr (HCS), well by well, each an image; none for any other folder.

    Raises:
        SegbenchError: a well or its fields are missing.
    """
    fields = []
    with reading(path, "a plate of OME-Zarr", "a whole plate", "copy it again"):
        plate = _metadata(path).get("plate")
        for well in plate.get("wells", []) if isinstance(plate, dict) else []:
            inside = path / str(well["path"])
            images = _metadata(inside).get("well", {}).get("images", [])
            if not images:
                raise SegbenchError(
                    f"{path} lists the well {well['path']}, and {inside} has no field", "a whole plate", "copy it again"
                )
            fields += [inside / str(image["path"]) for image in images]
    return fields


def _metadata(group: Path) -> dict[str, Any]:
    """OME's metadata of a group, of both versions of zarr; empty if there is none."""
    for name in (".zattrs", "zarr.json"):
        with contextlib.suppress(OSError, ValueError, RecursionError):
            content = json.loads((group / name).read_text())
            attributes = content.get("attributes", {}) if name == "zarr.json" else content
            return dict(attributes.get("ome") or attributes)
    return {}


def import_zarr() -> Any:
    """The library; a `SegbenchError` if it is not installed or older than version 3."""
    try:
        import zarr
    except ImportError as error:
        raise not_installed("zarr", "zarr") from error
    if int(zarr.__version__.split(".")[0]) < 3:
        raise SegbenchError(f"zarr {zarr.__version__}", "zarr 3", "pip install 'segbench[zarr]'")
    return zarr


class ZarrImages:
    """The images of a zarr array, or of the largest level of an OME-Zarr group.

    The axes y, x and channels are read from the dimension names or OME's metadata. An unnamed array is HW, HWC, CHW,
    NHW, NHWC or NCHW: an axis of length `channels` after or before the pixels, in this order, is the channels. All
    other axes enumerate images.

    Args:
        path: the folder.
        channels: the expected C, to identify the axes of an unnamed array; None: 1.
        axes: as `Reading.axes`, for an unnamed array.

    Raises:
        SegbenchError: zarr is not installed, the folder is damaged, or its axes cannot be identified.
    """

    def __init__(self, path: Path, channels: int | None = None, axes: str | None = None) -> None:
        zarr = import_zarr()
        self.path = path
        self.placement: dict[str, Any] = {}
        with self._reading(), checked_chunks():
            found = zarr.open(str(path), mode="r")
            self._array, names = _level(found, zarr)
            fits = axes is not None and len(axes) == len(self._array.shape)
            unnamed = list(axes.lower()) if axes is not None and fits else _guessed(self._array.shape, channels or 1)
            self._axes = _axes(names or unnamed, self._array.shape, path)
            self._others = [place for place, axis in enumerate(self._axes) if axis == "n"]
            needed = math.prod(self._array.shape) * self.dtype(0).itemsize
            refuse_bomb(path, needed, partial(_stored, path), in_parts=True)
            chunk = getattr(self._array, "shards", None) or self._array.chunks
            refuse_bomb(path, math.prod(chunk) * self.dtype(0).itemsize, partial(_stored, path))
            limit_chunks(self._array)
            self._nodata = self._declared()

    def __len__(self) -> int:
        return math.prod(self._array.shape[place] for place in self._others)

    def close(self) -> None:
        """No-op, as no file is open."""

    def shape(self, index: int) -> tuple[int, int, int]:
        """H, W and C of an image."""
        height, width = (self._array.shape[self._axes.index(axis)] for axis in "yx")
        return height, width, self._array.shape[self._axes.index("c")] if "c" in self._axes else 1

    def dtype(self, index: int) -> np.dtype[Any]:
        """The type of an image's values."""
        dtype: np.dtype[Any] = np.dtype(self._array.dtype)
        return dtype

    def nodata(self, index: int) -> tuple[float, ...] | None:
        """The value of the attribute `_FillValue`, as in CF's conventions, or `nodata`."""
        return self._nodata

    def _declared(self) -> tuple[float, ...] | None:
        found = (dict(self._array.attrs).get(key) for key in ("_FillValue", "nodata"))
        value = next((value for value in found if isinstance(value, int | float)), None)
        return None if value is None else (float(value),)

    def alpha(self, index: int) -> bool:
        """False: an array has no transparency."""
        return False

    def turn(self, index: int) -> int:
        """1: an array has no orientation."""
        return 1

    def read(self, index: int, y0: int = 0, y1: int | None = None, x0: int = 0, x1: int | None = None) -> NDArray[Any]:
        """Rows y0 to y1 and columns x0 to x1 (exclusive) of an image, HWC."""
        places = iter(np.unravel_index(index, [self._array.shape[place] for place in self._others] or [1]))
        selection = {"y": slice(y0, y1), "x": slice(x0, x1), "c": slice(None)}
        chosen = tuple(selection[axis] if axis in selection else int(next(places)) for axis in self._axes)
        with self._reading():
            height, width, channels = self.shape(index)
            pixels = len(range(height)[y0:y1]) * len(range(width)[x0:x1]) * channels
            refuse_bomb(self.path, pixels * self.dtype(index).itemsize, partial(_stored, self.path))
            part = np.asarray(self._array[chosen])
        kept = [axis for axis in self._axes if axis != "n"]
        if "c" not in kept:
            kept, part = [*kept, "c"], part[..., np.newaxis]
        return np.ascontiguousarray(part.transpose([kept.index(axis) for axis in "yxc"]))

    def _reading(self) -> contextlib.AbstractContextManager[None]:
        return reading(self.path, "zarr", "a whole zarr array or OME-Zarr image", "copy it again")


def _stored(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _level(found: Any, zarr: Any) -> tuple[Any, Sequence[str] | None]:
    """The array of pixels and its axes' names, if it has any."""
    if not isinstance(found, zarr.Group):
        named = found.attrs.get("_ARRAY_DIMENSIONS") or getattr(found.metadata, "dimension_names", None)
        return found, named if named and all(named) else None
    # Version 0.5 of the format puts its metadata under a separate key.
    images = (dict(found.attrs).get("ome") or dict(found.attrs)).get("multiscales")
    if not images:
        raise ValueError(f"a group of {', '.join(sorted(found.keys())[:6]) or 'nothing'} without OME's metadata")
    axes = [axis["name"] if isinstance(axis, dict) else axis for axis in images[0].get("axes") or []]
    return found[images[0]["datasets"][0]["path"]], axes or None


def _guessed(shape: tuple[int, ...], channels: int) -> list[str]:
    for axes, place in ((["y", "x", "c"], -1), (["c", "y", "x"], -3)):
        if len(shape) in (3, 4) and shape[place] == channels and (channels > 1 or place == -1):
            return ["n"] * (len(shape) - 3) + axes
    return ["n"] * (len(shape) - 2) + ["y", "x"]


def _axes(names: Sequence[str], shape: tuple[int, ...], path: Path) -> list[str]:
    short = ["c" if name.lower() in _CHANNEL else name.lower() for name in names]
    if len(short) != len(shape) or short.count("y") != 1 or short.count("x") != 1 or short.count("c") > 1:
        raise SegbenchError(
            f"{path} is of shape {tuple(shape)} with axes {', '.join(names) or 'unnamed'}",
            "axes y and x, at most one c, and others that enumerate images",
            "name the array's dimensions, or write it as height x width (x channels)",
        )
    return [axis if axis in ("y", "x", "c") else "n" for axis in short]
