"""A paper's number beside ours: `segbench reproduce EXPERIMENT [seeds=0,1,2] [OVERRIDE ...]`."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.config import conf_root
from segbench.digits import number, spread
from segbench.errors import SegbenchError
from segbench.ledger import (
    COLUMNS,
    default_folder,
    markdown,
    paper_blocks,
    published,
    read_rows,
    reasons,
    summarise,
    table,
    verdict,
    write_row,
)
from segbench.runs import Run

if TYPE_CHECKING:
    from segbench.stages import Stage

USAGE = """\
usage: segbench reproduce EXPERIMENT [seeds=0,1,2] [output=DIR] [ledger=DIR] [OVERRIDE ...] [--config-dir DIR]
       segbench reproduce --list [format=markdown] [ledger=DIR]

Prepares the data, trains every seed (stages before it included), scores by the experiment's protocol, and writes a row
of the ledger: the paper's numbers, ours, the difference, a verdict, every deviation from the protocol, cost, command.
The same command goes on where it was cut off; runs that are finished are taken as they are.

  seeds=0,1,2    one run each; without it the experiment's own seed
  output=DIR     of the runs: DIR/seed_0 ...; default outputs/reproduce/EXPERIMENT
  ledger=DIR     of the rows; default benchmarks/ledger
  --list         every row of the papers with its state; format=markdown gives the README's table of those that were run
