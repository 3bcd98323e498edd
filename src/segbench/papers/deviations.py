"""How a run deviates from the protocol of the paper's row that it reproduces.

An experiment's `paper.experiment` names the packaged experiment that is the row itself. Everything in which a run's
effective configuration, its history and its stages differ from it is a deviation; only the settings of
`segbench.config.no_effect` are none. What no configuration shows (code, precision, hardware) is read from the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from segbench.config.no_effect import counting
from segbench.config.record import Config
from segbench.config.requests import EvaluateRequest
from segbench.experiment.stages import FOLDER, Stage
from segbench.inference.multiscale import scales_of
from segbench.inference.symmetries import symmetries
from segbench.runs.directory import Run
from segbench.runs.history import Leg, continuations
from segbench.runs.provenance import hardware_of

_TRAINS: Mapping[str, str] = {
    "data.batch_size": "images per step",
    "data.tile": "what is cut for training",
    "data.surround": "what is cut for training",
    "data.balance": "what is cut for training",
    "data.draw": "what is cut for training",
    "data.repeats": "length of an epoch",
    "data.train": "which images train",
    "data.by_time.train": "which images train",
    "data.by_sequence.train": "which images train",
    "data.by_time.val": "which images select",
    "data.by_sequence.val": "which images select",
    "data.val": "which images select",
    "data.hold_out": "which images select",
}
"""Settings of the data that leave the scored images and their labels as they are, with what they change."""
_BATCH = ("trainer.devices", "trainer.num_nodes", "data.batch_size", "trainer.accumulate_grad_batches")
"""Together the effective batch, which has one sentence."""
_FROM_THE_RUN = ("trainer.accelerator", "trainer.precision", "trainer.allow_tf32")
"""Reported as the run had it, not as it was configured."""


@dataclass(frozen=True)
class Conduct:
    """What a run did.

    Attributes:
        config: effective, at its end.
        began: the nested configuration that it began with.
        legs: its history.
        results: the content of results.json.
        provenance: the content of provenance.json.
        stages: what ran before it, by experiment.
        evaluation: the content of results.json of a later evaluation, if that is what is scored.
        finished: whether the run has results of its own.
    """

    config: Config
    began: Mapping[str, Any]
    legs: Sequence[Leg]
    results: Mapping[str, Any]
    provenance: Mapping[str, Any]
    stages: Mapping[str, Conduct]
    evaluation: Mapping[str, Any] | None = None
    finished: bool = True

    @classmethod
    def of(cls, run: Run, evaluation: Run | None = None) -> Conduct:
        """Read a run and its stages.

        Args:
            run: finished, unless it is evaluated.
            evaluation: a later one of it, if that is what is scored.

        Raises:
            SegbenchError: it is not finished, or a file is damaged.
        """
        below = sorted((run.path / FOLDER).glob("*/config.yaml"))
        stages = {path.parent.name: cls.of(Run.open(path.parent)) for path in below}
        config, rest = run.config(), (run.provenance(), stages)
        if evaluation is None:
            return cls(config, run.recorded(), run.legs(), run.results(), *rest)
        asked, finished = EvaluateRequest.of(evaluation.recorded()), run.has_results
        # The evaluation's trainer trained nothing.
        scored = asked.applied_to(config).replace({"trainer": config.tree["trainer"]})
        # What a training that was cut off would have recorded of itself: how it computed.
        cut_off = {"metrics": None, "timing": {}, "protocol": {"precision": config.trainer.precision}}
        results = run.results() if finished else cut_off
        return cls(scored, run.recorded(), run.legs(), results, *rest, evaluation.results(), finished)

    @property
    def protocol(self) -> Mapping[str, Any]:
        """How it was scored."""
        protocol: Mapping[str, Any] = (self.evaluation or self.results)["protocol"]
        return protocol

    @property
    def provenances(self) -> list[Mapping[str, Any]]:
        """Of every leg and of the evaluation; version 0.1.0 recorded that of the first leg alone."""
        trained = [leg.provenance for leg in self.legs if leg.provenance] or [self.provenance]
        return trained if self.evaluation is None else [*trained, self.evaluation["provenance"]]

    @property
    def asked(self) -> dict[str, Any]:
        """The effective settings by dotted key, with `auto` where the machine decided."""
        settled = self.legs[0].settled if self.legs else {}
        # Several values may stand where `auto` stood: `data.balance.cell`.
        above = {f"{key}.": key for key, value in settled.items() if value is None}
        asked = {}
        for key, value in self.config.flat.items():
            parent = next((name for prefix, name in above.items() if key.startswith(prefix)), key)
            asked[parent] = "auto" if key in settled else value
        return asked


def deviations(conduct: Conduct, reference: Config, stages: Sequence[Stage] = ()) -> list[str]:
    """Every deviation, one sentence each.

    Args:
        conduct: of the run.
        reference: of the experiment that is the paper's row.
        stages: of that experiment.
    """
    config = conduct.config
    reported = [] if config.paper is None else list(config.paper.deviations)
    reported += _looked_at(config)
    reported += _averaging(config, reference)
    reported += _of_settings(conduct, reference)
    reported += _of_history(conduct)
    reported += _of_stages(conduct, reference, stages)
    own = "best" if config.monitor is not None and _validated(conduct) else "last"
    if (scored := conduct.protocol.get("checkpoint", own)) != own:
        reported.append(f"scored by its {scored} checkpoint instead of its {own} one")
    reported += [*_of_precision(conduct), *_of_code(conduct), *_of_hardware(conduct)]
    return list(dict.fromkeys(reported))


def _validated(conduct: Conduct) -> bool:
    """Whether there was a best checkpoint: the run has the scores of its last validation, or reports the best one."""
    metrics = conduct.results.get("metrics")
    chosen = conduct.results["protocol"].get("checkpoint") == "best"
    return metrics is None or chosen or any(key.startswith("val/") for key in metrics)


def not_comparable(config: Config, reference: Config) -> list[str]:
    """Why the score is of other images or labels than the paper's, or otherwise computed; empty if it is not."""
    reason = None if config.paper is None else config.paper.not_comparable
    return [*([reason] if reason else []), *_scored_otherwise(config, reference)]


