"""Pickles of torch, judged before they are read: what a few bytes of them can make of memory and time."""

from __future__ import annotations

import pickle
import pickletools
from dataclasses import dataclass
from typing import IO, Any

STEPS = 2**21
"""Opcodes in one pickle; a tensor with its name takes about 30."""
UNFOLDED = 2**22
"""Values that are copied, hashed or walked, where what is named twice counts twice; a tensor makes about 40."""
DEPTH = 100
"""Containers inside one another: what walks them recurses."""
_PLAIN = {"NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1", "GLOBAL"}
_TEXT = {"BINUNICODE", "SHORT_BINSTRING"}
_EMPTY = {"EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"}
_FILLS = {"APPEND": 1, "SETITEM": 2, "BUILD": 1}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(slots=True)
class _Value:
    """What stands for a value: its size with all that is inside, and whether something holds it."""

    size: int = 1
    depth: int = 0
    held: bool = False

    def take(self, items: list[_Value]) -> _Value:
        """Put items inside.

        Raises:
            pickle.UnpicklingError: something holds this value, which would then change its size, or it holds itself.
        """
        if self.held or any(item is self for item in items):
            raise pickle.UnpicklingError("a container in it is filled after another holds it, or holds itself")
        for item in items:
            item.held = True
            self.size += item.size
            self.depth = max(self.depth, item.depth + 1)
        if self.depth > DEPTH:
            raise pickle.UnpicklingError(f"containers in it are {self.depth} deep, of {DEPTH} that are read")
        return self


def refuse_unfolding(file: IO[bytes]) -> None:
    """Refuse a pickle that takes far more than its bytes, without making what it describes.

    Tuples that hold one another twice take exponential time to hash, and calls copy what is stored once as often as
    they please.

    Args:
        file: at the start of a pickle; left at its end.

    Raises:
        pickle.UnpicklingError: it has more than `STEPS` opcodes, `UNFOLDED` values or `DEPTH` levels, a container that
            holds itself, or an opcode that torch's reader of weights does not know.
        ValueError: it is damaged.
    """
    judge = _Judge()
    for step, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if step == STEPS:
            raise pickle.UnpicklingError(f"it has more than {STEPS:,} steps")
        try:
            judge.step(opcode.name, argument)
        except (IndexError, KeyError) as error:
            raise pickle.UnpicklingError(f"{opcode.name} takes what is not there") from error


class _Judge:
    """Torch's unpickler with sizes in place of values."""

    def __init__(self) -> None:
        self.stack: list[_Value] = []
        self.outer: list[list[_Value]] = []
        self.memo: dict[int, _Value] = {}
        self.work = 0

    def step(self, name: str, argument: Any) -> None:
        """One opcode, which genops has read."""
        if name in _PLAIN or name in _EMPTY:
            self.stack.append(_Value())
        elif name in _TEXT:
            self.stack.append(_Value(1 + len(argument) // 64))
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MARK":
            self.outer.append(self.stack)
            self.stack = []
        elif name in _TUPLES or name == "TUPLE":
            items = self._pop(_TUPLES[name]) if name in _TUPLES else self._since_mark()
            self.stack.append(_Value().take(items))
        elif name in ("APPENDS", "SETITEMS"):
            items = self._since_mark()
            self._fill(items, keys=items[::2] if name == "SETITEMS" else [])
        elif name in _FILLS:
            items = self._pop(_FILLS[name])
            self._fill(items, keys=items[:1] if name != "APPEND" else [])
        elif name in ("REDUCE", "NEWOBJ"):
            _, arguments = self._pop(2)
            self._do(arguments)
            self.stack.append(_Value().take([arguments]))
        elif name == "BINPERSID":
            self._do(*self._pop(1))
            self.stack.append(_Value())
        elif name == "STOP":
            self._do(*self._pop(1))
        elif name != "PROTO":
            raise pickle.UnpicklingError(f"{name} is no opcode of weights")

    def _fill(self, items: list[_Value], keys: list[_Value]) -> None:
        self._do(*keys)
        self.stack[-1].take(items)

    def _do(self, *values: _Value) -> None:
        self.work += sum(value.size for value in values)
        if self.work > UNFOLDED:
            raise pickle.UnpicklingError(f"it unfolds to more than {UNFOLDED:,} values")

    def _pop(self, count: int) -> list[_Value]:
        if len(self.stack) < count:
            raise IndexError(count)
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _since_mark(self) -> list[_Value]:
        items, self.stack = self.stack, self.outer.pop()
        return items
