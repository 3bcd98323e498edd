"""The table at the end of a run: our scores beside the baseline and the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from segbench.config.record import Config, Paper
from segbench.display.digits import number

RAND_DEFINITIONS = """rand_error: the challenge's program since 2015; rand_error_pairs: before;
which one the server of 2015 ran is not known"""


def score_table(scores: Mapping[str, float], split: str, title: str, model: str, paper: Paper | None) -> Table:
    """Scores of a split; per-class IU is only in results.json.

    Args:
        scores: by key, e.g. `test/mean_iu`.
        split: whose scores are shown.
        title: of the table.
        model: heads our column.
        paper: the experiment's `paper:` block, or None.
    """
    own = {key.removeprefix(f"{split}/"): value for key, value in scores.items() if key.startswith(f"{split}/")}
    shown = {name: value for name, value in own.items() if "/iu/" not in f"/{name}"}
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
    if "rand_error_pairs" in shown:
        captions.append(RAND_DEFINITIONS)
    table.caption = "\n".join(captions)
    return table


def print_results(
    config: Config,
    directory: Path,
    scores: Mapping[str, float],
    split: str,
    protocol: Mapping[str, Any],
    timing: Mapping[str, float],
) -> None:
    """Print the table, its protocol and times, and where the run is."""
    # Without a terminal, lines are not cut to its width.
    console = Console(highlight=False, soft_wrap=True)
    if any(key.startswith(f"{split}/") for key in scores):
        title = f"{config.name}: {split}, {protocol['checkpoint']} checkpoint, tta {protocol['tta']}"
        console.print(score_table(scores, split, title, config.model.name, config.paper))
    console.print(f"data:  {protocol['dataset']}, {protocol['split']}")
    steps = f"{timing['steps']:.0f} steps in {timing['fit_s']:.0f} s; " if "fit_s" in timing else ""
    console.print(f"time:  {steps}evaluation {timing.get('evaluate_s', 0):.0f} s")
    console.print(f"run:   {directory}")


def _show(value: float | None) -> str:
    return "" if value is None else number(value)
