"""JSON schemas of config files, for editors: from the signatures of the classes that they name and from the record.

One schema for each kind of file: `config` for whole configs and experiments, one for each axis and each further
command. They are written in draft 7, which editors of YAML read.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema

from segbench.config.instances import located
from segbench.config.own_targets import APART, AXES, TRAINER
from segbench.config.packaged import read_yaml
from segbench.config.record import Data, Loss, Scheduler, Section, Trainer
from segbench.config.requests import RECORDS
from segbench.config.signatures import checker, hints_of
from segbench.config.trust import is_trusted, targets_in, trusting

Schema = dict[str, Any]
DRAFT = "http://json-schema.org/draft-07/schema#"
CONFIG = "config"
"""The schema of whole configs, of experiments and of other files with `# @package _global_`."""
NAMED = ("callbacks", "logger", "metrics")
"""Axes that are mappings of components by name; null leaves one out."""
_SECTIONS: Mapping[str, type[Section]] = {"data": Data, "loss": Loss, "scheduler": Scheduler, "trainer": Trainer}
_OFFERED = ("self", "module", "params", "optimizer")
"""Arguments that a run gives itself."""
_CATALOGUE: Mapping[str, tuple[str, str]] = {
    "optimizer": ("torch.optim", ""),
    "scheduler": ("torch.optim.lr_scheduler", ""),
    "loss": ("torch.nn", "Loss"),
    "callbacks": ("lightning.pytorch.callbacks", ""),
    "logger": ("lightning.pytorch.loggers", ""),
    "trainer": ("lightning.pytorch.profilers", ""),
    "augment": ("albumentations", ""),
    "metrics": ("torchmetrics.classification", ""),
}
"""Where an axis's classes of installed packages stand, and how their names end."""
_OPEN = {"$ref": "#/$defs/open"}
_ANY = {"$ref": "#/$defs/any"}
"""Any value; objects by their class are checked wherever they stand in it."""
_DEFS: Schema = {
    "component": {"type": "object", "required": ["_target_"], "properties": {"_target_": {"type": "string"}}},
    "open": {
        "description": "an interpolation, ??? for a value that is to be given, or an object by its class",
        "anyOf": [
            {"type": "string", "pattern": r"^\?\?\?$|\$\{"},
            {"$ref": "#/$defs/component"},
            {"type": "object", "minProperties": 1, "additionalProperties": {"$ref": "#/$defs/component"}},
            {"type": "array", "contains": {"$ref": "#/$defs/component"}},
        ],
    },
    "any": {
        "allOf": [
            {"if": {"type": "object", "required": ["_target_"]}, "then": {"$ref": "#/$defs/component"}},
            {"if": {"type": "object"}, "then": {"additionalProperties": {"$ref": "#/$defs/any"}}},
            {"if": {"type": "array"}, "then": {"items": {"$ref": "#/$defs/any"}}},
        ]
    },
    "defaults": {"type": "array", "items": {"type": ["string", "object"]}},
}


def schemas(roots: Sequence[Path]) -> dict[str, Schema]:
    """Schemas by name: `config`, the axes, and the configs of the further commands.

    Args:
        roots: config directories; classes that they name are trusted here, and known.

    Raises:
        SegbenchError: a config names a class that cannot be imported.
    """
    by_axis = {axis: list(dict.fromkeys(_named_in(axis, roots))) for axis in AXES}
    with trusting(target for targets in by_axis.values() for target in targets):
        axes = {axis: _axis(axis, targets, _catalogue(axis)) for axis, targets in by_axis.items()}
    made = {axis: _file({**schema}) for axis, schema in axes.items()}
    for verb, record in RECORDS.items():
        made[CONFIG if verb == "train" else verb] = _file(_of_record(record, axes))
    return {name: _titled(name, schema) for name, schema in made.items()}


def _titled(name: str, schema: Schema) -> Schema:
    return {
        "$schema": DRAFT,
        "title": f"segbench: {name}",
        **_draft_7(schema),
        "$defs": _draft_7(schema.get("$defs", {})),
    }


def _named_in(axis: str, roots: Iterable[Path]) -> Iterator[str]:
    """The targets that options of an axis name, and whole configs beside them."""
    for root in roots:
        for path in sorted(root.rglob("*.yaml")):
            group = path.relative_to(root).parts[0]
            if group in (axis, "experiment", "debug") and isinstance(tree := read_yaml(path), Mapping):
                yield from targets_in(tree if group == axis else tree.get(axis))


def _catalogue(axis: str) -> list[str]:
    if axis not in _CATALOGUE:
        return []
    name, ending = _CATALOGUE[axis]
    found = [f"{name}.{each}" for each in sorted(vars(_module(name))) if each[:1] != "_" and each.endswith(ending)]
    return [target for target in found if is_trusted(target) and not inspect.isabstract(located(target))]


def _module(name: str) -> ModuleType:
    import importlib

    return importlib.import_module(name)


def _file(schema: Schema) -> Schema:
    """A schema as a file of its own: an object inside another is checked by the classes of the axes in it."""
    defs = schema.get("$defs", {})
    known = [{"$ref": f"#/$defs/{name}"} for name in defs if name.startswith("known_")]
    component = {**_DEFS["component"], **({"allOf": known} if known else {})}
    return {**schema, "$defs": {**_DEFS, **defs, "component": component}}


