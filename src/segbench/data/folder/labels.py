"""Masks to labels: the class and name of each code, and the pixels of a mask by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segbench.data.files.masks import Kind, Mask
from segbench.data.folder.facts import MaskFacts
from segbench.errors import SegbenchError
from segbench.spec import VOID, MaskCoding

Coding = Literal["ids", "colours"]

_COLOUR_NAMES = {
    0x000000: "black",
    0xFFFFFF: "white",
    0xFF0000: "red",
    0x00FF00: "green",
    0x0000FF: "blue",
    0xFFFF00: "yellow",
    0xFF00FF: "magenta",
    0x00FFFF: "cyan",
}


@dataclass(frozen=True)
class Classes:
    """How the codes of masks become classes.

    Attributes:
        coding: whether classes are values (also palette indices) or colours.
        names: K names; the index is the label.
        palette: K colours, RGB.
        labels: the class of each code, or `VOID`.
        written: how masks of these classes are written.
        rest: the class of every other code, or None.
        kept: codes that are classes also where a file declares them as no data.
        notes: what the user should check, a sentence each.
    """

    coding: Coding
    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    labels: Mapping[int, int]
    written: MaskCoding
    rest: int | None = None
    kept: frozenset[int] = frozenset()
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __call__(self, mask: Mask, name: str) -> NDArray[np.uint8]:
        """HW uint8 labels of a mask.

        Raises:
            SegbenchError: a code that no mask had when the folder was scanned.
        """
        codes_HW = mask.codes_HW
        if self.coding == "colours" and mask.kind != "colours":
            colours = mask.palette if mask.kind == "palette" else tuple(v * 0x010101 for v in range(256))
            small = np.array([self._class_of(colour) for colour in colours] + [-1] * (256 - len(colours)), np.int16)
            label_HW = small[codes_HW]
        elif self.coding == "colours" or codes_HW.dtype in (np.uint8, np.uint16):
            size = 2**24 if self.coding == "colours" else np.iinfo(codes_HW.dtype).max + 1
            label_HW = self._table(size)[codes_HW]
        else:
            known, labels = self._sorted
            places = np.searchsorted(known, codes_HW).clip(max=len(known) - 1)
            label_HW = np.where(known[places] == codes_HW, labels[places], -1 if self.rest is None else self.rest)
        void = is_void(mask.nodata, mask.kind, self.coding, self.kept)
        lacking_HW = codes_HW == mask.nodata if void else None
        if (label_HW if lacking_HW is None else label_HW[~lacking_HW]).min(initial=0) < 0:
            raise SegbenchError(
                f"the mask of {name} has values that no mask had when the folder was scanned",
                f"one of the {len(self.labels)} values found then",
                "do not change masks during a run; start it again",
            )
        bytes_HW: NDArray[np.uint8] = label_HW.astype(np.uint8)
        if lacking_HW is not None:
            bytes_HW[lacking_HW] = VOID
        return bytes_HW

    def _class_of(self, code: int) -> int:
        return self.labels.get(code, -1 if self.rest is None else self.rest)

    def _table(self, size: int) -> NDArray[np.int16]:
        tables = self._tables
        if size not in tables:
            tables[size] = np.full(size, -1 if self.rest is None else self.rest, np.int16)
            inside = [(code, label) for code, label in self.labels.items() if 0 <= code < size]
            tables[size][[code for code, _ in inside]] = [label for _, label in inside]
        return tables[size]

    @cached_property
    def _tables(self) -> dict[int, NDArray[np.int16]]:
        return {}

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
        known = sorted(self.labels)
        return np.array(known, np.int64), np.array([self.labels[code] for code in known], np.int16)

    def count(self, facts: MaskFacts) -> NDArray[np.int64]:
        """K + 1 counts of pixels, of each class and last of void."""
        pixels = np.zeros(len(self.names) + 1, np.int64)
        for code, count in codes_of(facts, self.coding, self.kept):
            label = self._class_of(code)
            pixels[-1 if label == VOID else label] += count
        pixels[-1] += lacking(facts, self.coding, self.kept)
        return pixels


def is_void(nodata: int | None, kind: Kind, coding: Coding, kept: Collection[int]) -> bool:
    """Whether what a file declares as no data is void there: no class has been given its code."""
    if nodata is None:
        return False
    return (nodata * 0x010101 if coding == "colours" and kind == "ids" else nodata) not in kept


def lacking(facts: MaskFacts, coding: Coding, kept: Collection[int] = ()) -> int:
    """Pixels that a page declares as no data and that are void."""
    if facts.nodata not in facts.codes or not is_void(facts.nodata, facts.kind, coding, kept):
        return 0
    return facts.pixels[facts.codes.index(facts.nodata)]


def codes_of(facts: MaskFacts, coding: Coding, kept: Collection[int] = ()) -> Iterator[tuple[int, int]]:
    """Each code of a page with its pixels; as colours, a palette's index is looked up and a value v is (v, v, v).

    Args:
        facts: of the page.
        coding: of the classes.
        kept: as in `Classes`; any other code that the page declares as no data is left out.
    """
    shown: Iterable[tuple[int, int]] = zip(facts.codes, facts.pixels, strict=True)
    if facts.nodata is not None and is_void(facts.nodata, facts.kind, coding, kept):
        shown = [(code, count) for code, count in shown if code != facts.nodata]
    if coding == "ids" or facts.kind == "colours":
        yield from shown
        return
    colours = dict(zip(facts.codes, facts.colours, strict=True)) if facts.kind == "palette" else None
    counts: Counter[int] = Counter()
    for code, count in shown:
        counts[code * 0x010101 if colours is None else colours[code]] += count
    yield from counts.items()


def say(code: int, coding: Coding) -> str:
    """A code as a class name: the value; the colour's name or #rrggbb."""
    return str(code) if coding == "ids" else _COLOUR_NAMES.get(code, f"#{code:06x}")
