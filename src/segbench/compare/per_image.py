"""Reads `per_image.npz`, the counts that a run kept of each image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segbench.compare.counts import ImageCounts, pool, reduced
from segbench.compare.definitions import run_heads, run_measures
from segbench.compare.records import RunRecord
from segbench.config.handed_over import parse_json
from segbench.errors import SegbenchError, as_typed
from segbench.metrics.measure import Counts, Measure
from segbench.runs.arrays import read_arrays


def read_counts(run: RunRecord) -> ImageCounts:
    """Read the counts of a run, and the definitions that compute scores from them.

    Raises:
        SegbenchError: there are none, the file is damaged, or this version has other definitions.
    """
    if run.folds:
        return pool([read_counts(fold) for fold in run.folds], run.source)
    if run.path is None:
        raise SegbenchError(
            f"{run.source} is read from {'MLflow' if run.source.startswith('mlflow:') else 'W&B'}, which has no counts "
            "of images",
            "a run directory with per_image.npz",
            "compare the directory of the run",
        )
    path = run.path / "per_image.npz"
    if not path.is_file():
        raise SegbenchError(
            f"no {path}",
            "the counts of every image, which the tests resample",
            f"segbench evaluate {as_typed('run', run.trained or run.path)} split=val (or test), and compare its output",
        )
    ids, split, versions, arrays = _read(path)
    measures = run_measures(run)
    known, unread = _known(run, versions, measures)
    if not known:
        raise SegbenchError(
            f"{path}: {' '.join(unread) or 'no metric in it'}",
            "metrics that this version of segbench can score",
            f"score the run again: segbench evaluate {as_typed('run', run.trained or run.path)}",
        )
    several = len({head for head, _ in measures}) > 1
    data = str(run.protocol.get("dataset", ""))
    try:
        counts = {key: reduced(measures[key], _of(key, arrays)) for key in known}
        by_score = {(key[0], measures[key].infos()[0].name): key for key in known}
        found = ImageCounts(
            source=run.source,
            split=split,
            ids=ids,
            measures={score: measures[key] for score, key in by_score.items()},
            counts={score: counts[key] for score, key in by_score.items()},
            several_heads=several,
            data=data,
            network=run.network,
            dependence=run_heads(run).dependence,
            unread=tuple(unread),
        )
        found.of_all()
    except Exception as error:  # numbers of any shape, given to measures of any class
        raise _damaged(path, f"no scores can be computed from its counts ({error!r})") from error
    return found


def _known(
    run: RunRecord, versions: Mapping[str, str], measures: Mapping[tuple[str, str], Measure]
) -> tuple[list[tuple[str, str]], list[str]]:
    known: list[tuple[str, str]] = []
    unread: list[str] = []
    for named, version in versions.items():
        head, _, name = named.rpartition("/")
        measure = measures.get((head, name))
        if measure is None:
            unread.append(f"{run.source}: {named} is not among the metrics of its configuration.")
        elif measure.version != version:
            unread.append(
                f"{run.source}: {named} was counted by definition {version}, this version of segbench has "
                f"{measure.version}; its scores are not tested."
            )
        else:
            known.append((head, name))
    return known, unread


def _of(key: tuple[str, str], arrays: Mapping[str, NDArray[np.generic]]) -> Counts:
    start = f"{key[0]}/{key[1]}/"
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


def _damaged(path: Path, why: str) -> SegbenchError:
    return SegbenchError(
        f"{path} is damaged: {why}",
        "the file as segbench wrote it: ids, split, versions and counts with one row per image",
        f"score the run again: segbench evaluate {as_typed('run', path.parent)}",
    )


def _read(path: Path) -> tuple[tuple[str, ...], str, dict[str, str], dict[str, NDArray[np.generic]]]:
    try:
        arrays = read_arrays(path)
        ids = tuple(str(name) for name in arrays.pop("ids"))
        split: str
        versions: dict[str, str]
        split, versions = (
            str(arrays.pop("split")),
            parse_json(str(arrays.pop("versions")), "its versions", dict[str, str]),
        )
    except SegbenchError as error:
        raise _damaged(path, error.found) from error
    except (KeyError, TypeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    wrong = [key for key, array in arrays.items() if array.shape[:1] != (len(ids),) or array.dtype.kind not in "iuf"]
    if wrong:
        raise _damaged(path, f"{wrong[0]} does not hold numbers of {len(ids)} images")
    if len(set(ids)) != len(ids):
        raise _damaged(path, "it contains an image twice")
    if not ids:
        raise _damaged(path, "it contains no image")
    return ids, split, versions, arrays
