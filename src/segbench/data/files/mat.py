"""MATLAB files of version 4 and 5 to 7, checked byte by byte before scipy reads them: a damaged one ends its process.

Layout: "MAT-File Format" of MathWorks. Plain arrays, cells, structures and sparse matrices (SBD's boundaries) are
admitted; objects and functions are not, as no labels are kept in them.
"""

from __future__ import annotations

import io
import itertools
import math
import struct
import zlib
from pathlib import Path
from typing import Any

from segbench.errors import SegbenchError
from segbench.runtime.limits import FREE, refuse_bomb

_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}
"""Bytes of a number by the type of its element; the last three are text."""
_CELL, _STRUCT, _CHAR, _SPARSE, _NUMBERS = 1, 2, 4, 5, range(6, 16)
_COMPLEX = 0x0800
_DEEPEST = 32
_HEADER = 128
_RATIO = 64
"""Bytes in memory for a stored one in a variable of over `FREE` bytes."""
_WIDTHS_4 = (8, 4, 4, 2, 2, 1)
"""Of version 4, by the digit P of its header."""


def load(content: bytes, path: Path, variable: str) -> dict[str, Any]:
    """What scipy reads of a variable; without its name if there is none.

    Args:
        content: of the file.
        path: of it, for errors.
        variable: its name.

    Raises:
        SegbenchError: it needs more memory than it may take, or is of version 7.3.
        ValueError: it is damaged, or of another version; whatever else scipy raises, too.
    """
    from scipy.io import loadmat

    checked = _checked_4(content) if 0 in content[:4] else _checked_5(content, path)
    found: dict[str, Any] = loadmat(io.BytesIO(checked), variable_names=[variable])
    return found


def _checked_4(content: bytes) -> bytes:
    at = 0
    while at < len(content):
        order = "<" if 0 <= struct.unpack_from("<i", content, at)[0] < 5000 else ">"
        kind, rows, columns, imaginary, name = struct.unpack_from(f"{order}5i", content, at)
        machine, width, text = kind // 1000, kind // 10 % 10, kind % 10
        if machine != (order == ">") or kind // 100 % 10 or width > 5 or text > 1 or imaginary not in (0, 1):
            raise ValueError(f"no plain matrix at byte {at}")
        size = rows * columns * _WIDTHS_4[width] * (1 + imaginary)
        if rows < 0 or columns < 0 or name < 1 or name + size > len(content) - at - 20:
            raise ValueError(f"a matrix of {rows} x {columns} at byte {at} ends beyond the file")
        at += 20 + name + size
    return content


def _checked_5(content: bytes, path: Path) -> bytes:
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if content.startswith(b"MATLAB 7.3"):
        raise SegbenchError(f"{path} is of version 7.3, which is HDF5", "version 4 to 7", "save it in MATLAB with -v7")
    if order is None or struct.unpack_from(f"{order}H", content, 124)[0] != 0x0100:
        raise ValueError("not of a version from 4 to 7")
    elements, at, packed = [content[:_HEADER]], _HEADER, len(content) - _HEADER
    while at < len(content):
        kind, size = struct.unpack_from(f"{order}II", content, at)
        element = content[at : at + 8 + size]
        if len(element) < 8 + size:
            raise ValueError(f"a variable at byte {at} ends beyond the file")
        at += 8 + size
        if kind == _COMPRESSED:
            inflating = zlib.decompressobj()
            element = inflating.decompress(element[8:], FREE)
            if inflating.unconsumed_tail:
                refuse_bomb(path, FREE + 1, packed, _RATIO)
                element += inflating.decompress(inflating.unconsumed_tail)
        elements.append(element)
    for element in elements[1:]:
        _Elements(element, order).matrix(0)
    return b"".join(elements)


