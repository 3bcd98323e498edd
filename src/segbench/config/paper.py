"""The papers' facts: the `paper:` blocks of the packaged experiments, which nothing else can change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from segbench.config.flat import differences, flatten
from segbench.config.packaged import conf_root, read_yaml
from segbench.errors import SegbenchError

_SAME_ROW = ("row", "method", "column", "source")


def paper_blocks(experiments: Path | None = None) -> dict[str, dict[str, Any]]:
    """The `paper:` block of every experiment that has one, merged with inherited ones; quick, as it needs no Hydra.

    Args:
        experiments: the folder; None takes the packaged one.
    """
    folder = experiments or conf_root() / "experiment"
    blocks = {path.stem: _block(folder, path.stem) for path in sorted(folder.glob("*.yaml"))}
    return {name: block for name, block in blocks.items() if block.get("row") and not name.startswith("_")}


def _block(folder: Path, name: str) -> dict[str, Any]:
    content = read_yaml(folder / f"{name}.yaml")
    parents = [entry for entry in content.get("defaults", []) if isinstance(entry, str) and entry != "_self_"]
    merged: dict[str, Any] = {}
    for block in [*(_block(folder, parent) for parent in parents), content.get("paper") or {}]:
        metrics = (merged.get("metrics") or {}) | (block.get("metrics") or {})
        merged |= block | ({"metrics": metrics} if metrics else {})
    return merged


@cache
def _packaged() -> tuple[dict[str, Any], ...]:
    return tuple(paper_blocks().values())


def _packaged_of(block: Mapping[str, Any]) -> dict[str, Any] | None:
    """The packaged block of a row: the one that differs least; None if no packaged experiment reproduces the row."""
    same = [each for each in _packaged() if all(each.get(key) == block.get(key) for key in _SAME_ROW[:2])]
    return min(same, key=lambda each: len(differences(flatten(each), flatten(block))), default=None)


def experiment_of(block: Mapping[str, Any]) -> str | None:
    """The packaged experiment that is a row itself: what the block names, else the one that has its row and method."""
    known = paper_blocks()
    own = (name for name, each in known.items() if all(each.get(key) == block.get(key) for key in _SAME_ROW[:3]))
    named = block.get("experiment") or next(own, None)
    return named if named in known else None


def packaged_facts(block: Any) -> Any:
    """What a recorded block stands for: the packaged facts of its row, whatever the record says of them.

    A row that no packaged experiment has is the user's own and is returned as it is.
    """
    if not isinstance(block, Mapping) or not block.get("row"):
        return block
    packaged = _packaged_of(block)
    if packaged is not None:
        return packaged | {"deviations": list(dict.fromkeys([*packaged.get("deviations", ()), *_own(block)]))}
    known = any(block["row"] == each["row"] for each in _packaged())
    return {**block, "metrics": {}} if known else block


def _own(block: Mapping[str, Any]) -> list[str]:
    # An older version of the experiment may have named more.
    named = block.get("deviations")
    return [str(each) for each in named] if isinstance(named, list) else []


def refuse_other_facts(block: Any) -> None:
    """Refuse a composed `paper:` block that changes what the packaged experiments say of a paper's row.

    Raises:
        SegbenchError: it does.
    """
    if not isinstance(block, Mapping) or not (block.get("row") or block.get("metrics")) or dict(block) in _packaged():
        return
    if not block.get("row"):
        raise SegbenchError(
            "paper.metrics without paper.row",
            "a row of a published table, or one of a name of your own",
            "add paper.row to the experiment",
        )
    packaged = _packaged_of(block) or paper_blocks().get(str(block.get("experiment")))
    if packaged is None and not any(block["row"] == each["row"] for each in _packaged()):
        return
    key, (theirs, mine) = next(iter(differences(flatten(packaged or {}), flatten(block)).items()))
    raise SegbenchError(
        f"paper.{key}={mine}, where the packaged experiment has {theirs}",
        "the facts of a paper's row as they are packaged",
        f"leave out paper.{key}; an experiment of yours that reproduces another paper has a paper.row and a "
        "paper.experiment of its own",
    )


def refuse_overrides(overrides: Sequence[str]) -> None:
    """Refuse overrides that change the paper; without it, `paper=null`, a run can be made.

    Raises:
        SegbenchError: there is one.
    """
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if key.split(".")[0] == "paper" and not (key == "paper" and value == "null"):
            raise SegbenchError(
                override,
                "the facts of a paper as the experiment has them",
                "leave it out; paper=null makes a run that no paper stands beside",
            )
