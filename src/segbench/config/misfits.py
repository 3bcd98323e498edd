"""What is wrong with a value of a configuration, as an error with three parts."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from segbench.errors import SegbenchError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


def misfit(
    error: ValidationError, tree: Mapping[str, Any], source: str, section: type[BaseModel], command: str
) -> SegbenchError:
    """The first fault that pydantic found.

    Args:
        error: of validating `tree`.
        tree: nested, plain containers.
        source: where it is from.
        section: the model that it was validated as.
        command: prints the values with `--cfg job`.
    """
    faults = [(_key(tree, fault["loc"]), fault) for fault in error.errors(include_url=False)]
    key, first = faults[0]
    if first["type"] == "missing":
        key = ".".join(str(part) for part in first["loc"])
        if source.endswith(".yaml"):
            mend = "give the directory of a training run, as printed at the end of `segbench train`"
            return SegbenchError(f"{source} without {key}", "the configuration of a training run", mend)
        return SegbenchError(f"{source} without {key}", f"a value for {key}", f"add {key}=...")
    if first["type"] == "extra_forbidden":
        *above, last = key.split(".")
        known = _fields(section, above)
        near = difflib.get_close_matches(last, known, n=1)
        return SegbenchError(
            f"{key}, which is not a setting",
            ", ".join(known),
            f"write {'.'.join([*above, *near])}" if near else f"leave {key} out",
        )
    # A choice of types complains once for each of them.
    wanted = dict.fromkeys(fault["msg"].removeprefix("Input should be ") for other, fault in faults if other == key)
    return SegbenchError(
        f"{key}={json.dumps(_value(tree, key), default=str)}",
        " or ".join(wanted),
        f"correct {key}=; `{command} --cfg job` prints the values that it has",
    )


def _key(tree: Any, loc: tuple[int | str, ...]) -> str:
    """The dotted key of a fault: without what pydantic adds for choices of types."""
    parts: list[str] = []
    node = tree
    for part in loc:
        if isinstance(node, Mapping) and part in node:
            node = node[part]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        else:
            continue
        parts.append(str(part))
    return ".".join(parts)


def _value(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[int(part)] if isinstance(tree, list) else tree[part]
    return tree


def _fields(section: type[BaseModel], above: list[str]) -> list[str]:
    from pydantic import BaseModel

    for name in above:
        field = section.model_fields.get(name)
        kinds = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        section = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), section)
    return sorted(section.model_fields)
