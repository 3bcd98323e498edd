"""Values of a sweep's keys in the syntax of Hydra's overrides: every combination, and keys whose values go together."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from segbench.errors import SegbenchError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

Zip = tuple[tuple[str, ...], ...]
"""Groups of keys whose values go together."""
_ZIP = "hydra.sweeper.zip"


def read_zip(given: Any) -> Zip:
    """The groups of keys that `hydra.sweeper.zip` names: one list of keys, or several lists.

    Raises:
        SegbenchError: neither, fewer than two keys in a group, or a key that is named twice.
    """
    if not given:
        return ()
    groups = given if isinstance(given, Sequence) and all(_is_list(group) for group in given) else [given]
    keys = [key for group in groups if _is_list(group) for key in group]
    if not all(_is_list(group) for group in groups) or not all(isinstance(key, str) for key in keys):
        raise _wrong(given, "a list of keys, or several lists")
    if any(len(group) < 2 for group in groups) or len(set(keys)) < len(keys):
        raise _wrong(given, "at least two keys in a list, each named once")
    return tuple(tuple(group) for group in groups)


def _is_list(value: Any) -> bool:
    # OmegaConf's lists are sequences, not lists.
    return isinstance(value, Sequence) and not isinstance(value, str)


def _wrong(given: Any, expected: str) -> SegbenchError:
    return SegbenchError(f"{_ZIP}={given}", expected, f"correct it, e.g. '{_ZIP}=[optimizer.lr,data.batch_size]'")


def parsed(parser: Any, params: Mapping[str, Any] | None, arguments: Sequence[str]) -> list[Override]:
    """The overrides of a sweep: those that its config keeps, and the command line's, which replace them.

    Args:
        parser: Hydra's, of overrides.
        params: `hydra.sweeper.params`.
        arguments: of the command line.
    """
    given = parser.parse_overrides(list(arguments))
    keys = {override.get_key_element() for override in given}
    kept = parser.parse_overrides([f"{key}={value}" for key, value in (params or {}).items() if key not in keys])
    # The last one of a key holds.
    return list({override.get_key_element(): override for override in [*kept, *given]}.values())


def zipped(overrides: Iterable[Override], group: Sequence[str]) -> list[list[str]]:
    """The steps of keys that go together, each the overrides of all of them.

    Args:
        overrides: of a sweep.
        group: the keys.

    Raises:
        SegbenchError: one of them has no list of values, or their lists differ in length.
    """
    swept = {_plain(override): override for override in overrides if override.is_sweep_override()}
    without = [key for key in group if key not in swept or not swept[key].is_discrete_sweep()]
    if without:
        raise SegbenchError(
            f"{_ZIP} with {', '.join(without)}, which {'has' if len(without) == 1 else 'have'} no list of values",
            "keys given as KEY=A,B, choice or range",
            f"add {without[0]}=A,B, or take it out of {_ZIP}",
        )
    values = {key: _values(swept[key]) for key in group}
    if len({len(each) for each in values.values()}) > 1:
        counts = ", ".join(f"{key} has {len(each)}" for key, each in values.items())
        raise SegbenchError(
            f"{_ZIP} of lists of different lengths: {counts}",
            "as many values of each key, the first with the first",
            f"give each the same number, or take one out of {_ZIP}, to combine it with all",
        )
    return [list(step) for step in zip(*values.values(), strict=True)]


def combinations(overrides: Sequence[Override], groups: Zip = ()) -> list[list[str]]:
    """The overrides of each job of a grid, the last key changing fastest; keys that go together count as one.

    Args:
        overrides: each key once.
        groups: keys that go together.

    Raises:
        SegbenchError: a key whose values cannot be listed, or as in `zipped`.
    """
    steps = {key: zipped(overrides, group) if key == group[0] else None for group in groups for key in group}
    axes: list[list[list[str]]] = []
    for override in overrides:
        together = steps.get(_plain(override), []) if override.is_sweep_override() else []
        if together:
            axes.append(together)
        elif together is not None:
            axes.append([[each] for each in _values(override)])
    return [list(itertools.chain(*chosen)) for chosen in itertools.product(*axes)]


def _plain(override: Override) -> str:
    return str(override.get_key_element()).lstrip("+~")


def _values(override: Override) -> list[str]:
    """An override for each value."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        raise SegbenchError(
            f"{override.input_line} in a grid",
            "values in a list: A,B, choice or range",
            "list the values; hydra/sweeper=optuna searches an interval",
        )
    return [f"{key}={value}" for value in override.sweep_string_iterator()]
