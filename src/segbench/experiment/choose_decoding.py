"""The choice of a decoding among several, on validation images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

from segbench.config.requests import users_of_decoding
from segbench.errors import SegbenchError
from segbench.metrics.by_decoding import ByDecoding

if TYPE_CHECKING:
    from segbench.config.record import Config
    from segbench.spec import DatasetSpec

NAME = "by_decoding"
"""Of the measure that is added, in `metrics`."""


def with_each_decoding(config: Config, given: Mapping[str, Any], spec: DatasetSpec, split: str) -> Config:
    """A run's configuration with `metrics.by_decoding`, which scores every combination of the values given in lists.

    The score is the monitored one if objects are decoded for it, else the first one of such a metric.

    Args:
        config: of the run; a metric uses its decoding.
        given: settings of `decoding` by name; those that are no lists are in `config` already.
        spec: of the data set.
        split: that is scored.

    Raises:
        SegbenchError: lists on other images than the validation's, or a decoding that does not fit the data.
    """
    lists = {key: value for key, value in given.items() if isinstance(value, list)}
    if not lists:
        return config
    if split != "val":
        raise SegbenchError(
            " ".join(f"decoding.{key}={value}" for key, value in lists.items()) + f" with split={split}",
            "the images that choose, so that a test tries nothing",
            "set split=val; then score the test with the best one",
        )
    from segbench.experiment.build import build_decoding, build_measures
    from segbench.experiment.check_decoding import refuse_other_cores

    users = users_of_decoding(config)
    metrics = {name: config.metrics[name] for name in users}
    measures = next(iter(build_measures(metrics, spec).values()))
    wanted = (config.monitor or "").rpartition("/")[2]
    scores = {info.name: measure.name for measure in measures for info in measure.infos()}
    score = wanted if wanted in scores else next(iter(scores))
    tried = [dict(zip(lists, values, strict=True)) for values in product(*lists.values())]
    for each in tried:
        refuse_other_cores(config.data.arguments.get("core"), build_decoding(config.decoding, **each), spec.heads)
    own = config.tree["decoding"]
    return config.replace(
        {
            f"metrics.{NAME}": {
                "_target_": f"{ByDecoding.__module__}.{ByDecoding.__name__}",
                "measure": {**config.tree["metrics"][scores[score]], "name": scores[score]},
                "score": score,
                "decodings": [own | each for each in tried],
                "labels": [_label(each) for each in tried],
            }
        }
    )


def _label(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{key} {'none' if value is None else value}" for key, value in settings.items())


def chosen(config: Config, scores: Mapping[str, float]) -> dict[str, Any] | None:
    """The decoding with the highest score of those that were tried, of equals the nearest to the run's own.

    Args:
        config: as `with_each_decoding` returned it.
        scores: of the split, by key.

    Returns:
        for results.json: `score` (its key), `value`, and the `settings` in which it differs from the run's own; None
        if none was tried or no score is defined.
    """
    metric = config.metrics.get(NAME)
    if metric is None or metric.target != f"{ByDecoding.__module__}.{ByDecoding.__name__}":
        return None
    arguments, own = metric.arguments, config.tree["decoding"]
    found: list[dict[str, Any]] = []
    for label, settings in zip(arguments["labels"], arguments["decodings"], strict=True):
        name, changes = f"/{arguments['score']}/{label}", {k: v for k, v in settings.items() if own.get(k) != v}
        values = ((key, value) for key, value in scores.items() if key.endswith(name) and not math.isnan(value))
        found += [{"score": key, "value": value, "settings": changes} for key, value in values]
    return max(found, key=lambda each: (each["value"], -len(each["settings"])), default=None)