"""


@dataclass(frozen=True)
class Composed:
    """An experiment as it will run.

    Attributes:
        config: resolved, plain containers.
        stages: what runs before it.
        data: the name of its data set's config.
    """

    config: dict[str, Any]
    stages: tuple[Stage, ...]
    data: str


def main() -> None:
    """The entry point; sys.argv holds an experiment, key=value pairs and overrides."""
    from segbench.entry import fail

    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        if "--list" in arguments:
            _list([argument for argument in arguments if argument != "--list"])
        else:
            raise SystemExit(_run(arguments))
    except SegbenchError as error:
        fail(error)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None


def _list(arguments: Sequence[str]) -> None:
    given = _pairs(arguments, ("format", "ledger"))
    rows = read_rows(Path(given.get("ledger", default_folder())))
    if given.get("format", "terminal") == "markdown":
        print(markdown(rows), end="")
        return
    if given.get("format", "terminal") != "terminal":
        raise SegbenchError(f"format={given['format']}", "markdown, or none", "correct format=")
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        # Nothing is cut to the width of a terminal that is not there.
        console = Console(highlight=False, width=160)
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


def _pairs(arguments: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    pairs = dict(argument.partition("=")[::2] for argument in arguments)
    wrong = [key for key in pairs if key not in known]
    if wrong:
        raise SegbenchError(
            f"{wrong[0]}={pairs[wrong[0]]}", ", ".join(f"{k}=" for k in known), "segbench reproduce --help"
        )
    return pairs


@dataclass(frozen=True)
class Order:
    """What the command line asks for.

    Attributes:
        experiment: its name.
        seeds: one run each.
        output: where the runs go.
        ledger: where the row goes.
        overrides: Hydra's.
        config_dir: configs of the user's own.
    """

    experiment: str
    seeds: tuple[int, ...]
    output: Path
    ledger: Path
    overrides: list[str]
    config_dir: Path | None


def _order(arguments: Sequence[str]) -> Order:
    rest = list(arguments)
    config_dir = None
    if "--config-dir" in rest:
        at = rest.index("--config-dir")
        config_dir = Path(*rest[at + 1 : at + 2])
        del rest[at : at + 2]
    experiment = rest.pop(0).removeprefix("experiment=")
    own = {key: value for key, _, value in (a.partition("=") for a in rest) if key in ("seeds", "output", "ledger")}
    overrides = [a for a in rest if a.partition("=")[0] not in own]
    bare = [a for a in overrides if "=" not in a and not a.startswith("~")]
    if bare:
        raise SegbenchError(f"{bare[0]}", "one experiment, and key=value pairs", "segbench reproduce --help")
    seeds = [each for each in own.get("seeds", "").split(",") if each]
    if not all(each.isdecimal() for each in seeds) or len(set(seeds)) < len(seeds):
        raise SegbenchError(f"seeds={own['seeds']}", "different whole numbers, e.g. seeds=0,1,2", "correct seeds=")
    outputs = Path(os.environ.get("SEGBENCH_OUTPUTS", "outputs"))
    output = Path(own.get("output", outputs / "reproduce" / experiment))
    ledger = Path(own.get("ledger", default_folder()))
    return Order(experiment, tuple(map(int, seeds)), output, ledger, overrides, config_dir)


def _run(arguments: Sequence[str]) -> int:
    order = _order(arguments)
    composed = [_compose(order, seed) for seed in order.seeds or (None,)]
    paper = composed[0].config.get("paper")
    if not paper or not paper.get("metrics"):
        raise SegbenchError(
            f"experiment {order.experiment} stands beside no row of a paper",
            f"one of {', '.join(paper_blocks())}",
            "segbench reproduce --list",
        )
    reference = _reference(order, paper)
    # What a machine settles, and where the files lie, is no part of a command that others type.
    told = [each for each in arguments if not each.startswith(("output=", "ledger="))]
    command = shlex.join(["segbench", "reproduce", *(_without_paths(argument) for argument in told)])
    row = {"experiment": order.experiment, "row": paper["row"], "method": paper["method"], "paper": _of_paper(paper)}
    directories = [order.output / f"seed_{each.config['seed']}" for each in composed]
    for directory, each in zip(directories, composed, strict=True):
        _check_same(directory, each)
    try:
        _have_data(composed[0])
        for directory, each in zip(directories, composed, strict=True):
            _train(directory, order, each)
    except SegbenchError as error:
        if not _has_numbers(order):
            why = [_without_places(error.found, order.overrides)]
            blocked = row | {"verdict": "not run", "why": why, "command": command, "date": time.strftime("%Y-%m-%d")}
            _say(blocked, write_row(order.ledger, blocked))
        raise
    measured = row | _measured(directories, reference, paper) | {"command": command, "date": time.strftime("%Y-%m-%d")}
    _say(measured, write_row(order.ledger, measured))
    return 0


def _compose(order: Order, seed: int | None) -> Composed:
    import hydra
    from hydra.errors import HydraException

    from segbench.entry import plain
    from segbench.stages import compose_stages

    overrides = [f"experiment={order.experiment}", f"name={order.experiment}", *order.overrides]
    overrides += [] if seed is None else [f"seed={seed}"]
    if order.config_dir is not None:
        overrides.append(f"hydra.searchpath=[file://{order.config_dir.resolve()}]")
    with hydra.initialize_config_dir(str(conf_root()), version_base="1.3"):
        try:
            with_choices = hydra.compose("train", overrides, return_hydra_config=True)
            config = plain(hydra.compose("train", overrides))
        except HydraException as error:
            found = str(error).splitlines()[0]
            raise SegbenchError(found, "an experiment and overrides of its keys", "segbench list experiment") from error
        return Composed(config, compose_stages(config, overrides), str(with_choices.hydra.runtime.choices["data"]))


def _reference(order: Order, paper: Mapping[str, Any]) -> dict[str, Any]:
    """The experiment that is the paper's row itself; where the data lie is no part of it."""
    root = [override for override in order.overrides if override.startswith("data.root=")]
    itself = replace(order, experiment=str(paper.get("experiment", order.experiment)), overrides=root)
    return _compose(itself, None).config


def _have_data(composed: Composed) -> None:
    """Build the data set; fetch it where that fails and a recipe is known."""
    from segbench.build import build_dataset

    try:
        build_dataset(composed.config)
    except SegbenchError as missing:
        from segbench.data.downloads import Listener
        from segbench.data.prepare import prepare
        from segbench.data.recipes import PARTS

        if composed.data not in PARTS:
            raise
        print(f"{missing.found}; segbench data prepare {composed.data}", file=sys.stderr)
        listener = Listener(say=lambda said: print(said, file=sys.stderr), progress=lambda *_: None)
        prepare(composed.data, Path(str(composed.config["data"]["root"])), [], None, listener)
        build_dataset(composed.config)


def _check_same(directory: Path, composed: Composed) -> None:
    """Refuse a directory that holds another run."""
    if not (directory / "config.yaml").is_file():
        return
    differing = _differences(composed.config, Run.open(directory).config())
    if differing:
        raise SegbenchError(
            f"{directory} holds a run of another config: {', '.join(differing[:4])}",
            "runs of this experiment with these overrides",
            "choose another output=DIR",
        )


