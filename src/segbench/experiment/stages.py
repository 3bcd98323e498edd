"""Training in stages: FCN-8s starts from the FCN-16s that starts from the FCN-32s (arXiv:1411.4038, section 4.2).

An experiment names what runs before it, `stages: [fcn32s_voc, fcn16s_voc]`; late fusion names one per modality,
`stages: {rgb: fcn32s_nyudv2_rgb, hha: fcn32s_nyudv2_hha}`. Every stage is a separate run, in
`RUN/stages/<experiment>/`, frozen before the first one starts: a resume of RUN continues whichever was cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbench.config.record import Config
from segbench.errors import SegbenchError
from segbench.runs.directory import Run

FOLDER = "stages"

_OWN = ("experiment", "name", "model", "init_from", "stages")
"""Exact keys that each stage sets itself: `model=` picks a net, `model.width=` holds for every stage."""
_OWN_GROUPS = ("optimizer", "scheduler", "loss")
"""A stage's rate is its own, a hundredth of the one before."""


@dataclass(frozen=True)
class Stage:
    """A run before the run.

    Attributes:
        experiment: its name, and its directory's.
        config: resolved.
        overrides: of the command line, those that hold for it.
        stages: what runs before it in turn.
    """

    experiment: str
    config: Config
    overrides: list[str]
    stages: tuple[Stage, ...] = ()


def compose_stages(config: Config, overrides: Sequence[str]) -> tuple[Stage, ...]:
    """Compose the experiments that run before this one, in their order; call it inside a Hydra application.

    Args:
        config: of the run. With `init_from` given nothing runs before it.
        overrides: the command line's. Those of the optimiser, the schedule and the loss apply only to the last stage.

    Raises:
        SegbenchError: no such experiment, or one that comes before itself.
    """
    return _compose(config, _shared(overrides), (config.name,))


def _compose(config: Config, shared: list[str], above: tuple[str, ...]) -> tuple[Stage, ...]:
    if config.init_from is not None:
        return ()
    chained = not isinstance(config.stages, dict)
    stages: list[Stage] = []
    for experiment in names(config):
        if experiment in above:
            raise SegbenchError(
                f"stages: {experiment} comes before itself ({' <- '.join((*above, experiment))})",
                "experiments that run before this one",
                "correct stages= of the experiment",
            )
        # In a list each stage starts from the one before it; the first one, and those by modality, from their own.
        alone = ["stages=null"] if chained and stages else []
        composed = _compose_one(experiment, [*shared, *alone])
        before = _compose(composed, shared, (*above, experiment))
        stages.append(Stage(experiment, composed, shared, before))
    return tuple(stages)


def _compose_one(experiment: str, overrides: list[str]) -> Config:
    import hydra
    from hydra.errors import MissingConfigException

    from segbench.config.composed import resolved

    try:
        given = [f"experiment={experiment}", f"name={experiment}", *overrides]
        whole = hydra.compose("train", given, return_hydra_config=True)
        return Config.of(resolved(hydra.compose("train", given), overrides=overrides, hydra=whole.hydra))
    except MissingConfigException as error:
        raise SegbenchError(
            f"stages: no experiment {experiment}",
            "names of conf/experiment",
            "correct stages= ; `segbench list experiment` shows them",
        ) from error


def _shared(overrides: Sequence[str]) -> list[str]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    keys = [(override.key_or_group, override.input_line or "") for override in parsed]
    return [line for key, line in keys if key not in _OWN and key.split(".")[0].split("@")[0] not in _OWN_GROUPS]


def names(config: Config) -> list[str]:
    """The experiments that run before this one, in their order.

    Raises:
        SegbenchError: a name that leads out of the folder of stages.
    """
    stages = config.stages or []
    found = list(stages.values() if isinstance(stages, dict) else stages)
    for name in found:
        parts = name.split("/")
        if not name.isprintable() or "\\" in name or any(part in ("", ".", "..") for part in parts):
            raise SegbenchError(
                f"stages: {name!r}", "names of experiments, e.g. fcn32s_voc, no places", "correct stages="
            )
    return found


def trees_of(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """The configs of stages and of those before them, as plain containers."""
    return [tree for stage in stages for tree in (stage.config.tree, *trees_of(stage.stages))]


def prepare_stages(directory: Path, stages: Sequence[Stage]) -> None:
    """Freeze every stage's config in its directory below the run's."""
    for stage in stages:
        below = directory / FOLDER / stage.experiment
        prepare_stages(below, stage.stages)
        Run.prepare(below, stage.config, stage.overrides)


def read_stages(config: Config, directory: Path) -> tuple[Stage, ...]:
    """The stages as they were frozen below a run.

    Raises:
        SegbenchError: one is missing.
    """
    stages = []
    for experiment, below in zip(names(config), directories(config, directory), strict=True):
        run, own = Run.open(below), Run(below).config()
        stages.append(Stage(experiment, own, run.overrides(), read_stages(own, below)))
    return tuple(stages)


def directories(config: Config, directory: Path) -> list[Path]:
    """Where the stages of a run lie, in their order."""
    return [directory / FOLDER / name for name in names(config)]


def start_of(config: Config, directory: Path, before: int | None = None) -> str | dict[str, str] | None:
    """Initial weights of a network.

    Args:
        config: of the run.
        directory: of the run.
        before: None for the run's own network, n for its n-th stage.

    Returns:
        the run's `init_from`, else the directory of the stage before, or directories by modality; None for a first one.
    """
    if config.init_from is not None or not config.stages:
        return config.init_from
    if isinstance(config.stages, dict):
        by_modality = {modality: str(directory / FOLDER / name) for modality, name in config.stages.items()}
        return by_modality if before is None else None
    chain = directories(config, directory)[:before]
    return str(chain[-1]) if chain else None
