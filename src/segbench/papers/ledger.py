"""The ledger: one YAML file per reproduced row, written only by `segbench reproduce`, and the tables made from it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from segbench.config.handed_over import read_record
from segbench.config.packaged import conf_root, read_yaml
from segbench.config.paper import paper_blocks
from segbench.display.digits import number, spread
from segbench.errors import SegbenchError, as_typed
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


def summarise(scores: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, Any]]:
    """Mean, standard deviation (over seeds, n - 1) and single values of every score that all runs have."""
    names = [name for name in scores[0] if all(each.get(name) is not None for each in scores)]
    table = {}
    for name in names:
        values = [value for each in scores if (value := each[name]) is not None]
        deviation = statistics.stdev(values) if len(values) > 1 else None
        table[name] = {"mean": statistics.fmean(values), "std": deviation, "n": len(values), "values": values}
    return table


def verdict(paper: Mapping[str, float], ours: Mapping[str, Mapping[str, Any]], other_images: Sequence[str]) -> str:
    """`reproduced`, `off by x (metric)`, `incomplete: metric is not scored`, or `not comparable`.

    Reproduced means that every score that the paper prints is met within the tolerance, or is better.

    Args:
        paper: published scores.
        ours: as `summarise` gives them.
        other_images: why the scores are of other images than the paper's.
    """
    common = {name: ours[name]["mean"] - value for name, value in paper.items() if name in ours}
    if other_images:
        return "not comparable"
    if missing := [name for name in paper if name not in common]:
        return f"incomplete: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not scored"
    worse = {name: _worse_by(name, difference, paper[name]) for name, difference in common.items()}
    name = max(worse, key=lambda each: worse[each])
    return "reproduced" if worse[name] <= 1 else f"off by {abs(common[name]):.4f} ({name})"


def _worse_by(name: str, difference: float, value: float) -> float:
    """How much worse than published, in tolerances."""
    if name.endswith("_error"):
        return difference / max(ERROR_TOLERANCE * value, math.ulp(0.0))
    return -difference / TOLERANCE


def beyond(row: str, paper: Mapping[str, float], ours: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Scores that beat the paper's and everything published on its images, a sentence each: they may be of a leak.

    Args:
        row: the paper's table.
        paper: its scores that the experiment reproduces.
        ours: as `summarise` gives them.
    """
    rows = published()
    images = rows.get(row, {}).get("images")
    methods = [
        each
        for name, entry in rows.items()
        if name == row or (images and entry.get("images") == images)
        for each in entry["methods"]
    ]
    flags = []
    for name in (name for name in paper if name in ours):
        plain = name.rpartition("/")[2] if name.startswith("semantic/") else name
        known = {each["method"]: each["metrics"][plain] for each in methods if plain in each["metrics"]}
        known["the paper"] = paper[name]
        best = (min if name.endswith("_error") else max)(known, key=lambda method: known[method])
        if _worse_by(name, ours[name]["mean"] - known[best], known[best]) < -1:
            flags.append(
                f"{name} {number(ours[name]['mean'])} is beyond the best published {number(known[best])} by {best}: "
                "check that no test image trains, and that images and labels are the paper's"
            )
    return flags


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
        row = read_record(path)
        if not isinstance(row, dict) or row.get("schema") != SCHEMA:
            raise SegbenchError(
                f"{path} is not a row of the ledger of version {SCHEMA}",
                "files that `segbench reproduce` wrote",
                f"move it away, or write it again: segbench reproduce {as_typed(path.stem)}",
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
    lines = ["| experiment | score | paper | ours | seeds | verdict | run |", "| --- " * 7 + "|"]
    for experiment, row in rows.items():
        ours_of = row.get("ours") or {}
        shown = {name: ours_of[name] for name in (row["paper"]["metrics"] if ours_of else ()) if name in ours_of}
        first = (f"`{experiment}`", str(row["verdict"]), _when(row))
        for metric, got in shown.items():
            printed, ours = number(row["paper"]["metrics"][metric]), spread(got["mean"], got["std"])
            lines.append(f"| {first[0]} | {metric} | {printed} | {ours} | {got['n']} | {first[1]} | {first[2]} |")
            first = ("", "", "")
    return "\n".join(lines) + "\n"


def _when(row: Mapping[str, Any]) -> str:
    git = row.get("commit") or {}
    code = (
        f"{str(git.get('commit'))[:10]}{' and uncommitted changes' if git.get('dirty') else ''}" if git else "a wheel"
    )
    if "folds" in row:
        on = f", mean of {', '.join(name.replace('_', ' ') for name in row['folds'])}"
    else:
        seen = (paper_blocks().get(str(row.get("experiment"))) or {}).get("looked_at") or {}
        on = ", on test images that were looked at before" if seen.get("null") else ""
    # Rows of older versions name it among their deviations.
    machine = "".join(f", {each}" for each in row.get("machine") or [])
    return f"{row.get('date')}, {code}{on}{machine}"
