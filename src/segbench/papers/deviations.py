"""How a run deviates from the protocol of the paper's row that it reproduces.

An experiment's `paper.experiment` names the experiment that is the row itself; a run is compared with it key by key, so
no setting of a config is overlooked. What no config says (data, precision, hardware) is read from the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segbench.config.flat import differences, flatten
from segbench.config.record import Config

_OF_NO_EFFECT = (
    "name",
    "seed",
    "threads",
    "resume",
    "paper",
    "logger",
    "task.channels_last",
    "task.compile",
    "tile",
    "stages",
    "weights.path",
    "init_from",
    "data.root",
    "data.num_workers",
    "data.eval_batch_size",
    "callbacks",
    "loss.weight_map.folder",
    "metrics",
)
"""Keys that change no score, or that have a sentence elsewhere."""
_TRAINER = ("max_steps", "max_epochs", "accumulate_grad_batches", "gradient_clip_val")
_SCORED_ON = (
    *("data._target_", "data.protocol", "data.test", "data.fold", "data.partial", "data.depth", "data.dataset"),
    *("data.truth", "data.by_sequence.test", "data.by_time.test"),
)
"""Keys that decide which images are scored: if they differ, two numbers are not comparable."""


def deviations(
    config: Config, reference: Config, results: Mapping[str, Any], provenance: Mapping[str, Any]
) -> list[str]:
    """Every deviation, one sentence each.

    Args:
        config: of the run.
        reference: of the experiment that is the paper's row.
        results: the content of results.json.
        provenance: the content of provenance.json.
    """
    said = [] if config.paper is None else list(config.paper.deviations)
    said += _of_config(config, reference)
    steps, wanted = results["timing"].get("steps"), config.trainer.max_steps
    if steps is not None and wanted > 0 and steps < wanted:
        said.append(f"{steps:.0f} of the {wanted} configured steps")
    if config.init_from is not None and reference.stages:
        said.append("started from a given run instead of the earlier stages")
    precision = str(results["protocol"]["precision"])
    if not precision.startswith("32"):
        said.append(f"computed in {precision}, the paper in float32")
    said.append(f"hardware: {_hardware(config, provenance)}")
    return said


def not_comparable(config: Config, reference: Config) -> list[str]:
    """Why the score is of other images than the paper's; empty if it is of the same."""
    reason = None if config.paper is None else config.paper.not_comparable
    mine, theirs = config.flat, reference.flat
    other = [
        f"{key}={mine.get(key)} where the row has {theirs.get(key)}"
        for key in _SCORED_ON
        if mine.get(key) != theirs.get(key)
    ]
    return ([reason] if reason else []) + other


def _of_config(config: Config, reference: Config) -> list[str]:
    said = []
    mine_tree, theirs_tree = config.tree, reference.tree
    for group in sorted({*mine_tree, *theirs_tree}):
        mine, theirs = mine_tree.get(group), theirs_tree.get(group)
        if _told_elsewhere(group):
            continue
        if _target(mine) != _target(theirs):
            said.append(f"{group}: {_whole(mine)} instead of {_whole(theirs)}")
            continue
        differing = differences(flatten({group: mine}), flatten({group: theirs}))
        said += [
            f"{key}: {ours} instead of {paper}"
            for key, (ours, paper) in sorted(differing.items())
            if not _told_elsewhere(key)
        ]
    if config.monitor != reference.monitor:
        chosen, theirs = config.monitor or "nothing: the last one", reference.monitor or "nothing"
        said.append(f"checkpoint chosen by {chosen} instead of {theirs}")
    return said


def _told_elsewhere(key: str) -> bool:
    group, _, rest = key.partition(".")
    if group == "trainer":
        return bool(rest) and rest not in _TRAINER
    return any(key == known or key.startswith(f"{known}.") for known in _OF_NO_EFFECT)


def _target(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return None
    inner = value.get("transforms")
    return value.get("_target_"), tuple(each["_target_"] for each in inner) if inner else None


def _whole(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    if "transforms" in value:
        return "[" + ", ".join(_short(each) for each in value["transforms"] or []) + "]"
    settings = ", ".join(f"{k} {v}" for k, v in value.items() if k != "_target_" and not isinstance(v, (Mapping, list)))
    return f"{_short(value)}({settings})" if settings else _short(value)


def _short(value: Mapping[str, Any]) -> str:
    return str(value.get("_target_", "none")).rsplit(".", 1)[-1]


def _hardware(config: Config, provenance: Mapping[str, Any]) -> str:
    if config.trainer.on_gpu:
        return str(provenance.get("gpu") or "GPU")
    return f"{provenance['processor']}, {provenance['cpus']} cores"
