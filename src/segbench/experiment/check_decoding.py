"""Decodings that do not fit the data, and their settings that do nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from segbench.config.record import Component
from segbench.config.signatures import refuse_misfits
from segbench.errors import SegbenchError
from segbench.metrics.decoding import CLASSES, USED_BY, Decoding, classes_among
from segbench.spec import HeadSpec


def refuse_other_cores(core: float | None, decoding: Decoding, heads: Mapping[str, HeadSpec]) -> None:
    """Refuse a decoding that passes over the data's class of cores, or expects one that they do not have.

    Args:
        core: `data.core` of the run.
        decoding: of the run, or another one that is asked for.
        heads: of its data.

    Raises:
        SegbenchError: names both keys.
    """
    if core is not None and decoding.core_class is None:
        raise SegbenchError(
            f"data.core={core} with decoding.core_class=null: the middles of objects would be no part of them",
            "the class of the cores, the last one",
            "set decoding=cores, or decoding.core_class=-1 with another method",
        )
    head = next(iter(heads.values()))
    if decoding.core_class == -1 and head.core_class is None:
        raise SegbenchError(
            f"decoding.core_class=-1 (as in decoding=cores), and classes {', '.join(head.class_names)}",
            "core as the last class",
            "train with data.core=0.5, or choose decoding.method=watershed decoding.core_class=null",
        )
    classes_among(decoding, head.num_classes)


def refuse_idle_decoding(own: Component | None, given: Mapping[str, Any], heads: Mapping[str, HeadSpec]) -> None:
    """Refuse settings of a decoding of the wrong type, and those that do nothing, as its method does not use them.

    Args:
        own: the decoding of the run.
        given: other settings by name; of a list each.
        heads: of its data.

    Raises:
        SegbenchError: names the setting; an empty list, or one that has a value twice.
    """
    tried = {key: value if isinstance(value, list) else [value] for key, value in given.items()}
    for key, values in tried.items():
        if not values or any(value in values[:place] for place, value in enumerate(values)):
            raise SegbenchError(
                f"decoding.{key}={values}".replace("None", "null"),
                "values that differ, at least one",
                "correct the list",
            )
    target = f"{Decoding.__module__}.{Decoding.__name__}"
    if own is not None and own.target != target:
        return
    for settings in (dict(zip(tried, values, strict=True)) for values in product(*tried.values())):
        refuse_misfits({"decoding": {"_target_": target, **settings}})
    for error in _idle(tried, {} if own is None else own.arguments, heads):
        raise error


def _idle(
    tried: Mapping[str, list[Any]], own: Mapping[str, Any], heads: Mapping[str, HeadSpec]
) -> Iterator[SegbenchError]:
    """An error for each setting of a decoding that does nothing beside the others and those of its own."""
    others = {key: tried.get(key, [own.get(key, getattr(Decoding, key))]) for key in ("method", *CLASSES)}
    for key, values in tried.items():
        shown = f"decoding.{key}={values[0] if len(values) == 1 else values}"
        if key in USED_BY and USED_BY[key] not in others["method"]:
            yield SegbenchError(
                f"{shown} with decoding.method={others['method'][0]}",
                f"decoding.method={USED_BY[key]}, which alone uses it",
                f"leave decoding.{key} out, or add decoding.method={USED_BY[key]}",
            )
        every = [classes for head in heads.values() for classes in _of_objects(head, others)]
        if key == "grow" and any(values) and not any(every):
            names = " and ".join(", ".join(head.class_names) for head in heads.values())
            yield SegbenchError(
                f"{shown} with the classes {names}",
                "a class beside the background and those of objects, whose pixels join them",
                "leave decoding.grow out, or use a run with such a class (data.border=2)",
            )


def _of_objects(head: HeadSpec, others: Mapping[str, list[Any]]) -> Iterator[int]:
    """How many classes are neither background nor of objects, for each choice of the latter."""
    for chosen in product(*(others[key] for key in CLASSES)):
        yield head.num_classes - len({0, *(each % head.num_classes for each in chosen if each is not None)})


def idle_decoding(own: Component | None, heads: Mapping[str, HeadSpec]) -> list[str]:
    """The settings of a training's decoding that do nothing, a sentence each."""
    if own is None or own.target != f"{Decoding.__module__}.{Decoding.__name__}":
        return []
    tried = {key: [value] for key, value in own.arguments.items() if value != getattr(Decoding, key)}
    return [f"{error.found} does nothing: it takes {error.expected}" for error in _idle(tried, own.arguments, heads)]