class _Elements:
    """The elements within a variable, one after another.

    Args:
        content: they fill it.
        order: of the bytes, `<` or `>`.
    """

    def __init__(self, content: bytes, order: str) -> None:
        self._content, self._order, self._at = content, order, 0

    def _next(self) -> tuple[int, bytes]:
        """The type and the bytes of the next element."""
        first, size = struct.unpack_from(f"{self._order}II", self._content, self._at)
        start = self._at + 8
        if first >> 16:
            # Up to four bytes stand in the tag itself.
            first, size, start = first & 0xFFFF, first >> 16, self._at + 4
            if size > 4:
                raise ValueError(f"a small element of {size} bytes")
            end = start + 4
        else:
            # All but matrices are padded to eight bytes.
            end = start + (size if first == _MATRIX else size + -size % 8)
        if start + size > len(self._content):
            raise ValueError(f"an element of {size} bytes where {len(self._content) - start} are left")
        self._at = end
        return first, self._content[start : start + size]

    def _numbers(self, kind: int, letter: str, least: int, most: int) -> tuple[int, ...]:
        found, content = self._next()
        count, rest = divmod(len(content), 4)
        if found != kind or rest or not least <= count <= most:
            raise ValueError("no flags, dimensions or lengths where they belong")
        return struct.unpack(f"{self._order}{count}{letter}", content)

    def matrix(self, depth: int) -> None:
        """Check the next element, a matrix, and all within it."""
        kind, content = self._next()
        if kind != _MATRIX or depth > _DEEPEST:
            raise ValueError(f"an element of type {kind} where a matrix belongs, or matrices nested too deep")
        if content:
            _Elements(content, self._order)._array(depth)
        elif not depth:
            raise ValueError("an empty variable")

    def _array(self, depth: int) -> None:
        flags, _ = self._numbers(_UINT32, "I", 2, 2)
        sizes = self._numbers(_INT32, "i", 2, 32)
        name, _ = self._next()
        count, kind = math.prod(sizes), flags & 0xFF
        if min(sizes) < 0 or name != _INT8:
            raise ValueError(f"an array of {' x '.join(map(str, sizes))}")
        if kind in (_CELL, _STRUCT):
            fields = self._fields() if kind == _STRUCT else 1
            # Each element within has a tag at least.
            if count * fields * 8 > len(self._content) - self._at:
                raise ValueError(f"{count * fields} elements that its bytes cannot hold")
            for _ in range(count * fields):
                self.matrix(depth + 1)
        elif kind == _SPARSE:
            count = self._sparse(sizes)
            for _ in range(2 if flags & _COMPLEX else 1):
                self._values(count, text=False)
        elif kind == _CHAR or kind in _NUMBERS:
            for _ in range(2 if flags & _COMPLEX else 1):
                self._values(count, kind == _CHAR)
        else:
            raise ValueError(f"an array of class {kind}, neither numbers, text, cells nor a structure")

    def _sparse(self, sizes: tuple[int, ...]) -> int:
        """The number of values of a sparse matrix, whose places lie within its columns."""
        left = len(self._content)
        rows = self._numbers(_INT32, "i", 0, left)
        starts = self._numbers(_INT32, "i", 1, left)
        if len(sizes) != 2 or len(starts) != sizes[1] + 1 or starts[0] != 0 or starts[-1] > len(rows):
            raise ValueError("a sparse matrix without the starts of its columns")
        used = rows[: starts[-1]]
        if any(a > b for a, b in itertools.pairwise(starts)) or any(not 0 <= row < sizes[0] for row in used):
            raise ValueError("a sparse matrix with places outside")
        return len(rows)

    def _fields(self) -> int:
        (length,) = self._numbers(_INT32, "i", 1, 1)
        kind, names = self._next()
        if kind != _INT8 or length < 1 or len(names) % length:
            raise ValueError("a structure without names of its fields")
        return len(names) // length

    def _values(self, count: int, text: bool) -> None:
        kind, content = self._next()
        width = _WIDTHS.get(kind)
        # Text in UTF-8 has characters of several bytes.
        if width is None or len(content) % width or (len(content) // width != count and not (text and kind == 16)):
            raise ValueError(f"{len(content)} bytes of type {kind} for {count} values")
