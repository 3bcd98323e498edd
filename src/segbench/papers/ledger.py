"""The ledger: one YAML file per reproduced row, written only by `segbench reproduce`, and the tables made from it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from segbench.config.packaged import conf_root, read_yaml
from segbench.display.digits import number, spread
from segbench.errors import SegbenchError
from segbench.runtime.files import write_whole

SCHEMA = 1
TOLERANCE = 0.01
"""A row counts as reproduced within one point of an overlap score: public reproductions of FCN differ by up to 0.8."""
ERROR_TOLERANCE = 0.1
"""... or within a tenth of an error, to which that scale does not apply."""


def published() -> dict[str, Any]:
    """The papers' rows: `{row: {source, methods: [{method, metrics, of_others, data}]}}`."""
    rows: dict[str, Any] = read_yaml(Path(__file__).with_name("published.yaml"))
    return rows


def default_folder() -> Path:
    """`benchmarks/ledger` of a clone; without one, of the working directory."""
    clone = conf_root().parent
    return (clone if (clone / "pyproject.toml").is_file() else Path()) / "benchmarks" / "ledger"


def paper_blocks(experiments: Path | None = None) -> dict[str, dict[str, Any]]:
    """The `paper:` block of every experiment that has one, merged with inherited ones; quick, as it needs no Hydra.

    Args:
        experiments: the folder; None takes the packaged one.
    """
    folder = experiments or conf_root() / "experiment"
    blocks = {path.stem: _paper(folder, path.stem) for path in sorted(folder.glob("*.yaml"))}
    return {name: block for name, block in blocks.items() if block.get("row") and not name.startswith("_")}


def _paper(folder: Path, name: str) -> dict[str, Any]:
    content = read_yaml(folder / f"{name}.yaml")
    parents = [entry for entry in content.get("defaults", []) if isinstance(entry, str) and entry != "_self_"]
    merged: dict[str, Any] = {}
    for block in [*(_paper(folder, parent) for parent in parents), content.get("paper") or {}]:
        merged |= block
    return merged


def summarise(scores: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, Any]]:
    """Mean, standard deviation (over seeds, n - 1) and single values of every score that all runs have."""
    names = [name for name in scores[0] if all(each.get(name) is not None for each in scores)]
    table = {}
    for name in names:
        values = [float(each[name] or 0.0) for each in scores]
        spread = statistics.stdev(values) if len(values) > 1 else None
        table[name] = {"mean": statistics.fmean(values), "std": spread, "n": len(values), "values": values}
    return table


def verdict(paper: Mapping[str, float], ours: Mapping[str, Mapping[str, Any]], other_images: Sequence[str]) -> str:
    """`reproduced`, `off by x (metric)`, or `not comparable`.

    Reproduced means that every score that the paper prints is met within the tolerance, or is better.

    Args:
        paper: published scores.
        ours: as `summarise` gives them.
        other_images: why the scores are of other images than the paper's.
    """
    common = {name: ours[name]["mean"] - value for name, value in paper.items() if name in ours}
    if other_images or not common:
        return "not comparable"
    worse = {name: _worse_by(name, difference, paper[name]) for name, difference in common.items()}
    name = max(worse, key=lambda each: worse[each])
    return "reproduced" if worse[name] <= 1 else f"off by {abs(common[name]):.4f} ({name})"


def _worse_by(name: str, difference: float, value: float) -> float:
    """How much worse than published, in tolerances."""
    if name.endswith("_error"):
        return difference / max(ERROR_TOLERANCE * value, math.ulp(0.0))
    return -difference / TOLERANCE


def write_row(folder: Path, row: Mapping[str, Any]) -> Path:
    """Write a row; the file has its experiment's name and replaces an earlier one.

    Raises:
        SegbenchError: the folder cannot be written.
    """
    path = folder / f"{row['experiment']}.yaml"
    head = "# Written by `segbench reproduce`; not edited by hand.\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump({"schema": SCHEMA, **row}, sort_keys=False, width=120, allow_unicode=True)
        write_whole(path, head + text)
    except OSError as error:
        raise SegbenchError(
            f"{path} cannot be written: {error.strerror or error}", "a folder for the ledger", "set ledger=DIR"
        ) from error
    return path


def read_rows(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows by experiment.

    Raises:
        SegbenchError: a file of another version, or not of the ledger.
    """
    rows = {}
    for path in sorted(folder.glob("*.yaml")):
        row = read_yaml(path)
        if not isinstance(row, dict) or row.get("schema") != SCHEMA:
            raise SegbenchError(
                f"{path} is not a row of the ledger of version {SCHEMA}",
                "files that `segbench reproduce` wrote",
                f"move it away, or write it again: segbench reproduce {path.stem}",
            )
        rows[path.stem] = row
    return rows


COLUMNS = ("row", "method", "experiment", "score", "paper", "ours", "n", "verdict")


def table(rows: Mapping[str, Mapping[str, Any]], blocks: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Every published row with its state, one line per score; rows that were not run say so.

    Args:
        rows: of the ledger, by experiment.
        blocks: `paper:` blocks by experiment.
    """
    lines: list[dict[str, str]] = []
    for name, published_row in published().items():
        for method in published_row["methods"]:
            mine = [e for e, block in blocks.items() if (block["row"], block["method"]) == (name, method["method"])]
            if not mine:
                state = "of others" if method.get("of_others") else "no experiment"
                lines += _lines(name, method["method"], "", method["metrics"], {}, state)
            for experiment in mine:
                row = rows.get(experiment, {})
                paper = blocks[experiment].get("metrics", method["metrics"])
                state = str(row.get("verdict", "not run"))
                lines += _lines(name, method["method"], experiment, paper, row.get("ours") or {}, state)
    return lines


def _lines(
    row: str, method: str, experiment: str, paper: Mapping[str, float], ours: Mapping[str, Any], state: str
) -> Iterable[dict[str, str]]:
    for line, (metric, value) in enumerate(paper.items()):
        got = ours.get(metric)
        head = (row, method, experiment) if line == 0 else ("", "", "")
        found = "" if got is None else spread(got["mean"], got["std"])
        count = "" if got is None else str(got["n"])
        cells = (*head, metric, number(value), found, count, state if line == 0 else "")
        yield dict(zip(COLUMNS, cells, strict=True))


def reasons(rows: Mapping[str, Mapping[str, Any]], experiments: Sequence[str]) -> dict[str, list[str]]:
    """Why rows were not run or are not comparable, with the experiments that each reason applies to.

    Args:
        rows: of the ledger, by experiment.
        experiments: the experiments to explain; those without a row in the ledger have no reason.
    """
    said: dict[str, list[str]] = {}
    for experiment in experiments:
        for reason in rows.get(experiment, {}).get("why") or []:
            said.setdefault(reason, []).append(experiment)
    return said


def markdown(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The README's table: the rows that were run."""
    lines = ["| experiment | score | paper | ours | seeds | verdict |", "| --- | --- | --- | --- | --- | --- |"]
    for experiment, row in rows.items():
        if not row.get("ours"):
            continue
        name = f"`{experiment}`"
        for metric, value in row["paper"]["metrics"].items():
            got = row["ours"].get(metric)
            if got is None:
                continue
            ours = spread(got["mean"], got["std"])
            lines.append(f"| {name} | {metric} | {number(value)} | {ours} | {got['n']} | {row['verdict']} |")
            name = ""
    return "\n".join(lines) + "\n"
