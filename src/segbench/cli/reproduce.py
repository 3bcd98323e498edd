"""Train and score a paper's experiment, and compare: `segbench reproduce EXPERIMENT [seeds=0,1,2] [OVERRIDE ...]`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segbench.cli.arguments import pairs, quoted
from segbench.config.own_targets import opened
from segbench.config.paper import paper_blocks
from segbench.config.trust import names_in
from segbench.display.digits import number, spread
from segbench.errors import SegbenchError, say
from segbench.papers.ledger import (
    COLUMNS,
    default_folder,
    markdown,
    published,
    read_rows,
    reasons,
    table,
)
from segbench.papers.reproduce import Order, reproduce

USAGE = """\
usage: segbench reproduce EXPERIMENT [seeds=0,1,2] [folds=0,1,2] [output=DIR] [ledger=DIR] [allow_dirty=true]
                          [trust=NAME] [OVERRIDE ...] [--config-dir DIR]
       segbench reproduce --list [format=markdown] [ledger=DIR]

Prepares the data, trains every seed (stages before it included), scores by the experiment's protocol, and writes a row
of the ledger: the paper's numbers, ours, the difference, a verdict, every deviation from the protocol, cost, command.
The same command resumes where it was cut off; finished runs are reused.

  seeds=0,1,2    one run each; default: the experiment's own seed
  folds=0,1,2    every seed on each of these folds (data.fold); the row has their mean, without those whose test images
                 were looked at before, which stand apart
  output=DIR     of the runs: DIR/seed_0 ..., DIR/fold_0/seed_0 ...; default outputs/reproduce/EXPERIMENT
  ledger=DIR     of the rows; default benchmarks/ledger
  allow_dirty=true   run code that is in no commit; the row says so
  trust=NAME     a class of your own that the runs name, or [NAME,NAME]
  --list         every row of the papers with its state; format=markdown prints the README's table of rows that were run
"""


def main() -> None:
    """The entry point; sys.argv holds an experiment, key=value pairs and overrides."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        say(USAGE, end="")
        return
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        if "--list" in arguments:
            _list([argument for argument in arguments if argument != "--list"])
        else:
            _run(arguments)
    except KeyboardInterrupt:
        say("\nstopped; the same command continues from here", file=sys.stderr)
        raise SystemExit(130) from None


def _list(arguments: Sequence[str]) -> None:
    bare, given = pairs(arguments, ("format", "ledger"), "reproduce")
    if bare:
        raise SegbenchError(f"--list with {bare[0]}", "format= and ledger= alone", "segbench reproduce --help")
    rows = read_rows(Path(given.get("ledger", default_folder())))
    if given.get("format", "terminal") == "markdown":
        say(markdown(rows), end="")
        return
    if given.get("format", "terminal") != "terminal":
        raise SegbenchError(f"format={given['format']}", "markdown, or none", "correct format=")
    from rich.table import Table

    from segbench.runtime.console import Console

    console = Console()
    if not console.is_terminal:
        # Without a terminal no line is cut to its width.
        console = Console(width=160)
    lines = table(rows, paper_blocks())
    starts = [number for number, line in enumerate(lines) if line["row"]]
    for name, entry in published().items():
        shown = Table(title=f"{name}: {entry['source']}", title_justify="left")
        experiments = []
        for column in COLUMNS[1:]:
            shown.add_column(column, justify="right" if column in ("paper", "ours", "n") else "left")
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            if lines[start]["row"] == name:
                experiments.append(lines[start]["experiment"])
                for line in lines[start:end]:
                    shown.add_row(*(line[column] for column in COLUMNS[1:]))
        console.print(shown)
        for reason, of in reasons(rows, experiments).items():
            console.print(f"{', '.join(of)}: {reason}", markup=False, soft_wrap=True)
        console.print()


