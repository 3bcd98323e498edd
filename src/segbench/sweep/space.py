"""Search spaces in the syntax of Hydra's overrides."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from segbench.errors import SegbenchError, not_installed
from segbench.sweep.grid import Zip, zipped

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Space:
    """The searched keys and the fixed overrides.

    Attributes:
        distributions: by key, as written left of `=`.
        fixed: overrides that every trial shares.
        texts: the searched overrides as given, by key.
        together: the overrides of each choice of keys that go together, by the joined names of these keys.
    """

    distributions: dict[str, BaseDistribution]
    fixed: list[str]
    texts: dict[str, str]
    together: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def overrides(self, params: dict[str, Any]) -> list[str]:
        """The overrides of a trial.

        Args:
            params: the proposed values, by key.
        """
        # A choice keeps Hydra's quotes.
        chosen = (
            self.together[key][value] if key in self.together else [f"{key}={value}"] for key, value in params.items()
        )
        return [*self.fixed, *itertools.chain(*chosen)]


def check_optuna() -> None:
    """Check that Optuna can be imported.

    Raises:
        SegbenchError: it cannot.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise not_installed("Optuna", "search") from error


def search_space(overrides: Sequence[Override], groups: Zip = ()) -> Space:
    """Read the search space from overrides.

    `interval(1e-4, 1e-1)` and `int(interval(1, 8))` include both ends, `range(2, 5)` excludes the second one;
    `choice(a, b)` and `a,b` list values; `tag(log, ...)` searches an interval or a range on a logarithmic scale.

    Args:
        overrides: each key once.
        groups: keys whose listed values go together: one choice among the steps.

    Raises:
        SegbenchError: Optuna is not installed, nothing is searched, or an interval or a group is invalid.
    """
    check_optuna()
    from optuna.distributions import CategoricalDistribution

    distributions: dict[str, BaseDistribution] = {}
    fixed, texts, together = list[str](), dict[str, str](), dict[str, dict[str, list[str]]]()
    for group in groups:
        name = ", ".join(group)
        together[name] = {", ".join(each.partition("=")[2] for each in step): step for step in zipped(overrides, group)}
        distributions[name] = CategoricalDistribution(list(together[name]))
    joined = {key for group in groups for key in group}
    for override in overrides:
        key = override.get_key_element()
        if override.is_sweep_override():
            texts[key] = str(override.input_line)
            if key.lstrip("+~") not in joined:
                distributions[key] = _distribution(override)
        else:
            fixed.append(f"{key}={override.get_value_element_as_str()}")
    if not distributions:
        raise SegbenchError(
            "a search with no parameters to search",
            "keys given as interval(), range() or choice()",
            'add e.g. optimizer.lr="tag(log, interval(1e-4, 1e-1))"',
        )
    return Space(distributions, fixed, texts, together)


def _distribution(override: Override) -> BaseDistribution:
    from hydra.core.override_parser.types import IntervalSweep, RangeSweep
    from optuna.distributions import CategoricalDistribution

    given = override.value()
    tags = set(getattr(given, "tags", None) or ())
    if tags - {"log"} or (tags and not isinstance(given, (IntervalSweep, RangeSweep))):
        raise _wrong(override, f"tag {', '.join(sorted(tags))}", "tag(log, ...) around an interval or a range")
    make: dict[type, Callable[[Override, Any, bool], BaseDistribution]] = {IntervalSweep: _interval, RangeSweep: _range}
    if type(given) in make:
        return make[type(given)](override, given, bool(tags))
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def _interval(override: Override, given: Any, log: bool) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution

    low, high = given.start, given.end
    if low > high or (log and low <= 0):
        raise _wrong(override, f"from {low} to {high}", "the smaller bound first, above 0 on a logarithmic scale")
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


def _range(override: Override, given: Any, log: bool) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution

    count = len(list(override.sweep_string_iterator()))
    step = abs(given.step)
    if not count or (log and step != 1):
        raise _wrong(override, f"{count} values, step {given.step}", "some values, with step 1 on a logarithmic scale")
    ends = sorted((given.start, given.start + (count - 1) * given.step))
    if log and ends[0] <= 0:
        raise _wrong(override, f"from {ends[0]}", "values above 0 on a logarithmic scale")
    if isinstance(given.start, int) and isinstance(step, int):
        return IntDistribution(ends[0], ends[1], step=step, log=log)
    return FloatDistribution(ends[0], ends[1], step=step)


def _wrong(override: Override, found: str, expected: str) -> SegbenchError:
    return SegbenchError(f"{override.input_line}: {found}", expected, f"correct {override.get_key_element()}=")