def _axis(axis: str, targets: Sequence[str], further: Sequence[str]) -> Schema:
    """What an option of an axis may hold.

    Args:
        axis: the axis.
        targets: the classes that configs name.
        further: others that are known.
    """
    node, defs = _component(axis, targets, further)
    defs[axis] = node
    one: Schema = {"$ref": f"#/$defs/{axis}"}
    if axis in NAMED:
        several = {"anyOf": [one, {"type": "null"}, _OPEN]}
        one = {"type": "object", "properties": {"defaults": _DEFS["defaults"]}, "additionalProperties": several}
    elif axis == "loss":
        # One for all heads, or one each.
        by_head = {"type": "object", "properties": {"defaults": _DEFS["defaults"]}, "additionalProperties": one}
        one = {"if": {"$ref": "#/$defs/by_head"}, "then": by_head, "else": one}
        heads = {"type": "object", "required": ["_target_"]}
        defs["by_head"] = {
            "type": "object",
            "not": {"required": ["_target_"]},
            "minProperties": 1,
            "properties": {"defaults": True, "weight_map": False, "terms": False},
            "additionalProperties": heads,
        }
    return {**one, "$defs": defs}


def _component(axis: str, targets: Sequence[str], further: Sequence[str]) -> tuple[Schema, Schema]:
    """A node of an axis: what the class that it names takes, or what any of the configs' takes if it names none."""
    defs: Schema = {}
    names = list(dict.fromkeys([*targets, *further]))
    common: Schema = {"_target_": {"type": "string", "examples": names}, "defaults": _DEFS["defaults"]}
    common |= {key: True for key in APART.get(axis, ())} | _of_section(axis, defs)
    cases, any_of, closed = [], dict[str, list[Any]](), True
    for target in names:
        taken = _of_target(axis, target, defs)
        if taken is None:
            # It takes any name, or its signature is unknown.
            closed = closed and target not in targets
            continue
        then = {"properties": {**taken, **common}, "additionalProperties": False}
        cases.append({"if": {"required": ["_target_"], "properties": {"_target_": {"const": target}}}, "then": then})
        for key, value in taken.items() if target in targets else ():
            if value not in any_of.setdefault(key, []):
                any_of[key].append(value)
    union = {key: values[0] if len(values) == 1 else {"anyOf": values} for key, values in any_of.items()}
    without = {"properties": {**union, **common}, "additionalProperties": not closed}
    defs[f"known_{axis}"] = {"allOf": cases}
    node = {"allOf": [{"$ref": f"#/$defs/known_{axis}"}], "if": {"not": {"required": ["_target_"]}}, "then": without}
    return {"type": "object", "properties": common, **node}, defs


def _of_section(axis: str, defs: Schema) -> Schema:
    """What the record checks beside the arguments."""
    if axis not in _SECTIONS:
        return {}
    made = _SECTIONS[axis].model_json_schema(ref_template="#/$defs/{model}")
    defs |= made.get("$defs", {})
    # Nested components are checked where they stand, by their classes.
    defs |= {"Component": {"type": "object"}}
    return {key: _or_open(value) for key, value in made["properties"].items() if key != "_target_"}


def _of_target(axis: str, target: str, defs: Schema) -> Schema | None:
    hints, takes_any = hints_of(located(target, axis))
    taken = {name: _value(hint, defs) for name, hint in hints.items() if name not in _OFFERED}
    if axis == "trainer" and target.endswith(".Trainer"):
        return {name: value for name, value in taken.items() if name in TRAINER}
    return None if takes_any else taken


def _value(hint: Any, defs: Schema) -> Schema:
    adapter = checker(hint)
    if adapter is None:
        return _ANY
    try:
        made = adapter.json_schema(ref_template="#/$defs/{model}")
    except PydanticInvalidForJsonSchema:
        # A class: an object by its `_target_`, or what the class makes of plain values.
        return _ANY
    defs |= made.pop("$defs", {})
    return _or_open(made)


def _or_open(value: Schema) -> Schema:
    given = {key: part for key, part in value.items() if key not in ("title", "default")}
    return {"anyOf": [given, _OPEN], "allOf": [_ANY]} if given else _ANY


def _of_record(record: type[BaseModel], axes: Mapping[str, Schema]) -> Schema:
    """A command's whole config: its own keys, and a node for each axis that it has."""
    made = record.model_json_schema(ref_template="#/$defs/{model}")
    defs: Schema = dict(made.get("$defs", {}))
    properties: Schema = {"defaults": _DEFS["defaults"], "hydra": {"type": "object"}, "resume": True, "name": True}
    for key, value in made["properties"].items():
        of_a_run = key in ("data", "decoding") and record is not RECORDS["train"]
        if key in axes and not of_a_run:
            schema = dict(axes[key])
            defs |= schema.pop("$defs")
            # A config may leave an axis out, and an experiment take it away.
            properties[key] = {"anyOf": [schema, {"type": "null"}]} if key in ("decoding", *NAMED) else schema
        else:
            properties[key] = _or_open(value)
    return {"type": "object", "properties": properties, "additionalProperties": False, "$defs": defs}


def _draft_7(node: Any) -> Any:
    """The same in draft 7: `prefixItems` is `items` there."""
    if isinstance(node, list):
        return [_draft_7(each) for each in node]
    if not isinstance(node, dict):
        return node
    made = {key: _draft_7(value) for key, value in node.items() if key != "prefixItems"}
    if "prefixItems" in node:
        made["items"] = _draft_7(node["prefixItems"])
    return made