def _differences(wanted: Mapping[str, Any], recorded: Mapping[str, Any], key: str = "") -> list[str]:
    found = []
    # A paper's row is what a run is compared with, not what it does.
    for name in sorted({*wanted, *recorded} - {"paper"}):
        mine, theirs = wanted.get(name), recorded.get(name)
        path = f"{key}.{name}" if key else str(name)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            found += _differences(mine, theirs, path)
        elif mine != theirs and mine != "auto":
            found.append(f"{path}: {theirs}, now {mine}")
    return found


def _train(directory: Path, order: Order, composed: Composed) -> None:
    """Begin, or go on with, the run that belongs there."""
    from segbench.stages import prepare_stages

    if not (directory / "config.yaml").is_file():
        prepare_stages(directory, composed.stages)
        Run.prepare(directory, composed.config, order.overrides)
    run = Run.open(directory)
    if run.state() == "finished":
        print(f"{directory}: finished", file=sys.stderr)
        return
    code = subprocess.run([sys.executable, "-m", "segbench.train", f"resume={directory}"], check=False).returncode
    if code != 0:
        reason = (run.reason() or f"exit code {code}").splitlines()[0]
        raise SegbenchError(reason, f"a finished run in {directory}", "mend it, then give the same command again")


def _has_numbers(order: Order) -> bool:
    return bool(order.ledger.is_dir() and (read_rows(order.ledger).get(order.experiment) or {}).get("ours"))


def _measured(directories: Sequence[Path], reference: Mapping[str, Any], paper: Mapping[str, Any]) -> dict[str, Any]:
    from segbench.deviations import deviations, not_comparable

    runs = [Run.open(directory) for directory in directories]
    results, provenances = [run.results() for run in runs], [run.provenance() for run in runs]
    config = runs[0].config() | {"paper": paper}
    scores = [
        {k.removeprefix("test/"): v for k, v in each["metrics"].items() if k.startswith("test/") and "/iu/" not in k}
        for each in results
    ]
    ours = summarise(scores)
    commits = [str((each["git"] or {}).get("commit")) for each in provenances]
    said = {
        str(run.config()["seed"]): [
            *deviations(run.config() | {"paper": paper}, reference, result, made),
            *([f"code: commit {commit[:10]}"] if len(set(commits)) > 1 else []),
        ]
        for run, result, made, commit in zip(runs, results, provenances, commits, strict=True)
    }
    other = not_comparable(config, reference)
    protocol, printed = results[0]["protocol"], paper["metrics"]
    return {
        "ours": ours,
        "difference": {name: ours[name]["mean"] - value for name, value in printed.items() if name in ours},
        "verdict": verdict(printed, ours, other),
        "why": other,
        "deviations": _of_all(said),
        "data": f"{protocol['dataset']}, {protocol['split']}",
        "seeds": [run.config()["seed"] for run in runs],
        "cost": {
            "steps": results[0]["timing"].get("steps"),
            "hours": round(sum(each["timing"].get("fit_s", 0.0) for each in results) / 3600, 3),
        },
        "versions": provenances[0]["versions"],
        "commit": provenances[0]["git"],
    }


def _of_all(said: Mapping[str, Sequence[str]]) -> list[str]:
    """Sentences on the runs of each seed, each once; one that does not hold for all names its seeds."""
    met = dict.fromkeys(sentence for sentences in said.values() for sentence in sentences)
    seeds = {sentence: [seed for seed, sentences in said.items() if sentence in sentences] for sentence in met}
    return [
        sentence if len(of) == len(said) else f"{sentence} (seed{'s' * (len(of) > 1)} {', '.join(of)})"
        for sentence, of in seeds.items()
    ]


def _of_paper(paper: Mapping[str, Any]) -> dict[str, Any]:
    return {"source": paper.get("source"), "metrics": dict(paper["metrics"])}


def _without_paths(argument: str) -> str:
    key, given, value = argument.partition("=")
    if not given:
        return argument if "/" not in argument else "DIR"
    return f"{key}=FOLDER" if "/" in value or (len(value) > 1 and Path(value).exists()) else argument


def _without_places(text: str, overrides: Sequence[str]) -> str:
    """A reason that says nothing of where this machine keeps its files."""
    for value in sorted((each.partition("=")[2] for each in overrides), key=len, reverse=True):
        if "/" in value:
            text = text.replace(value, "FOLDER")
    return text


def _say(row: Mapping[str, Any], path: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
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
    if row.get("deviations"):
        console.print("deviations from the paper's protocol:")
        for each in row["deviations"]:
            console.print(f"  {each}", markup=False)
    console.print(f"row:     {path}")


if __name__ == "__main__":
    main()
