"""Check the values of a config against the signatures of their targets, before anything is built."""

from __future__ import annotations

import difflib
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from segbench.config.instances import located
from segbench.config.trust import is_trusted
from segbench.errors import SegbenchError

_TOP: Mapping[str, Any] = {"seed": int, "tile": int | None, "tta": str, "median": int | None, "contours": float | None}
"""Keys at the top of a config that no target takes."""
_LEFT_TO_THE_MACHINE = ("trainer.precision", "trainer.sync_batchnorm", "trainer.benchmark", "data.num_workers")
"""Settings that may be `auto`, until `segbench.runtime.hardware` has looked at the machine."""


def refuse_misfits(config: Mapping[str, Any], takers: Mapping[str, Any] | None = None) -> None:
    """Refuse values of the wrong type, and keys that nothing takes: a word for a number, a misspelt name.

    Targets that are not trusted are left to `segbench.config.instances`, which refuses them.

    Args:
        config: resolved, plain containers.
        takers: what takes a key in place of the target that stands beside it, by dotted key.

    Raises:
        SegbenchError: names the key, the value and what its taker expects.
    """
    for key, hint in _TOP.items():
        if key in config:
            _refuse(key, config[key], hint)
    for above, node in _targets(config):
        _refuse_of(above, node, takers or {})


def _targets(node: Any, above: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(node, Mapping):
        if "_target_" in node and is_trusted(str(node["_target_"])):
            yield above, node
        for key, value in node.items():
            yield from _targets(value, f"{above}.{key}" if above else str(key))
    elif isinstance(node, (list, tuple)):
        for number, value in enumerate(node):
            yield from _targets(value, f"{above}.{number}")


def _refuse_of(above: str, node: Mapping[str, Any], takers: Mapping[str, Any]) -> None:
    own = located(str(node["_target_"]), above)
    unknown: dict[str, list[str]] = {}
    for name, value in node.items():
        key = f"{above}.{name}"
        taker = takers.get(key, own)
        # A nested config is an object when it is passed.
        if str(name).startswith("_") or _holds_config(value):
            continue
        hints, takes_any = hints_of(taker)
        if name in hints:
            if value != "auto" or key not in _LEFT_TO_THE_MACHINE:
                _refuse(key, value, hints[name])
        elif not takes_any:
            unknown[str(name)] = list(hints)
    if unknown:
        name, known = next(iter(unknown.items()))
        near = difflib.get_close_matches(name, known, n=1)
        raise SegbenchError(
            f"{', '.join(f'{above}.{each}' for each in unknown)}, which {node['_target_']} does not take",
            ", ".join(sorted(known)),
            f"write {above}.{near[0]}" if near else f"leave out {' '.join(f'~{above}.{each}' for each in unknown)}",
        )


@cache
def hints_of(taker: Any) -> tuple[dict[str, Any], bool]:
    """Each parameter with its type, Any if unknown; and whether any other name is taken too."""
    if getattr(getattr(taker, "__init__", None), "__module__", "") == "torch.nn.modules.module":
        # A network or loss without a constructor: torch's takes anything, and refuses it.
        return {}, False
    try:
        parameters = inspect.signature(taker).parameters.values()
    except (ValueError, TypeError):
        # Some builtins have none.
        return {}, True
    names = vars(sys.modules[taker.__module__]) if taker.__module__ in sys.modules else {}
    hints = {}
    for parameter in parameters:
        # One by one: a name that only a type checker imports spoils its own parameter's hint alone.
        alone = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
        try:
            hints[parameter.name] = get_type_hints(alone, names)[parameter.name]
        except Exception:
            # Whatever evaluating an annotation of others may raise.
            hints[parameter.name] = Any
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    starred = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    hints = {each.name: hints[each.name] for each in parameters if each.kind not in starred}
    return {name: Any if hint is inspect.Parameter.empty else hint for name, hint in hints.items()}, takes_any


def _refuse(key: str, value: Any, hint: Any) -> None:
    checks = checker(hint)
    if checks is None:
        return
    try:
        # JSON's rules: an integer is a number, a list is a tuple, a word is a path, but never a number.
        checks.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        wrong = error.errors(include_url=False)
        places = {".".join(str(part) for part in fault["loc"] if isinstance(part, int)) for fault in wrong}
        inside = f", at {min(places - {''})}" if places - {""} else ""
        # A choice of types complains once for each of them.
        wanted = dict.fromkeys(fault["msg"].removeprefix("Input should be ") for fault in wrong)
        raise SegbenchError(
            f"{key}={json.dumps(value)}{inside}",
            " or ".join(wanted),
            f"correct {key}=; with --cfg job the command prints the values that it has",
        ) from None


def taken(taker: Any, **offered: Any) -> dict[str, Any]:
    """Those of the offered arguments that a class or function takes by name."""
    hints, _ = hints_of(taker)
    return {name: value for name, value in offered.items() if name in hints}


def _holds_config(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(_holds_config(part) for part in value.values())
    return isinstance(value, (list, tuple)) and any(_holds_config(part) for part in value)


@cache
def checker(hint: Any) -> TypeAdapter[Any] | None:
    """What checks a value against a type; None if any value may become one."""
    if "torch.Tensor" in str(hint):
        # A list of numbers becomes one.
        return None
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except (PydanticSchemaGenerationError, PydanticUserError):
        return None
