"""What a scan records of each page of images and masks, and what follows from it without reading the files again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, TypeVar, get_type_hints

import numpy as np
from pydantic import AfterValidator, Field, FiniteFloat

from segbench.data.files.masks import Kind

MOST_CODES = 2**16
"""Codes recorded per page. A photograph has more; the instance ids of a large section are fewer."""

FEW_CODES = 32
"""Pages with fewer codes count as masks, however often they change from pixel to pixel."""

COUNTED = ("bool", "uint8", "uint16")
"""Types whose sums are exact integers here; others are summed in float64."""


_Size = Annotated[int, Field(ge=1)]
_Count = Annotated[int, Field(ge=0)]
_Number = int | FiniteFloat


def _dtype(name: str) -> str:
    # Of numpy's own errors some are none of a value.
    if name not in _DTYPES:
        raise ValueError(f"no type of numbers: {name}")
    return name


_DTYPES = {np.dtype(letter).name for letter in "?" + np.typecodes["AllInteger"] + np.typecodes["Float"]}


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An image of a file.

    Attributes:
        height: H.
        width: W.
        dtype: of the values in the file.
        sums: two numbers per channel over the pixels with data: for bool, uint8 and uint16 the sums of the values and
            of their squares, as integers; for other types the mean and the sum of squared deviations from it.
        empty: pixels without data.
        turn: the orientation that viewers apply, EXIF's 1 to 8.
        kind: `grey`, `grey with alpha`, `RGB` or `RGBA`, as stored; empty for channels that are no colours.
    """

    height: _Size
    width: _Size
    dtype: Annotated[str, AfterValidator(_dtype)]
    sums: Annotated[tuple[tuple[_Number, _Number], ...], Field(min_length=1)]
    empty: _Count = 0
    turn: Annotated[int, Field(ge=1, le=8)] = 1
    kind: str = ""

    @property
    def channels(self) -> int:
        """C."""
        return len(self.sums)

    @property
    def filled(self) -> int:
        """Pixels with data."""
        return self.height * self.width - self.empty

    @property
    def is_grey(self) -> bool:
        """Whether its colours have equal sums, as those of a grey picture have."""
        return len(set(self.sums[: 3 if self.channels >= 3 else 1])) == 1


@dataclass(frozen=True, slots=True)
class MaskFacts:
    """A mask of a file.

    Attributes:
        height: H.
        width: W.
        kind: how it is coded, as `Mask.kind`.
        distinct: how many codes it has.
        runs: of equal pixels, if it has more than `FEW_CODES`; else 0.
        codes: in ascending order; empty if there are more than `MOST_CODES`.
        pixels: of each code.
        colours: of a palette PNG the colour of each code, 0xRRGGBB; else empty.
        nodata: the code that means no data, if the file declares one.
    """

    height: _Size
    width: _Size
    kind: Kind
    distinct: _Count
    runs: _Count
    codes: tuple[int, ...]
    pixels: tuple[_Count, ...]
    colours: tuple[int, ...]
    nodata: int | None = None


@dataclass(frozen=True, slots=True)
class LabelFacts:
    """The classes of a mask of a file.

    Attributes:
        pixels: of each class, and last of void.
    """

    pixels: tuple[_Count, ...]


Facts = TypeVar("Facts", ImageFacts, MaskFacts, LabelFacts)


def row_of(kind: type[Facts]) -> Any:
    """The type of facts as a tuple in the order of their attributes, as a cache keeps them."""

    def possible(row: tuple[Any, ...]) -> tuple[Any, ...]:
        if not _is_possible(kind(*row)):
            raise ValueError("numbers that no image has")
        return row

    hints = get_type_hints(kind, include_extras=True).values()
    return Annotated[tuple[*hints], AfterValidator(possible)]  # type: ignore[valid-type]


def _is_possible(facts: ImageFacts | MaskFacts | LabelFacts) -> bool:
    if isinstance(facts, ImageFacts):
        # No sum of squares is below what equal values would have; deviations are squared already.
        whole = facts.dtype in COUNTED
        return facts.filled >= 0 and all(
            second * facts.filled >= first**2 if whole else second >= 0 for first, second in facts.sums
        )
    if isinstance(facts, MaskFacts):
        fits = len(facts.pixels) == len(facts.codes) and len(facts.colours) in (0, len(facts.codes))
        return fits and sum(facts.pixels) <= facts.height * facts.width
    return True


def mean_and_std(pages: Sequence[ImageFacts]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of all pixels of some images, by channel.

    Sums are rational numbers, so the result does not depend on the order of the images and is rounded only once.

    Args:
        pages: all of one type and number of channels, at least one with data.

    Returns:
        C means and C deviations (of the population: divided by the number of pixels) of the pixels with data.
    """
    pages = [page for page in pages if page.filled]
    whole = pages[0].dtype in COUNTED
    moments = [_moments([(p.filled, *p.sums[c]) for p in pages], whole) for c in range(pages[0].channels)]
    return tuple(mean for mean, _ in moments), tuple(std for _, std in moments)


def _moments(sums: Sequence[tuple[int, float, float]], whole: bool) -> tuple[float, float]:
    count = sum(pixels for pixels, _, _ in sums)
    total = squares = Fraction(0)
    if whole:
        total += sum(int(first) for _, first, _ in sums)
        squares += sum(int(second) for _, _, second in sums)
    for pixels, first, second in () if whole else sums:
        mean = Fraction(first)
        total += pixels * mean
        squares += Fraction(second) + pixels * mean * mean
    return float(total / count), math.sqrt((squares - total * total / count) / count)


def by_page(pages: Mapping[str, Sequence[Facts]]) -> list[tuple[str, int, Facts]]:
    """Every page with its file's name and its number there."""
    return [(name, number, facts) for name, each in pages.items() for number, facts in enumerate(each)]


def unit_of(dtype: str) -> str:
    """The unit of values of this type, with its range if it has one: `value, 0 to 65535`."""
    if dtype == "bool":
        return "value, 0 or 1"
    if np.issubdtype(np.dtype(dtype), np.integer):
        limits = np.iinfo(dtype)
        return f"value, {limits.min} to {limits.max}"
    return f"value, {dtype}"
