"""Makes records of runs that a tracker's server has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from segbench.compare.records import LeftOut, RunRecord
from segbench.config.flat import flatten
from segbench.config.handed_over import refuse_interpolations
from segbench.errors import SegbenchError
from segbench.runs.partial import Partial

if TYPE_CHECKING:
    from segbench.tracking.source import TrackedRun

WANDB, MLFLOW = "wandb:", "mlflow:"
TRACKED = (WANDB, MLFLOW)
"""Beginnings of sources that are read from a tracker's server."""


def tracked(source: str) -> list[TrackedRun]:
    """The runs of a tracker's source; none of another one."""
    if source.startswith(WANDB):
        from segbench.tracking.source import read_project

        return read_project(source.removeprefix(WANDB))
    if source.startswith(MLFLOW):
        from segbench.tracking.mlflow_source import read_experiment

        return read_experiment(source.removeprefix(MLFLOW))
    return []


def from_tracker(run: TrackedRun) -> RunRecord | LeftOut:
    """A run as a tracker has it, or why it cannot be compared."""
    place = {WANDB: "W&B", MLFLOW: "MLflow"}[f"{run.address.partition(':')[0]}:"]
    if run.state != "finished":
        return LeftOut(run.address, f"{run.state} in {place}")
    try:
        refuse_interpolations(run.config, f"its configuration in {place}")
    except SegbenchError as error:
        return LeftOut(run.address, error.found)
    if (counted := _part_in(run.summary, "partial")) is not None:
        return LeftOut(run.address, f"partial: {counted} were counted; evaluate the run whole, and compare that")
    metrics = {key: number for key, value in run.summary.items() if (number := _score(key, value)) is not None}
    # The validation of the reported checkpoint, not the last one.
    metrics |= {f"val/{key.removeprefix('best/')}": metrics.pop(key) for key in [*metrics] if key.startswith("best/")}
    if (validated := _part_in(run.summary, "partial_validation")) is not None:
        metrics = {key: value for key, value in metrics.items() if not key.startswith("val/")}
        if not metrics:
            return LeftOut(
                run.address, f"partial: {validated} were validated; evaluate the run whole, and compare that"
            )
    if not metrics:
        return LeftOut(run.address, f"no score of a split (val/..., test/...) in its {place} summary")
    seed = run.config.get("seed")
    return RunRecord(
        source=run.address,
        path=None,
        name=str(run.config.get("name", run.name)),
        seed=seed if isinstance(seed, int) else None,
        settings=flatten(run.config),
        metrics=metrics,
        config=run.config,
        provenance={"started": run.created},
        timing={"fit_s": float(run.summary["_runtime"])} if "_runtime" in run.summary else {},
        tracked=(run.id,),
    )


def _part_in(summary: Mapping[str, Any], name: str) -> Partial | None:
    if f"{name}/counted" not in summary:
        return None
    return Partial.of_record({key: summary.get(f"{name}/{key}", 0) for key in ("counted", "of", "twice")})


def _score(key: str, value: Any) -> float | None:
    if key.split("/")[0] not in ("val", "test", "best") or "/" not in key:
        return None
    try:
        # W&B writes NaN and Infinity, which JSON lacks, as text; a mapping has the best and the last value.
        return float(value["last"] if isinstance(value, Mapping) else value)
    except (TypeError, ValueError, KeyError):
        return None
