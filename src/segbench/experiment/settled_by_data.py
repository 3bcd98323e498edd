"""What `auto` settings mean for a data set: class weights, shares and size of tiles, augmentation, batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.config.packaged import conf_root, read_yaml
from segbench.config.record import AUTO_TILE, Config
from segbench.data.class_counts import absent, balanced_weights, class_counts
from segbench.data.glance import Glance, glance
from segbench.data.raw import DataSet
from segbench.errors import SegbenchError
from segbench.experiment.axes import loss_nodes, make_network
from segbench.experiment.batch_size import settle_batch_size
from segbench.inference.forward import geometry_of

_DIGITS = 6
"""Significant digits of a settled number: the record is readable, and the same on every machine."""


def asks_data(config: Config) -> bool:
    """Whether something is left to the data."""
    return "auto" in (config.data.batch_size, config.data.tile, config.data.balance, config.augment.pick) or any(
        _weighted_by_data(config)
    )


def settle_by_data(config: Config, dataset: DataSet) -> tuple[Config, list[str]]:
    """Replace every `auto` that depends on the data by its value for the training split.

    A function of the data and, for the batch size, of the GPU: every process of a run settles the same, and a resume
    finds the values in the record.

    Returns:
        the settled configuration, and a sentence for the log for each setting.

    Raises:
        SegbenchError: there is no training split, or one loss for several heads is to be weighted by `auto`.
    """
    source = dataset.split("train")
    if not asks_data(config):
        return config, []
    if source is None or len(source) == 0:
        raise SegbenchError(
            f"auto settings, and no training images in {dataset.spec.name} ({dataset.spec.protocol})",
            "a training split, from which they are chosen",
            "give numbers in place of auto",
        )
    changes: dict[str, Any] = {}
    sentences: list[str] = []
    if "auto" in (config.data.tile, config.augment.pick):
        seen = glance(source, next(iter(dataset.spec.heads)))
        for settled, sentence in (_tile(config, dataset, seen), _augmentation(config, seen)):
            changes |= settled
            sentences += sentence
    # Every label is read for them.
    counts_of = cache(lambda head: class_counts(source, head, dataset.spec.heads[head].num_classes))
    for key, asked in _weighted_by_data(config):
        head = asked or _only_head(dataset, key)
        settled, sentence = _weights(key, dataset.spec.heads[head].class_names, counts_of(head))
        changes |= settled
        sentences += sentence
    if config.data.balance == "auto":
        head = next(iter(dataset.spec.heads))
        settled, sentence = _shares(dataset.spec.heads[head].class_names, counts_of(head))
        changes |= settled
        sentences += sentence
    settled, sentence = settle_batch_size(config.replace(changes), dataset)
    return config.replace(changes | settled), sentences + sentence


def _weighted_by_data(config: Config) -> Iterator[tuple[str, str]]:
    """The keys of class weights that are `auto`, and the head of each; "" where one loss serves all."""
    for key, node in loss_nodes(config):
        if node.get("class_weights") == "auto":
            yield f"{key}.class_weights", key.split(".")[1] if "" not in config.loss else ""


def _only_head(dataset: DataSet, key: str) -> str:
    heads = list(dataset.spec.heads)
    if len(heads) > 1:
        raise SegbenchError(
            f"{key}=auto of one loss for the heads {', '.join(heads)}",
            "a loss for each head, whose classes are counted",
            f"choose a loss by head: loss@loss.{heads[0]}=cross_entropy ..., or set {key}=null",
        )
    return heads[0]


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _weights(key: str, names: Sequence[str], counts_NK: NDArray[np.int64]) -> tuple[dict[str, Any], list[str]]:
    weights = {name: _rounded(value) for name, value in zip(names, balanced_weights(counts_NK).tolist(), strict=True)}
    shown = ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
    sentences = [f"{key}: {shown} (median frequency balancing of {len(counts_NK)} training images)"]
    if missing := absent(counts_NK, names):
        sentences.append(f"{key}: no training image shows {', '.join(missing)}; weight 1")
    return {key: weights}, sentences


def _shares(names: Sequence[str], counts_NK: NDArray[np.int64]) -> tuple[dict[str, Any], list[str]]:
    missing = absent(counts_NK, names)
    shown = [name for name in names if name not in missing]
    # Rounded down: together they are not more than 1.
    share = math.floor(10**_DIGITS / max(len(shown), 1)) / 10**_DIGITS
    sentences = [f"data.balance: {share:g} of the tiles for each of {', '.join(shown)}"]
    if missing:
        sentences.append(f"data.balance: no training image shows {', '.join(missing)}; no tiles for them")
    return {"data.balance": dict.fromkeys(shown, share)}, sentences


def _tile(config: Config, dataset: DataSet, seen: Glance) -> tuple[dict[str, Any], list[str]]:
    if config.data.tile != "auto":
        return {}, []
    geometry = geometry_of(make_network(config.model, dataset.spec))
    below, above = geometry.nearest(min(AUTO_TILE, seen.side + 2 * geometry.margin))
    tile = above if below is None else below
    return {"data.tile": tile}, [f"data.tile: {tile} (half of the images have a side of {seen.side} pixels or less)"]


def _augmentation(config: Config, seen: Glance) -> tuple[dict[str, Any], list[str]]:
    if config.augment.pick != "auto":
        return {}, []
    given = config.augment.arguments
    chosen = {"_target_": config.augment.target, **given, "pick": None}
    if given.get("transforms") or not config.augment.target.startswith("segbench."):
        return {"augment": chosen}, []
    name, why = seen.augmentation
    packaged = read_yaml(conf_root() / "augment" / f"{name}.yaml")
    transforms = {"transforms": packaged["transforms"], "pick": name}
    return {"augment": {**chosen, **transforms}}, [f"augment: {name}, since {why} (augment=NAME chooses another)"]
