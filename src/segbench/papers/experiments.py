"""A paper's experiment as it is composed, and the packaged one that is its row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segbench.config.paper import paper_blocks
from segbench.config.record import Config, Paper
from segbench.experiment.stages import Stage, compose_stages


@dataclass(frozen=True)
class Composed:
    """An experiment as it will run.

    Attributes:
        config: resolved.
        stages: what runs before it.
        data: the name of its data set's config.
    """

    config: Config
    stages: tuple[Stage, ...]
    data: str


def compose_experiment(name: str, overrides: Sequence[str], own: Path | None = None) -> Composed:
    """Compose an experiment outside a Hydra application.

    Args:
        name: of `conf/experiment`.
        overrides: Hydra's.
        own: a user's config directory.

    Raises:
        SegbenchError: it cannot be composed.
    """
    import hydra

    from segbench.config.composed import resolved
    from segbench.config.composing import composing

    given = [f"experiment={name}", f"name={name}", *overrides]
    with composing("train", given, own):
        composed = hydra.compose("train", given, return_hydra_config=True)
        config = Config.of(resolved(hydra.compose("train", given), overrides=given, hydra=composed.hydra))
        return Composed(config, compose_stages(config, given), str(composed.hydra.runtime.choices["data"]))


def row_itself(paper: Paper, name: str, own: Path | None = None) -> Composed:
    """The experiment that is the paper's row itself, as packaged.

    Args:
        paper: of the experiment that is compared with it.
        name: of that experiment.
        own: a user's config directory, for a row that is not packaged.
    """
    itself = paper.experiment or name
    return compose_experiment(itself, (), None if itself in paper_blocks() else own)