def _order(arguments: Sequence[str]) -> Order:
    rest = list(arguments)
    config_dir = None
    if "--config-dir" in rest:
        at = rest.index("--config-dir")
        config_dir = Path(*rest[at + 1 : at + 2])
        del rest[at : at + 2]
    experiment = rest.pop(0).removeprefix("experiment=")
    names = ("seeds", "folds", "output", "ledger", "allow_dirty", "trust")
    ours = {argument for argument in rest if argument.partition("=")[0] in names}
    _, own = pairs([argument for argument in rest if argument in ours])
    overrides = opened(quoted([argument for argument in rest if argument not in ours]))
    bare = [a for a in overrides if "=" not in a and not a.startswith("~")]
    if bare:
        raise SegbenchError(f"{bare[0]}", "one experiment, and key=value pairs", "segbench reproduce --help")
    if own.get("allow_dirty", "false") not in ("true", "false"):
        raise SegbenchError(f"allow_dirty={own['allow_dirty']}", "true or false", "correct allow_dirty=")
    seeds, folds = _numbers("seeds", own), _numbers("folds", own)
    outputs = Path(os.environ.get("SEGBENCH_OUTPUTS", "outputs"))
    output = Path(own.get("output", outputs / "reproduce" / experiment))
    ledger = Path(own.get("ledger", default_folder()))
    dirty = own.get("allow_dirty") == "true"
    trust = names_in(own.get("trust"))
    return Order(experiment, seeds, folds, output, ledger, overrides, config_dir, dirty, trust)


def _numbers(key: str, given: Mapping[str, str]) -> tuple[int, ...]:
    numbers = [each for each in given.get(key, "").split(",") if each]
    if not all(each.isdecimal() for each in numbers) or len(set(numbers)) < len(numbers):
        raise SegbenchError(f"{key}={given[key]}", f"different whole numbers, e.g. {key}=0,1,2", f"correct {key}=")
    return tuple(map(int, numbers))


def _run(arguments: Sequence[str]) -> None:
    # Others type the command without the paths of this machine.
    shared = [each for each in arguments if not each.startswith(("output=", "ledger="))]
    command = shlex.join(["segbench", "reproduce", *(_without_paths(argument) for argument in shared)])
    reproduce(_order(arguments), command, _print)


def _without_paths(argument: str) -> str:
    key, given, value = argument.partition("=")
    if not given or "/" in key:
        return argument if "/" not in argument else "DIR"
    return f"{key}=FOLDER" if "/" in value or (len(value) > 1 and Path(value).exists()) else argument


def _print(row: Mapping[str, Any], path: Path) -> None:
    from rich.table import Table

    from segbench.runtime.console import Console

    console = Console(soft_wrap=True)
    shown = Table(title=f"{row['experiment']}: {row['method']}, {row['paper']['source']}", title_justify="left")
    for column in ("score", "paper", "ours", "n", "difference"):
        shown.add_column(column, justify="left" if column == "score" else "right")
    ours = row.get("ours") or {}
    for name, value in row["paper"]["metrics"].items():
        got = ours.get(name)
        cells = ("", "", "")
        if got is not None:
            cells = (spread(got["mean"], got["std"]), str(got["n"]), number(got["mean"] - value, sign=True))
        shown.add_row(name, number(value), *cells)
    console.print(shown)
    console.print(f"verdict: {row['verdict']}" + "".join(f"\n  {each}" for each in row.get("why", [])))
    for each in row.get("flags", []):
        console.print(f"check:   {each}", markup=False)
    for name, scores in {**row.get("folds", {}), **row.get("apart", {})}.items():
        shown_scores = ", ".join(f"{metric} {spread(got['mean'], got['std'])}" for metric, got in scores.items())
        apart = ", not in the mean" if name in row.get("apart", {}) else ""
        console.print(f"{name.replace('_', ' ')}:  {shown_scores}{apart}", markup=False)
    if row.get("deviations"):
        console.print("deviations from the paper's protocol:")
        for each in row["deviations"]:
            console.print(f"  {each}", markup=False)
    console.print(f"row:     {path}")
