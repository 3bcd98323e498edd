"""The measures of a run, built from its configuration without torch, so that its counts can be scored again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from segbench.compare.records import RunRecord
from segbench.config.handed_over import read_json
from segbench.config.instances import located
from segbench.config.trust import refuse_untrusted
from segbench.errors import SegbenchError
from segbench.metrics.measure import Measure, arguments_of_head
from segbench.spec import DatasetSpec, HeadSpec, ScoreInfo


def run_heads(run: RunRecord) -> DatasetSpec:
    """The description of the run's data set.

    Raises:
        SegbenchError: the run recorded none, or it cannot be read.
    """
    if run.trained is None:
        raise SegbenchError(
            f"{run.source} is not a run directory",
            "a run whose files are on this machine",
            "compare the directory of the run",
        )
    described: DatasetSpec = read_json(run.trained / "dataset.json", DatasetSpec)
    return described


def run_measures(run: RunRecord) -> dict[tuple[str, str], Measure]:
    """The measures that counted a run's images, by (head, name in the configuration).

    Raises:
        SegbenchError: a definition that is not allowed or no longer exists, or a run without a data set.
    """
    heads = {head: (spec.class_names, spec.palette, spec.excluded) for head, spec in run_heads(run).heads.items()}
    try:
        return dict(_measures(json.dumps(dict(run.config.get("metrics") or {})), json.dumps(heads)))
    except SegbenchError:
        raise
    except Exception as error:  # values of any type, given to classes of any
        raise SegbenchError(
            f"{run.source}: its metrics or its dataset.json are damaged: {error!r}",
            "metrics and classes as segbench recorded them",
            "score the run again",
        ) from error


@cache
def _measures(configs: str, heads: str) -> Mapping[tuple[str, str], Measure]:
    made: dict[tuple[str, str], Measure] = {}
    for head, (class_names, palette, excluded) in json.loads(heads).items():
        spec = HeadSpec(tuple(class_names), tuple(palette), excluded=tuple(excluded))
        for name, config in json.loads(configs).items():
            # Metrics of torchmetrics have no counts, and need torch.
            if config is not None and not str(config.get("_target_")).startswith("torchmetrics."):
                # As segbench.experiment.axes has it, which needs torch: trusted names only.
                kind = definition(str(config.get("_target_")))
                if not hasattr(kind, "counts"):
                    continue
                made[head, name] = _make(kind, {**config, "name": name}, arguments_of_head(kind, config, spec))
    return made


def _make(kind: Callable[..., Any], config: Mapping[str, Any], head: Mapping[str, Any]) -> Any:
    given = {key: _argument(value) for key, value in config.items() if key != "_target_"}
    try:
        return kind(**given, **head)
    except TypeError as error:
        raise SegbenchError(
            f"metrics: {kind.__module__}.{kind.__qualname__} does not accept the run's arguments: {error}",
            "the definition by which the run was scored",
            "score the run again with this version: segbench evaluate run=RUN",
        ) from error


def _argument(value: Any) -> Any:
    if isinstance(value, Mapping) and "_target_" in value:
        return _make(definition(str(value["_target_"])), value, {})
    return tuple(map(_argument, value)) if isinstance(value, list) else value


def definition(target: str) -> Callable[..., Any]:
    """The class with a dotted name.

    Raises:
        SegbenchError: it is not trusted, or does not exist.
    """
    refuse_untrusted({"_target_": target})
    try:
        found: Callable[..., Any] = located(target, "metrics")
    except SegbenchError as error:
        raise SegbenchError(error.found, "the code that scored the run", "install it") from error
    return found


def score_infos(run: RunRecord) -> dict[str, ScoreInfo]:
    """The description of each score of a run, by its key without the split.

    Raises:
        SegbenchError: as `run_measures`.
    """
    measures = run_measures(run)
    several = len({head for head, _ in measures}) > 1
    return {
        f"{head}/{info.name}" if several else info.name: info
        for (head, _), measure in measures.items()
        for info in measure.infos()
    }


def alike(first: Measure, second: Measure) -> bool:
    """Whether two measures define the same scores; their names in the configuration do not matter."""

    def parts(measure: Measure) -> dict[str, Any]:
        return {key: value for key, value in vars(measure).items() if key != "name"}

    return type(first) is type(second) and parts(first) == parts(second)
