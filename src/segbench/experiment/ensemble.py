"""Further trained networks beside a run's: `ensemble=[RUN,RUN:last]` of evaluate, predict, export and `load`."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.config.places import DATA
from segbench.config.trust import refuse_untrusted
from segbench.errors import SegbenchError
from segbench.runs.calibration import file_digest
from segbench.runs.directory import Run

if TYPE_CHECKING:
    from torch import nn

    from segbench.config.record import Config
    from segbench.spec import DatasetSpec
    from segbench.training.task import SegmentationTask

log = logging.getLogger(__name__)

Named = str | os.PathLike[str]
"""A run directory, as text also with `:best` or `:last`."""

CHECKPOINTS = ("best", "last")


@dataclass(frozen=True)
class Member:
    """A trained network.

    Attributes:
        run: that trained it.
        checkpoint: its file.
        config: of the run.
        spec: of the data that it was trained on.
        digest: SHA-256 of the checkpoint.
    """

    run: Run
    checkpoint: Path
    config: Config
    spec: DatasetSpec
    digest: str

    def record(self) -> dict[str, str]:
        """For results and descriptions."""
        return {"run": str(self.run.path), "checkpoint": self.checkpoint.stem, "digest": self.digest}


def members_of(given: Named | Sequence[Named] | None, checkpoint: Path, spec: DatasetSpec) -> tuple[Member, ...]:
    """The networks that are named beside a run's own.

    Args:
        given: run directories, each with `:best` or `:last` where a checkpoint is asked for; None: no further network.
        checkpoint: of the run itself.
        spec: of the run's data.

    Raises:
        SegbenchError: none is named; no such run or checkpoint, one named twice, one of other images or classes, or of
            a class that is not trusted.
    """
    from segbench.experiment.build import build_dataset_spec

    if given is None:
        return ()
    names = [os.fspath(each) for each in ([given] if isinstance(given, str | os.PathLike) else given)]
    if not any(names):
        raise SegbenchError(
            "ensemble= without a run", "further runs: ensemble=[RUN,RUN:last]", "name one, or leave ensemble out"
        )
    found: list[Member] = []
    digests = {file_digest(checkpoint): str(checkpoint)}
    for name in names:
        path, _, which = name.rpartition(":")
        try:
            run = Run.open(path if which in CHECKPOINTS and path else name)
            file = run.checkpoint(which if which in CHECKPOINTS and path else None)
        except SegbenchError as error:
            action = "name a run in ensemble=, with :best or :last only where it has such a checkpoint"
            raise SegbenchError(f"ensemble={name}: {error.found}", error.expected, action) from error
        if (digest := file_digest(file)) in digests:
            raise _once_more(f"ensemble={name}: {file} is {digests[digest]} once more")
        digests[digest] = str(file)
        config = run.config()
        refuse_untrusted(config.tree["model"])
        member = Member(run, file, config, build_dataset_spec(run), digest)
        _refuse_other_kind(name, member.spec, spec)
        found.append(member)
    return tuple(found)


def _once_more(found: str) -> SegbenchError:
    return SegbenchError(
        found, "networks that differ", "name each once; the run itself belongs to the ensemble already"
    )


def _refuse_other_kind(name: str, theirs: DatasetSpec, ours: DatasetSpec) -> None:
    def kinds(spec: DatasetSpec) -> dict[str, Any]:
        scaled = {key: (each.channels, each.unit, each.reading) for key, each in spec.modalities.items()}
        return {"images": scaled, "classes": {key: head.class_names for key, head in spec.heads.items()}}

    mine, others = kinds(ours), kinds(theirs)
    for what in mine:
        if mine[what] != others[what]:
            raise SegbenchError(
                f"ensemble={name} was trained on other {what}: {_told(others[what])}",
                f"those of the run: {_told(mine[what])}",
                "leave it out, or take a run that was trained on data of the same kind",
            )


def _told(kinds: Mapping[str, Any]) -> str:
    return "; ".join(f"{name}: {kind}" for name, kind in kinds.items())


def load_networks(task: SegmentationTask, checkpoint: Path, members: Sequence[Member]) -> int:
    """Fill a task's network from a checkpoint, and put the members beside it.

    Args:
        task: whose network may be an ensemble already.
        checkpoint: of the run itself.
        members: of `members_of`.

    Returns:
        the step at which the checkpoint was written.

    Raises:
        SegbenchError: as `joined`, or a checkpoint that is damaged or of another network.
    """
    from segbench.inference.ensemble import Ensemble
    from segbench.training.checkpoint import load_weights

    network = task.model.members[0] if isinstance(task.model, Ensemble) else task.model
    step = load_weights(network, checkpoint)
    task.model = joined(network, task.spec, members)
    return step


def joined(model: nn.Module, spec: DatasetSpec, members: Sequence[Member]) -> nn.Module:
    """A network with the members beside it, as one; the network itself where there are none.

    Args:
        model: with its weights.
        spec: of the data whose inputs it gets.
        members: of `members_of`.

    Raises:
        SegbenchError: weights that do not fit or are those of another member, a damaged checkpoint, or input sizes
            without a common one.
    """
    from segbench.experiment.build import build_model
    from segbench.inference.ensemble import Ensemble, scales_between
    from segbench.inference.forward import geometry_of
    from segbench.training.checkpoint import load_weights

    if not members:
        return model
    networks = {"the run itself": model}
    for member in members:
        network = build_model(member.config.model, member.spec)
        try:
            step = load_weights(network, member.checkpoint)
        except SegbenchError as error:
            action = f"name another checkpoint of it, {member.run.path}:best or :last, or leave it out of ensemble="
            raise SegbenchError(f"ensemble={member.run.path}: {error.found}", error.expected, action) from error
        # Of best and last, if the best was the last one, the files differ.
        if (twin := next((name for name, each in networks.items() if _alike(each, network)), None)) is not None:
            raise _once_more(f"ensemble={member.run.path}: {member.checkpoint} has the weights of {twin}")
        log.info("beside it %s of step %d", member.checkpoint, step)
        networks[str(member.checkpoint)] = network
    scales = [{}, *(scales_between(spec.modalities, member.spec.modalities) for member in members)]
    together = list(networks.values())
    ensemble = Ensemble(together, [geometry_of(each) for each in together], tuple(spec.heads), scales)
    return ensemble.train(model.training)


def _alike(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return type(one) is type(other) and all(
        name in theirs and weight.cpu().equal(theirs[name].cpu()) for name, weight in ours.items()
    )


def left_out(members: Sequence[Member], config: Config) -> list[str]:
    """What members do alone and not in an ensemble, which is predicted as the run is; a sentence each.

    Args:
        members: beside the run.
        config: of the run, as it is predicted.
    """
    sentences = []
    for member in members:
        own, ours = member.config.flat, config.flat
        keys = ("tta", "tta_scales", "input_scale", "calibration", "median", "contours", "trainer.precision")
        apart = [f"{key}={own[key]}" for key in keys if own.get(key) is not None and own[key] != ours.get(key)]
        if apart:
            sentences.append(f"beside it {member.run.path} without its own {', '.join(apart)}")
    return sentences


def refuse_trained_on(run: Run, members: Sequence[Member], config: Config, split: str, ids: Sequence[str]) -> None:
    """Refuse scores on images that a network was trained on.

    Args:
        run: that is scored.
        members: beside it.
        config: of the run, as it is scored.
        split: that is scored; what a run was trained on may be scored as that.
        ids: of the images.

    Raises:
        SegbenchError: there are such images.
    """
    trained = [(run, run.config()), *((member.run, member.config) for member in members)]
    for other, recorded in trained if split != "train" else ():
        seen = sorted({*ids} & {*other.splits().get("train", ())})
        if not seen or recorded.data.target != config.data.target:
            continue
        found = f"{other.path} was trained on {len(seen)} of the {len(ids)} images of {split}, e.g. {seen[0]}"
        if all(config.flat.get(key) == recorded.flat.get(key) for key in DATA):
            instead = "take runs with the same split (other seeds)" if members else "leave other splits or folds out"
            raise SegbenchError(
                f"{'ensemble: ' if members else ''}{found}",
                "networks that have not seen what is scored",
                f"{instead}, or score images that none of them was trained on; split=train scores those that were",
            )
        log.warning("%s, if its images of these names were the same ones", found)
