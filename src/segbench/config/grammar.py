"""Values as Hydra's grammar of overrides writes them."""

from __future__ import annotations

from typing import Any


def in_hydra(value: Any) -> str:
    """The text that Hydra reads as this value.

    Args:
        value: None, a bool, a number, a string, or lists and dictionaries of them.
    """
    from hydra.core.override_parser.types import Quote, QuotedString

    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case dict():
            return f"{{{','.join(f'{name}:{in_hydra(inner)}' for name, inner in value.items())}}}"
        case list() | tuple():
            return f"[{','.join(map(in_hydra, value))}]"
        case str():
            return str(QuotedString(value, Quote.single).with_quotes())
    return str(value)


def spread(override: str) -> list[str]:
    """An override for each key of a mapping that names a class; any other override as it is.

    `loss={_target_: a.B, c: 1}` is `loss._target_='a.B'` and `loss.c=1`: Hydra merges a mapping key by key anyway.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, _, text = override.partition("=")
    if not text.startswith("{") or "_target_" not in text:
        return [override]
    try:
        parsed = OverridesParser.create().parse_override(override)
        value = None if parsed.is_sweep_override() else parsed.value()
    except HydraException:
        return [override]
    if not isinstance(value, dict) or "_target_" not in value:
        return [override]
    return [f"{key}.{name}={in_hydra(inner)}" for name, inner in value.items()]
