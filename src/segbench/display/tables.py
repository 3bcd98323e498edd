"""The table at the end of a run: our scores beside the baseline and the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from rich.table import Table

from segbench.config.record import Config, Paper
from segbench.display.digits import number
from segbench.runtime.console import Console
from segbench.spec import OF_CLASSES, of_class

RAND_DEFINITIONS = """rand_error: the challenge's program since 2015; rand_error_pairs: before;
which one the server of 2015 ran is not known"""
MOST_CLASSES = 12
"""With more classes only the worst and the best are shown."""
_TITLES = {"iu": "IU", "dice": "Dice"}


def score_table(scores: Mapping[str, float], split: str, title: str, model: str, paper: Paper | None) -> Table:
    """Scores of a split over all classes; `class_table` has those of each.

    Args:
        scores: by key, e.g. `test/mean_iu`.
        split: whose scores are shown.
        title: of the table.
        model: heads our column.
        paper: the experiment's `paper:` block, or None.
    """
    own = {key.removeprefix(f"{split}/"): value for key, value in scores.items() if key.startswith(f"{split}/")}
    shown = {name: value for name, value in own.items() if of_class(name) is None}
    baseline = shown.pop("threshold_mean_iu", None)
    published: Mapping[str, float] = paper.metrics if paper else {}
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("metric")
    table.add_column(model, justify="right")
    if baseline is not None:
        table.add_column("best global threshold", justify="right")
    if paper:
        table.add_column(f"paper: {paper.method or ''}", justify="right")
    for name, value in shown.items():
        row = [name, _show(value)]
        if baseline is not None:
            row.append(_show(baseline) if name == "mean_iu" else "")
        if paper:
            row.append(_show(published.get(name)))
        table.add_row(*row)
    for name in (name for name in published if name not in shown):
        table.add_row(name, "", *([""] if baseline is not None else []), _show(published[name]))
    captions = [f"paper: {paper.source or ''}"] if paper else []
    captions += [f"not comparable: {paper.not_comparable}"] if paper and paper.not_comparable else []
    if "rand_error_pairs" in shown:
        captions.append(RAND_DEFINITIONS)
    table.caption = "\n".join(captions)
    return table


def class_table(scores: Mapping[str, float], split: str) -> Table | None:
    """IU and Dice of each class of a split; where there are many, those of the worst and the best.

    Args:
        scores: by key, e.g. `test/iu/cell`.
        split: whose scores are shown.

    Returns:
        None if no class has a score.
    """
    rows: dict[str, dict[str, float]] = {}
    for key, value in scores.items():
        found = of_class(key)
        if found is not None and key.startswith(f"{split}/"):
            family, name = found
            head = key.removeprefix(f"{split}/").removesuffix(f"{family}/{name}")
            rows.setdefault(f"{head}{name}", {})[family] = value
    if not rows:
        return None
    shown, left_out = list(rows), 0
    if len(rows) > MOST_CLASSES:
        # Those without a score are neither.
        ranked = sorted(
            (name for name in rows if isfinite(_leading(rows[name]))), key=lambda name: _leading(rows[name])
        )
        ends = MOST_CLASSES // 2
        shown = [*ranked[:ends], *ranked[max(ends, len(ranked) - ends) :]]
        left_out = len(rows) - len(shown)
    families = [family for family in OF_CLASSES if any(family in row for row in rows.values())]
    table = Table(title_justify="left", caption_justify="left")
    table.add_column("class")
    for family in families:
        table.add_column(_TITLES[family], justify="right")
    for name in shown:
        table.add_row(name, *(_show(rows[name].get(family)) for family in families))
    if left_out:
        table.caption = f"the worst and the best of {len(rows)} classes; results.json has the other {left_out}"
    return table


def _leading(row: Mapping[str, float]) -> float:
    return next(iter(row.values()))


def averaged_over(protocol: Mapping[str, Any]) -> str:
    """What the predictions were averaged over, and at which scales; `protocol` is that of results.json."""
    scales = protocol.get("tta_scales")
    averaged = str(protocol.get("tta")) if not scales else f"{protocol['tta']} {', '.join(map(str, scales))}"
    averaged += f", images resized by {protocol['input_scale']:g}" if "input_scale" in protocol else ""
    return averaged + (f", grey values matched to {digest[:12]}" if (digest := protocol.get("match_histogram")) else "")


def decoded_by(protocol: Mapping[str, Any]) -> str:
    """The settings of the decoding in which an evaluation differs from its run; `protocol` is that of results.json."""
    return ", ".join(f"{key} {value}" for key, value in protocol.get("decoding", {}).items())


def print_results(
    config: Config,
    directory: Path,
    scores: Mapping[str, float],
    split: str,
    protocol: Mapping[str, Any],
    timing: Mapping[str, float],
    partial: object = None,
    partial_validation: object = None,
) -> None:
    """Print the table, its protocol and times, and where the run is.

    Args:
        config: of the run.
        directory: the run's.
        scores: by key.
        split: whose scores are shown.
        protocol: how they were computed.
        timing: seconds and steps.
        partial: how much of the split was counted, as it is printed; no paper stands beside such scores. None: all.
        partial_validation: likewise of the validations.
    """
    # Without a terminal, lines are not cut to its width.
    console = Console(soft_wrap=True)
    if any(key.startswith(f"{split}/") for key in scores):
        title = f"{config.name}: {split}, {protocol['checkpoint']} checkpoint, tta {averaged_over(protocol)}"
        title += f", mean of {len(protocol['ensemble']) + 1} networks" if protocol.get("ensemble") else ""
        title += ", calibrated" * ("calibration" in protocol)
        title += f", median of radius {protocol['median']}" if "median" in protocol else ""
        title += f", contours of sigma {protocol['contours']:g}" if "contours" in protocol else ""
        title += f", decoding with {decoded}" if (decoded := decoded_by(protocol)) else ""
        if config.debug is not None:
            title = f"DEBUG, {config.debug}: {title}"
        if partial is not None:
            title = f"PARTIAL, {partial}: {title}"
        # What the paper prints is of its test images, each of them counted.
        paper = config.paper if partial is None and split == "test" and config.debug is None else None
        console.print(score_table(scores, split, title, config.model.name, paper))
        if (classes := class_table(scores, split)) is not None:
            console.print(classes)
    console.print(f"data:  {protocol['dataset']}, {protocol['split']}")
    if partial_validation is not None and split != "val":
        console.print(f"       validated on {partial_validation}, by which the best checkpoint is chosen")
    steps = f"{timing['steps']:.0f} steps in {timing['fit_s']:.0f} s; " if "fit_s" in timing else ""
    if waited := data_wait(timing):
        steps += f"waiting for data {waited}; "
    console.print(f"time:  {steps}evaluation {timing.get('evaluate_s', 0):.0f} s")
    console.print(f"run:   {directory}")


def data_wait(timing: Mapping[str, float]) -> str:
    """How long a training waited for data, as text; "" where a run did not measure it."""
    if not timing.get("train_s"):
        return ""
    return f"{timing['data_wait_s']:.0f} s, {timing['data_wait_s'] / timing['train_s']:.0%} of its steps' time"


def _show(value: float | None) -> str:
    return "" if value is None else number(value)
