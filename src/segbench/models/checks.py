"""Refuse an argument of a network, naming its config key and a value that works."""

from __future__ import annotations

from segbench.errors import SegbenchError


def check(key: str, value: object, good: bool, expected: str, instead: object) -> None:
    """Refuse an argument.

    Args:
        key: its name, as in `model.KEY`; words after the first are shown but are no part of the key.
        value: what was given.
        good: whether it is accepted.
        expected: what is.
        instead: a value that is.

    Raises:
        SegbenchError: it is not good.
    """
    if not good:
        raise SegbenchError(f"model.{key}={value}", expected, f"set model.{key.split()[0]}={instead}")


def check_one_of(key: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse an argument that is not one of `known`, whose first is recommended."""
    check(key, value, value in known, " or ".join(known), known[0])
