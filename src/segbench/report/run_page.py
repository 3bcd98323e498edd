"""One run: scores next to the paper's, curves, confusions, images, provenance and cost."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from segbench.compare.columns import choose_columns
from segbench.compare.definitions import run_heads, score_infos
from segbench.compare.document import Table
from segbench.compare.grouping import group_runs
from segbench.compare.records import RunRecord
from segbench.config.handed_over import read_json
from segbench.config.paper import packaged_facts, paper_blocks
from segbench.display.digits import number
from segbench.display.html import part
from segbench.display.tables import averaged_over, data_wait, decoded_by
from segbench.errors import SegbenchError, as_typed
from segbench.report.figures import bars, confusion, curves
from segbench.report.pieces import chart, facts, folded, picture, sentences, table
from segbench.runs.arrays import read_arrays
from segbench.runs.curves import rows as rows_of
from segbench.runs.directory import Metered, Run
from segbench.runs.provenance import computing_of, hardware_of
from segbench.spec import HeadSpec, of_class

_MAX_PICTURES = 12


def run_sections(run: RunRecord, metric: str | None = None) -> dict[str, Markup]:
    """HTML by heading.

    Args:
        run: a run directory's record.
        metric: the leading score; None for the paper's, then the one that selected the checkpoint.

    Raises:
        SegbenchError: the run has no such score.
    """
    assert run.path is not None
    drawn: dict[str, tuple[str, Callable[[], Markup]]] = {
        "Images": ("extremes or panels", partial(_pictures, run.path)),
        "Deviations": ("deviations.json", partial(_deviations, run)),
        "Curves": ("metrics.csv", partial(_curves, run.trained or run.path)),
        "Classes": ("per_image.npz", partial(_classes, run)),
        "Cost": ("energy.json or the results of a stage", partial(_cost, run)),
        "Provenance": ("results.json or overrides.yaml", partial(_provenance, run)),
        "Configuration": ("config.yaml", partial(folded, "the whole configuration", dict(run.config))),
    }
    return {"Scores": _scores(run, metric)} | {heading: _drawn(run, *how) for heading, how in drawn.items()}


def _drawn(run: RunRecord, files: str, draw: Callable[[], Markup]) -> Markup:
    """A section; a sentence where its file is damaged, as the others are still worth a page."""
    try:
        return draw()
    except Exception as error:
        # Libraries and lookups fail in any way over a file that somebody damaged.
        why = error.found if isinstance(error, SegbenchError) else f"{type(error).__name__}: {error}"
        return part("sentence", f"{files} of {run.trained or run.path} cannot be read: {why}")


def _scores(run: RunRecord, metric: str | None) -> Markup:
    paper, why_not = _paper(run)
    printed: Mapping[str, float] = paper.get("metrics") or {}
    infos = {}
    notes = list(why_not)
    if run.partial is not None:
        notes.append(
            f"Partial: {run.partial} of {run.split} were counted. Score it whole: "
            f"segbench evaluate {as_typed('run', run.trained)}"
        )
    try:
        infos = score_infos(run)
    except SegbenchError as error:
        notes.append(f"It is not known which scores are better when higher: {error.found}.")
    rows = []
    columns = group_runs([run]).columns
    leading = choose_columns(columns, [metric], run.split) if metric else ()
    for column in dict.fromkeys((*leading, *choose_columns(columns, split=run.split))):
        value, name = run.metrics[column.key], column.name
        theirs = printed.get(name)
        apart = "" if theirs is None or math.isnan(value) else number(value - theirs, sign=True)
        better = {True: "higher", False: "lower", None: ""}[infos[name].higher_is_better if name in infos else None]
        beside = ("" if theirs is None else number(theirs), apart) if printed else ()
        rows.append((name, number(value), *beside, better))
    missing = [name for name in printed if f"{run.split}/{name}" not in run.metrics]
    if paper:
        notes.append(f"The paper's row: {paper.get('method')}, {paper.get('source')}.")
        notes += [f"Not comparable: {reason}." for reason in [paper.get("not_comparable")] if reason]
        notes += [f"The paper prints {name} ({number(printed[name])}), which is not scored here." for name in missing]
    header = ("score", "this run", *(("paper", "difference") if printed else ()), "better")
    numeric = (False, *(True for _ in header[2:]), False)
    shown = Table("scores", f"scores on {run.split}", header, tuple(rows), numeric)
    chosen, by = run.protocol.get("checkpoint"), run.protocol.get("checkpoint_chosen_by")
    how = {
        "experiment": run.name,
        "split": f"{run.split}: {run.protocol.get('dataset')}, {run.protocol.get('split')}",
        "checkpoint": f"{chosen}, selected by {by}" if by else chosen,
        "averaged over": averaged_over(run.protocol),
        "networks": _networks(run),
        "calibrated": ", ".join(run.protocol.get("calibration", {})) and "by a cubic polynomial of training images",
        "median filter": f"radius {run.protocol['median']} pixels" if "median" in run.protocol else "",
        "contours": f"sigma {run.protocol['contours']:g} pixels" if "contours" in run.protocol else "",
        "decoding": decoded_by(run.protocol),
        "precision": run.protocol.get("precision"),
    }
    return facts(how) + part("group", "tables", [*_class_scores(run), table(shown)]) + sentences(notes)


def _networks(run: RunRecord) -> str | None:
    beside = [str(member.get("run")) for member in run.protocol.get("ensemble") or ()]
    return f"the mean of {len(beside) + 1}: this one, {', '.join(beside)}" if beside else None


def _paper(run: RunRecord) -> tuple[Mapping[str, Any], list[str]]:
    """The paper's row, if it stands beside this run's scores, and why it does not."""
    assert run.path is not None
    paper: Mapping[str, Any] = packaged_facts(run.config.get("paper")) or {}
    # What the paper prints is of its test images, each of them counted.
    if not paper or run.partial is not None or run.split != "test" or run.protocol.get("paper", paper) is None:
        return {}, []
    if paper.get("experiment") in paper_blocks() and not Run(run.path).deviations():
        writes = (
            f"segbench train {as_typed('resume', run.path)}" if run.path == run.trained else "evaluate the run again"
        )
        return {}, [f"No paper stands beside it, as its deviations are not recorded: {writes}."]
    return paper, []


def _deviations(run: RunRecord) -> Markup:
    assert run.path is not None
    found = Run(run.path).deviations()
    reasons, named = (found.get(key) for key in ("not_comparable", "deviations"))
    listed = [f"Not comparable: {each}." for each in reasons] if isinstance(reasons, list) else []
    return sentences([*listed, *map(str, named)] if isinstance(named, list) else [])


def _curves(directory: Path) -> Markup:
    series = read_curves(directory)
    groups: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for name, points in series.items():
        groups.setdefault(_group(name), {})[name] = points
    drawn = []
    for label, members in groups.items():
        caption = f"{', '.join(members)} over training steps"
        rows = tuple((name, f"{s[0]:g}", number(v[0]), f"{s[-1]:g}", number(v[-1])) for name, (s, v) in members.items())
        header = ("curve", "first step", "value", "last step", "value there")
        ends = Table(label, caption, header, rows, (False, True, True, True, True))
        drawn.append(chart(curves(members, label, log=label in ("learning rate", "loss")), caption, ends))
    return part("group", "figures", drawn)


def _group(name: str) -> str:
    metric = name.split("/")[-1]
    if metric == "lr":
        return "learning rate"
    if "loss" in name:
        return "loss"
    if name.startswith("train/"):
        return metric.replace("_", " ")
    return "validation errors" if metric.endswith(("_error", "_error_pairs")) else "validation scores"


VARIANTS = (
    "mean_iu_all",
    "mean_iu_present",
    "mean_iu_per_image",
    "rand_error_pairs",
    "v_rand_pooled",
    "fw_iu",
)
"""Other definitions of scores that are already drawn; the table of scores has them."""


def read_curves(directory: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Steps and values of every logged name; single classes are left out.

    Args:
        directory: of a run.

    Raises:
        SegbenchError: as `rows`.
    """
    found: dict[str, tuple[list[float], list[float]]] = {}
    for step, scores in rows_of(directory):
        for name, value in scores.items():
            if name == "epoch" or of_class(name) or name.split("/")[-1] in VARIANTS or not math.isfinite(value):
                continue
            if not name.startswith(("test/", "val/threshold", "partial/")):
                steps, values = found.setdefault(name, ([], []))
                steps.append(float(step))
                values.append(value)
    return found


