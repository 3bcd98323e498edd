"""Predicted classes in the values of the user's own masks, and the table that says which value is which class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.spec import DatasetSpec, HeadSpec

_VOID_COLOUR = (224, 224, 192)
"""Of void in PASCAL VOC's masks."""

Palette = tuple[tuple[int, int, int], ...]


class Coder:
    """How masks of a head are written.

    Args:
        head: its classes.
        own: in the values of the user's masks, if the head records them; else indices with the head's palette.

    Attributes:
        dtype: of the values, the smallest that holds them.
        samples: values per pixel, 3 for colours.
        palette: R, G, B by value, of uint8; None for ids and colours.
        void: the value of pixels without data.
    """

    def __init__(self, head: HeadSpec, own: bool) -> None:
        self._head, coding = head, head.coding if own else None
        self.kind = "palette" if coding is None else coding.kind
        self.values = tuple(range(head.num_classes)) if coding is None else coding.values
        self.void = head.ignore_index if coding is None else coding.void
        colours = head.palette if coding is None else tuple(map(_rgb, coding.colours))
        self.samples = 3 if self.kind == "colours" else 1
        self.dtype = np.dtype(np.uint8) if self.samples == 3 else _smallest((*self.values, self.void))
        self.palette = _by_value(self.values, colours, self.void) if self.kind == "palette" else None
        self._codes = np.array([*self.values, self.void])
        if self.samples == 3:
            self._codes = np.array([_rgb(value) for value in self._codes.tolist()])
        self._codes = self._codes.astype(self.dtype)

    @property
    def fits_png(self) -> bool:
        """Whether a PNG can hold the values."""
        return self.dtype in (np.uint8, np.uint16)

    def __call__(self, classes_HW: NDArray[np.uint8], empty_HW: NDArray[np.bool_] | None) -> NDArray[Any]:
        """The values of classes, HW or, for colours, HW3; void where there is no data."""
        if empty_HW is not None:
            classes_HW = np.where(empty_HW, np.uint8(len(self._codes) - 1), classes_HW)
        written: NDArray[Any] = self._codes[classes_HW]
        return written

    def table(self) -> dict[str, Any]:
        """What each value means, as plain containers."""
        return {"values": self.kind, "classes": list(self._rows()), "void": self._said(self.void)}

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {"index": index, "name": name, "value": self._said(value), "colour": list(colour)}
            for index, (name, value, colour) in enumerate(
                zip(self._head.class_names, self.values, self._head.palette, strict=True)
            )
        ]

    def _said(self, value: int) -> int | str:
        return f"#{value:06x}" if self.kind == "colours" else value


def tables(spec: DatasetSpec, own: bool) -> Mapping[str, dict[str, Any]]:
    """The table of each head."""
    return {name: Coder(head, own).table() for name, head in spec.heads.items()}


def _rgb(colour: int) -> tuple[int, int, int]:
    return colour >> 16, colour >> 8 & 255, colour & 255


def _smallest(values: tuple[int, ...]) -> np.dtype[Any]:
    kinds = (np.uint8, np.uint16, np.int16, np.int32, np.uint32, np.int64)
    fits = (kind for kind in kinds if np.iinfo(kind).min <= min(values) and max(values) <= np.iinfo(kind).max)
    return np.dtype(next(fits))


def _by_value(values: tuple[int, ...], colours: Palette, void: int) -> Palette:
    """A colour for every value up to 255, so that no index is without one."""
    by_value = {void: _VOID_COLOUR} | dict(zip(values, colours, strict=True))
    return tuple(by_value.get(value, (0, 0, 0)) for value in range(256))
