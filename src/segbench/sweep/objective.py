"""What a search optimises: one validation score, and its direction."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from segbench.compare.definitions import definition
from segbench.config.record import Components
from segbench.errors import SegbenchError

DIRECTIONS = ("maximize", "minimize")


def objective_of(metric: str | None, metrics: Components, direction: str | None) -> tuple[str, str]:
    """The score's name and its direction.

    Args:
        metric: the score to compare jobs by.
        metrics: those of the runs.
        direction: `maximize`, `minimize`, or None for the metric's default.

    Raises:
        SegbenchError: no score, a score of the test split, or one of unknown direction.
    """
    if metric is None or metric.startswith("test/"):
        raise SegbenchError(
            f"a search by optimized_metric={metric}",
            "a validation score, e.g. val/mean_iu: the test split is for the report",
            "set optimized_metric=val/...",
        )
    if direction is not None:
        if direction not in DIRECTIONS:
            raise SegbenchError(
                f"hydra.sweeper.direction={direction}", " or ".join(DIRECTIONS), "correct hydra.sweeper.direction="
            )
        return metric, direction
    known = _directions(metrics)
    named = metric.split("/", 1)[-1]
    # With several heads, the head's name comes between split and score.
    for name, higher_is_better in known.items():
        if named == name or named.endswith(f"/{name}"):
            return metric, DIRECTIONS[0] if higher_is_better else DIRECTIONS[1]
    raise SegbenchError(
        f"optimized_metric={metric}: unknown whether higher is better",
        f"val/ and one of {', '.join(known)}",
        "correct it, or set hydra.sweeper.direction=maximize|minimize",
    )


def _directions(metrics: Components) -> dict[str, bool]:
    """Whether higher is better, by score; scores of single classes need the data set and are left out."""
    known: dict[str, bool] = {}
    for name, measure in metrics.items():
        if measure is None:
            continue
        kind = definition(measure.target)
        wanted = inspect.signature(kind).parameters
        offered = {"name": name, "class_names": (), "excluded": ()}
        given = {
            key: value for key, value in measure.arguments.items() if key in wanted and not isinstance(value, Mapping)
        }
        made = kind(**{key: value for key, value in offered.items() if key in wanted} | given)
        known |= {info.name: info.higher_is_better for info in made.infos() if not info.test_only}
    return known
