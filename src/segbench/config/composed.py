"""A composed config as plain containers: every interpolation resolved, every path to data absolute."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.config.environment import FROM_ENVIRONMENT, variables_of
from segbench.config.installed import FROM_PACKAGES, from_packages
from segbench.config.own_targets import without_leftovers
from segbench.config.paper import refuse_other_facts
from segbench.config.places import PLACES
from segbench.errors import not_given

if TYPE_CHECKING:
    from omegaconf import DictConfig

_ENDINGS = tuple(f".{key.removeprefix('loss.')}" for key in PLACES)


def resolved(
    config: DictConfig, start: Path | None = None, overrides: Sequence[str] = (), hydra: DictConfig | None = None
) -> dict[str, Any]:
    """The plain containers of a composed config.

    Args:
        config: of Hydra.
        start: what relative paths are relative to; None: the working directory.
        overrides: that it was composed with, which may name classes in place of others.
        hydra: Hydra's own part of it, to record what installed packages gave.

    Raises:
        SegbenchError: a mandatory key is missing, or a fact of a paper is changed.
    """
    from omegaconf import MissingMandatoryValue, OmegaConf

    try:
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = error.full_key
        raise not_given(str(key)) from error
    assert isinstance(container, dict)
    tree: dict[str, Any] = _absolute({str(key): value for key, value in container.items()}, "", start or Path.cwd())
    refuse_other_facts(tree.get("paper"))
    tree = without_leftovers(tree, overrides)
    # Of arguments that were left out there is nothing to say.
    if variables := {key: name for key, name in variables_of(config).items() if _has(tree, key)}:
        tree[FROM_ENVIRONMENT] = variables
    if hydra is not None and (packages := from_packages(hydra)):
        tree[FROM_PACKAGES] = packages
    return tree


def _has(tree: dict[str, Any], key: str) -> bool:
    node: Any = tree
    for name in key.split("."):
        inside = {str(number): each for number, each in enumerate(node)} if isinstance(node, list) else node
        if not isinstance(inside, dict) or name not in inside:
            return False
        node = inside[name]
    return True


def _absolute(value: Any, key: str, start: Path) -> Any:
    # A run may be read from another working directory.
    if isinstance(value, dict):
        inside = key if f".{key}".endswith(_ENDINGS) else None
        return {name: _absolute(inner, inside or f"{key}.{name}", start) for name, inner in value.items()}
    named = isinstance(value, str) and value and f".{key}".endswith(_ENDINGS)
    return os.path.normpath(start / value) if named else value