def _scored_otherwise(config: Config, reference: Config) -> list[str]:
    mine, theirs = _views(config.flat, reference.flat)
    return [
        f"{key}={mine.get(key)} where the row has {theirs.get(key)}"
        for key in sorted({*mine, *theirs})
        if mine.get(key) != theirs.get(key)
        and (key.startswith("data.") or (key.startswith("metrics.") and key in mine and key in theirs))
        and not any(key == known or key.startswith(f"{known}.") for known in _TRAINS)
    ]


def _views(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings that count; those of a metric that repeat the decoding's, on both sides, are left out."""
    ours, others = counting(mine), counting(theirs)
    repeated = {
        key for key in {*ours, *others} if all(_repeats_decoding(key, flat) for flat in (ours, others) if key in flat)
    }
    for key in repeated:
        ours.pop(key, None)
        others.pop(key, None)
    return ours, others


def _repeats_decoding(key: str, flat: Mapping[str, Any]) -> bool:
    _, found, rest = key.partition(".decoding.")
    return bool(found) and key.startswith("metrics.") and flat.get(f"decoding.{rest}", ...) == flat[key]


def _of_settings(conduct: Conduct, reference: Config) -> list[str]:
    config, asked = conduct.config, conduct.asked
    mine, theirs = _views(asked, reference.flat)
    handled = {*_FROM_THE_RUN, *_BATCH}
    if reference.paper is not None and reference.paper.symmetries is not None:
        handled |= {"tta", "tta_scales"}
    # Runs of version 0.1.0 do not say what was `auto`.
    unknown = set() if conduct.legs else {key for key, value in theirs.items() if value == "auto"}
    # The runs that a run started from are on other machines in other places.
    started = {key for key in mine if key.split(".")[0] == "init_from"}
    kept = {*mine, *theirs} - handled - unknown - started
    reported = list(_differing("", _tree(mine, kept), _tree(theirs, kept)))
    if (batch := _batch(config)) != (rows := _batch(reference)):
        reported.append(f"effective batch: {batch} instead of {rows}")
    return reported


def _batch(config: Config) -> str:
    devices, nodes, images = config.trainer.processes_here, config.trainer.num_nodes, config.data.batch_size
    accumulated = config.trainer.accumulate_grad_batches
    total = devices * nodes * images * accumulated
    return f"{total} (devices {devices} x nodes {nodes} x batch {images} x accumulation {accumulated})"


def _tree(flat: Mapping[str, Any], kept: set[str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        if key in kept:
            *above, last = key.split(".")
            node = tree
            for name in above:
                node = node.setdefault(name, {})
            node[last] = value
    return tree


def _differing(key: str, mine: Any, theirs: Any) -> Iterator[str]:
    """Sentences about two trees; a class that is another is one sentence, with its settings."""
    if mine == theirs:
        return
    inside = [each for each in (mine, theirs) if isinstance(each, Mapping)]
    alike = len(inside) == 2 and _classes(mine) == _classes(theirs)
    if alike or (len(inside) == 1 and None in (mine, theirs) and _classes(inside[0]) == [None]):
        ours, others = mine or {}, theirs or {}
        for name in sorted({*ours, *others}):
            yield from _differing(f"{key}.{name}" if key else name, ours.get(name), others.get(name))
    else:
        yield f"{key}: {_whole(mine)} instead of {_whole(theirs)}"


def _classes(tree: Mapping[str, Any]) -> list[Any]:
    """The class of a mapping, or those of a numbered list; None stands for plain settings."""
    return [each.get("_target_") for each in tree.values()] if "0" in tree else [tree.get("_target_")]


def _whole(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    if "0" in value:
        return "[" + ", ".join(_name(each["_target_"]) for each in value.values()) + "]"
    settings = ", ".join(f"{name} {_whole(each)}" for name, each in value.items() if name != "_target_")
    named = _name(value["_target_"]) if "_target_" in value else ""
    return f"{named}({settings})" if settings else named


def _name(target: Any) -> str:
    # Another module's class of the same name is another class.
    module, _, name = str(target).rpartition(".")
    return name if module.split(".")[0] in ("segbench", "torch", "lightning", "albumentations") else str(target)


def looked_at(config: Config) -> str | None:
    """Why the test images of a run were looked at before; None if they were not."""
    fold = config.data.arguments.get("fold")
    return None if config.paper is None else config.paper.looked_at.get("null" if fold is None else str(fold))


def _looked_at(config: Config) -> list[str]:
    why = looked_at(config)
    return [] if why is None else [f"test images that were looked at before: {why}"]


def _averaging(config: Config, reference: Config) -> list[str]:
    paper = reference.paper
    if paper is None or paper.symmetries is None:
        return []
    if scales := scales_of(config.tta, config.tta_scales):
        over = f"averaged over {len(scales)} scales, each also mirrored (tta=multiscale)"
        return [f"{over}, the paper averages over {paper.symmetries} turned copies"]
    copies = len(symmetries(config.tta))
    if copies == paper.symmetries:
        return []
    averaged = f"averaged over {copies} symmetries" if copies > 1 else "not averaged over symmetries"
    return [f"{averaged} (tta={config.tta}), the paper averages over {paper.symmetries} turned copies"]


def _of_history(conduct: Conduct) -> list[str]:
    steps, wanted = conduct.results["timing"].get("steps"), conduct.config.trainer.max_steps
    reported = [f"continued {each}" for each in continuations(conduct.began, conduct.legs, steps)]
    if steps is not None and wanted > 0 and steps < wanted:
        reported.append(f"{steps:.0f} of the {wanted} configured steps")
    if not conduct.finished:
        reported.append("the training was cut off before its last step or its test")
    if ended := conduct.results["protocol"].get("ended_by"):
        reported.append(f"training was ended by {ended}")
    return reported


def _of_stages(conduct: Conduct, reference: Config, stages: Sequence[Stage]) -> list[str]:
    wanted = {stage.experiment: stage for stage in stages}
    reported = []
    if conduct.config.init_from is not None and reference.init_from is None:
        skipped = f" instead of the stages {', '.join(wanted)}" if wanted else ""
        reported.append(f"started from a given run{skipped}")
    elif missing := [name for name in wanted if name not in conduct.stages]:
        reported.append(f"stages left out: {', '.join(missing)}")
    for name, done in conduct.stages.items():
        if name not in wanted:
            reported.append(f"a stage that the row does not have: {name}")
            continue
        stage = wanted[name]
        found = [*_of_settings(done, stage.config), *_of_history(done), *_of_precision(done), *_of_code(done)]
        found += [each for each in _of_hardware(done) if each not in _of_hardware(conduct)]
        found += _of_stages(_within_a_chain(done), stage.config, stage.stages)
        reported += [f"stage {name}: {each}" for each in found]
    return reported


def _within_a_chain(done: Conduct) -> Conduct:
    # A stage starts from the one before it: that is the row's own way.
    return replace(done, config=done.config.replace({"init_from": None}))


def _of_code(conduct: Conduct) -> list[str]:
    """Code that is in no commit, that changed between legs, or that is the user's own."""
    reported = []
    gits = [each.get("git") or {} for each in conduct.provenances]
    commits = [str(git.get("commit") or "none")[:10] for git in gits]
    for commit in dict.fromkeys(commit for commit, git in zip(commits, gits, strict=True) if git.get("dirty")):
        reported.append(f"code: changes that are in no commit, on top of {commit}")
    versions = [str((each.get("versions") or {}).get("segbench")) for each in conduct.provenances]
    for before, now in pairwise(zip(commits, versions, strict=True)):
        if before != now:
            reported.append(f"code: goes on with commit {now[0]} of version {now[1]}, after {before[0]} of {before[1]}")
    for made in conduct.provenances:
        for target, digest in (made.get("own_code") or {}).items():
            reported.append(f"code: {target}, a class of the user's (sha256 {str(digest)[:12]})")
    return reported


def _of_precision(conduct: Conduct) -> list[str]:
    trained, scored = (str(each["precision"]) for each in (conduct.results["protocol"], conduct.protocol))
    reported = [] if trained.startswith("32") else [f"computed in {trained}, the paper in float32"]
    if any(made.get("tf32") for made in conduct.provenances):
        reported.append("float32 products were computed in TF32")
    return reported + ([] if scored == trained else [f"scored in {scored}, trained in {trained}"])


def _of_hardware(conduct: Conduct) -> list[str]:
    return [f"hardware: {each}" for each in dict.fromkeys(map(hardware_of, conduct.provenances))]
