"""In what a run departs from the protocol of the paper's row that it stands beside.

An experiment's `paper.experiment` names the experiment that is the row itself; a run is compared with it key by key, so
nothing that a config can say is forgotten. What no config says (data, precision, hardware) is read from the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

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
"""Keys that change no score, or that are told in words of their own."""
_TRAINER = ("max_steps", "max_epochs", "accumulate_grad_batches", "gradient_clip_val")
_CHOOSES = "callbacks.checkpoint.monitor"
_SCORED_ON = (
    *("data._target_", "data.protocol", "data.test", "data.fold", "data.partial", "data.depth", "data.dataset"),
    *("data.truth", "data.by_sequence.test", "data.by_time.test"),
)
"""Keys that decide which images are scored: where they differ, two numbers are not of the same thing."""


def deviations(
    config: Mapping[str, Any], reference: Mapping[str, Any], results: Mapping[str, Any], provenance: Mapping[str, Any]
) -> list[str]:
    """Every departure in a sentence.

    Args:
        config: of the run, plain containers.
        reference: of the experiment that is the paper's row, plain containers.
        results: the content of results.json.
        provenance: the content of provenance.json.
    """
    said = [str(sentence) for sentence in (config.get("paper") or {}).get("deviations", [])]
    said += _of_config(config, reference)
    steps, wanted = results["timing"].get("steps"), config["trainer"]["max_steps"]
    if steps is not None and wanted > 0 and steps < wanted:
        said.append(f"{steps:.0f} steps of the {wanted} that it asks for")
    if config.get("init_from") is not None and reference.get("stages"):
        said.append("started from a given run instead of the stages before")
    precision = str(results["protocol"]["precision"])
    if not precision.startswith("32"):
        said.append(f"computed in {precision}, the paper in float32")
    said.append(f"hardware: {_hardware(config, provenance)}")
    return said


def not_comparable(config: Mapping[str, Any], reference: Mapping[str, Any]) -> list[str]:
    """Why the score is of other images than the paper's; empty where it is of the same."""
    reason = (config.get("paper") or {}).get("not_comparable")
    mine, theirs = dict(_flat(config)), dict(_flat(reference))
    other = [
        f"{key}={mine.get(key)} where the row has {theirs.get(key)}"
        for key in _SCORED_ON
        if mine.get(key) != theirs.get(key)
    ]
    return ([str(reason)] if reason else []) + other


def _of_config(config: Mapping[str, Any], reference: Mapping[str, Any]) -> list[str]:
    said = []
    for group in sorted({*config, *reference}):
        mine, theirs = config.get(group), reference.get(group)
        if _told_elsewhere(group):
            continue
        if _target(mine) != _target(theirs):
            said.append(f"{group}: {_whole(mine)} instead of {_whole(theirs)}")
            continue
        flat_mine, flat_theirs = dict(_flat({group: mine})), dict(_flat({group: theirs}))
        said += [
            f"{key}: {flat_mine.get(key)} instead of {flat_theirs.get(key)}"
            for key in sorted({*flat_mine, *flat_theirs})
            if flat_mine.get(key) != flat_theirs.get(key) and not _told_elsewhere(key)
        ]
    chosen, chooses = (dict(_flat(each)).get(_CHOOSES) for each in (config, reference))
    if chosen != chooses:
        said.append(f"checkpoint chosen by {chosen or 'nothing: the last one'} instead of {chooses or 'nothing'}")
    return said


def _told_elsewhere(key: str) -> bool:
    group, _, rest = key.partition(".")
    if group == "trainer":
        return bool(rest) and rest not in _TRAINER
    return any(key == known or key.startswith(f"{known}.") for known in _OF_NO_EFFECT)


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{key}.{number}")
    else:
        yield key, value


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


def _hardware(config: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    if config["trainer"]["accelerator"] in ("gpu", "cuda"):
        return str(provenance.get("gpu") or "GPU")
    return f"{provenance['processor']}, {provenance['cpus']} cores"