def _matrices(run: RunRecord) -> list[tuple[str, HeadSpec, NDArray[Any]]]:
    """Of each head what to call it, its classes and its confusion: pixels KK, labelled by predicted.

    Raises:
        SegbenchError, OSError, ValueError, KeyError: the counts of the images cannot be read.
    """
    assert run.path is not None
    path = run.path / "per_image.npz"
    if not path.is_file():
        return []
    heads = run_heads(run).heads
    stored = read_arrays(path, lambda name: name.endswith("/matrix"))
    matrices = {name.split("/")[0]: matrix_NKK.sum(0) for name, matrix_NKK in stored.items()}
    return [
        (f" of {name}" if len(heads) > 1 else "", heads[name], matrix_KK)
        for name, matrix_KK in matrices.items()
        if name in heads and matrix_KK.shape == (heads[name].num_classes, heads[name].num_classes)
    ]


def _of_classes(matrix_KK: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """IU and Dice of each class, NaN where it is neither labelled nor predicted."""
    hit, both = np.diag(matrix_KK), matrix_KK.sum(1) + matrix_KK.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return hit / (both - hit), 2 * hit / both


def _class_scores(run: RunRecord) -> list[Markup]:
    tables = []
    # The section of classes says why.
    with contextlib.suppress(Exception):
        for named, head, matrix_KK in _matrices(run):
            iu, dice = _of_classes(matrix_KK)
            rows = tuple(
                (name, number(float(iu[k])), number(float(dice[k]))) for k, name in enumerate(head.class_names)
            )
            tables.append(
                table(Table("classes", f"classes{named}", ("class", "IU", "Dice"), rows, (False, True, True)))
            )
    return tables


def _classes(run: RunRecord) -> Markup:
    drawn = []
    for named, head, matrix_KK in _matrices(run):
        hit, labelled, predicted = np.diag(matrix_KK), matrix_KK.sum(1), matrix_KK.sum(0)
        iu, dice = _of_classes(matrix_KK)
        share = labelled / max(labelled.sum(), 1)
        rows = tuple(
            (
                *(name, number(float(iu[k])), number(float(dice[k])), f"{share[k]:.2%}"),
                *(f"{labelled[k]:,}", f"{predicted[k]:,}", f"{hit[k]:,}"),
            )
            for k, name in enumerate(head.class_names)
        )
        header = ("class", "IU", "Dice", "share of the pixels", "labelled", "predicted", "both")
        numbers = Table("classes", f"classes{named}", header, rows, (False, *(True for _ in header[1:])))
        by_iu = dict(sorted(zip(head.class_names, map(float, iu), strict=True), key=lambda item: _last_nan(item[1])))
        drawn.append(chart(bars(by_iu, "IU"), f"Intersection over union of each class{named}", numbers))
        caption = f"Confusion{named}: predicted classes of each labelled class's pixels; a row sums to 1, or is empty"
        drawn.append(chart(confusion(matrix_KK, head.class_names), caption))
    return part("group", "figures", drawn)


def _last_nan(value: float) -> float:
    return math.inf if math.isnan(value) else -value


@dataclass(frozen=True)
class _Extreme:
    """An entry of extremes.json."""

    rank: str
    id: str
    score: str
    value: float | None
    file: str


def _pictures(directory: Path) -> Markup:
    """The extremes, then further panels: each image once, splits and merges beside."""
    shown = []
    folder = directory / "panels"
    panels = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.png"))}
    index = directory / "extremes" / "extremes.json"
    for entry in read_json(index, list[_Extreme]) if index.is_file() else []:
        caption = f"{entry.rank} image: {entry.id}, {entry.score} {number(entry.value)}"
        shown.append(picture(index.parent / entry.file, f"{caption}; {_PARTS}", directory))
        panels.pop(entry.id, None)
    marked = [name for name in panels if name.endswith(_MARKED)]
    for name in [*marked, *(name for name in panels if name not in marked)][: max(0, _MAX_PICTURES - len(shown))]:
        what = "splits and merges" if name in marked else _PARTS
        shown.append(picture(panels[name], f"{name.removesuffix(_MARKED)}: {what}", directory))
    return part("group", "pictures", shown)


_PARTS, _MARKED = "image, label, prediction, errors", "-splits-merges"


def _cost(run: RunRecord) -> Markup:
    seconds, steps = run.timing.get("fit_s"), run.timing.get("steps")
    trained = run.trained or run.path
    metered = trained / "energy.json" if trained else None
    energy = read_json(metered, Metered).joules if metered is not None and metered.is_file() else None
    stages = sorted(trained.glob("stages/*/results.json")) if trained else []
    before = sum(Run(path.parent).results()["timing"].get("fit_s", 0.0) for path in stages)
    return facts(
        {
            "training": None if seconds is None else f"{duration(seconds)} ({steps:.0f} steps)",
            "per step": None if not seconds or not steps else f"{seconds / steps * 1e3:.0f} ms, validation included",
            "waiting for data": data_wait(run.timing) or None,
            "earlier stages": f"{duration(before)} ({len(stages)})" if stages else None,
            "evaluation": None if "evaluate_s" not in run.timing else duration(run.timing["evaluate_s"]),
            "energy": "not readable on this machine"
            if energy is None
            else f"{energy / 3.6e6:.3f} kWh, processors and GPUs",
            "machine": hardware_of(run.provenance) if run.provenance.get("processor") else None,
            "computed in": computing_of(run.provenance) or None,
        }
    )


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, rounded for reading."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _provenance(run: RunRecord) -> Markup:
    told, assert_path = run.provenance, run.path
    assert assert_path is not None
    git = told.get("git") or {}
    code = None if not git else f"{git.get('commit')}{' with uncommitted changes' if git.get('dirty') else ''}"
    overrides = assert_path / "overrides.yaml"
    pairs = {
        "command": told.get("command"),
        "overrides": " ".join(Run(assert_path).overrides()) if overrides.is_file() else None,
        "code": code,
        "started": told.get("started"),
        # Version 0.1.0 listed what it was resumed with.
        "resumed": (told.get("legs") or 1) - 1 or len(told.get("resumed") or []) or None,
        "continued": "; ".join(run.protocol.get("continued") or []) or None,
        "python": told.get("python"),
        "packages": ", ".join(f"{name} {version}" for name, version in (told.get("versions") or {}).items()),
        "platform": told.get("platform"),
        "directory": run.source,
    }
    return facts(pairs)
