"""A paper's number next to ours: every seed trained by the paper's experiment, and a row of the ledger."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.config.flat import differences
from segbench.config.places import PLACES
from segbench.config.record import Config, Paper
from segbench.errors import SegbenchError
from segbench.papers.ledger import (
    paper_blocks,
    read_rows,
    summarise,
    verdict,
    write_row,
)
from segbench.runs.directory import Run

if TYPE_CHECKING:
    from segbench.experiment.stages import Stage


@dataclass(frozen=True)
class Composed:
    """An experiment as it will run.

    Attributes:
        config: resolved.
        stages: what runs before it.
        data: the name of its data set's config.
    """

    config: Config
    stages: tuple[Stage, ...]
    data: str


@dataclass(frozen=True)
class Order:
    """What the command line asks for.

    Attributes:
        experiment: its name.
        seeds: one run each.
        output: where the runs go.
        ledger: where the row goes.
        overrides: Hydra's.
        config_dir: the user's own configs.
    """

    experiment: str
    seeds: tuple[int, ...]
    output: Path
    ledger: Path
    overrides: list[str]
    config_dir: Path | None


def reproduce(order: Order, command: str, say: Callable[[Mapping[str, Any], Path], None]) -> None:
    """Train every seed, or continue it, and write the row of the ledger.

    Args:
        order: what is asked for.
        command: as recorded in the row, for others to run.
        say: called with the row and its file, also for a row that could not be run.

    Raises:
        SegbenchError: no row of a paper, other runs in the directory, missing data, or a failed run.
    """
    composed = [_compose(order, seed) for seed in order.seeds or (None,)]
    paper = composed[0].config.paper
    if paper is None or not paper.metrics:
        raise SegbenchError(
            f"experiment {order.experiment} reproduces no row of a paper",
            f"one of {', '.join(paper_blocks())}",
            "segbench reproduce --list",
        )
    reference = _reference(order, paper)
    row: dict[str, Any] = {"experiment": order.experiment, "row": paper.row, "method": paper.method}
    row["paper"] = {"source": paper.source, "metrics": paper.metrics}
    directories = [order.output / f"seed_{each.config.seed}" for each in composed]
    for directory, each in zip(directories, composed, strict=True):
        _check_same(directory, each)
    try:
        _have_data(composed[0])
        for directory, each in zip(directories, composed, strict=True):
            _train(directory, order, each)
    except SegbenchError as error:
        if not _has_numbers(order):
            why = [_without_places(error.found, order.overrides, composed[0].config)]
            blocked = row | {"verdict": "not run", "why": why, "command": command, "date": time.strftime("%Y-%m-%d")}
            say(blocked, write_row(order.ledger, blocked))
        raise
    measured = (
        row
        | _measured(directories, reference, composed[0].config)
        | {"command": command, "date": time.strftime("%Y-%m-%d")}
    )
    say(measured, write_row(order.ledger, measured))


def _compose(order: Order, seed: int | None) -> Composed:
    import hydra

    from segbench.config.composed import resolved
    from segbench.config.composing import composing
    from segbench.experiment.stages import compose_stages

    overrides = [f"experiment={order.experiment}", f"name={order.experiment}", *order.overrides]
    overrides += [] if seed is None else [f"seed={seed}"]
    with composing("train", overrides, order.config_dir):
        with_choices = hydra.compose("train", overrides, return_hydra_config=True)
        config = Config.of(resolved(hydra.compose("train", overrides)))
        return Composed(config, compose_stages(config, overrides), str(with_choices.hydra.runtime.choices["data"]))


def _reference(order: Order, paper: Paper) -> Config:
    """The experiment that is the paper's row itself; only the path of the data is ours."""
    root = [override for override in order.overrides if override.startswith("data.root=")]
    itself = replace(order, experiment=paper.experiment or order.experiment, overrides=root)
    return _compose(itself, None).config


def _have_data(composed: Composed) -> None:
    """Build the data set; if that fails and a recipe is known, download it first."""
    from segbench.experiment.build import build_dataset

    try:
        build_dataset(composed.config.data, composed.config.weights)
    except SegbenchError as missing:
        from segbench.data.prepare.downloads import Listener
        from segbench.data.prepare.prepare import prepare
        from segbench.data.prepare.recipes import PARTS

        if composed.data not in PARTS:
            raise
        print(f"{missing.found}; segbench data prepare {composed.data}", file=sys.stderr)
        listener = Listener(say=lambda said: print(said, file=sys.stderr), progress=lambda *_: None)
        prepare(composed.data, Path(str(composed.config.data.arguments["root"])), [], None, listener)
        build_dataset(composed.config.data, composed.config.weights)


def _check_same(directory: Path, composed: Composed) -> None:
    """Refuse a directory that holds another run."""
    if not (directory / "config.yaml").is_file():
        return
    recorded = Run.open(directory).config()
    differing = [
        f"{key}: {theirs}, now {mine}"
        for key, (mine, theirs) in differences(composed.config.flat, recorded.flat).items()
        # A paper's row is what a run is compared with, not what it does; digests tell other data.
        if key.split(".")[0] != "paper" and (key not in PLACES or key == "init_from") and mine != "auto"
    ]
    if differing:
        raise SegbenchError(
            f"{directory} holds a run of another config: {', '.join(differing[:4])}",
            "runs of this experiment with these overrides",
            "choose another output=DIR",
        )


def _train(directory: Path, order: Order, composed: Composed) -> None:
    """Start or continue the run of this directory."""
    from segbench.experiment.stages import prepare_stages

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
        raise SegbenchError(reason, f"a finished run in {directory}", "fix it, then run the same command again")


def _has_numbers(order: Order) -> bool:
    return bool(order.ledger.is_dir() and (read_rows(order.ledger).get(order.experiment) or {}).get("ours"))


def _measured(directories: Sequence[Path], reference: Config, now: Config) -> dict[str, Any]:
    from segbench.papers.deviations import deviations, not_comparable

    runs = [Run.open(directory) for directory in directories]
    results, provenances = [run.results() for run in runs], [run.provenance() for run in runs]
    # The row as it stands today, whatever stood there when the runs began.
    configs = [run.config().replace({"paper": now.tree["paper"]}) for run in runs]
    scores = [
        {k.removeprefix("test/"): v for k, v in each["metrics"].items() if k.startswith("test/") and "/iu/" not in k}
        for each in results
    ]
    ours = summarise(scores)
    commits = [str((each["git"] or {}).get("commit")) for each in provenances]
    said = {
        str(config.seed): [
            *deviations(config, reference, result, made),
            *([f"code: commit {commit[:10]}"] if len(set(commits)) > 1 else []),
        ]
        for config, result, made, commit in zip(configs, results, provenances, commits, strict=True)
    }
    other = not_comparable(configs[0], reference)
    protocol, printed = results[0]["protocol"], now.paper.metrics if now.paper else {}
    return {
        "ours": ours,
        "difference": {name: ours[name]["mean"] - value for name, value in printed.items() if name in ours},
        "verdict": verdict(printed, ours, other),
        "why": other,
        "deviations": _of_all(said),
        "data": f"{protocol['dataset']}, {protocol['split']}",
        "seeds": [config.seed for config in configs],
        "cost": {
            "steps": results[0]["timing"].get("steps"),
            "hours": round(sum(each["timing"].get("fit_s", 0.0) for each in results) / 3600, 3),
        },
        "versions": provenances[0]["versions"],
        "commit": provenances[0]["git"],
    }


def _of_all(said: Mapping[str, Sequence[str]]) -> list[str]:
    """Sentences about the runs of all seeds, each once; one that does not apply to all names its seeds."""
    met = dict.fromkeys(sentence for sentences in said.values() for sentence in sentences)
    seeds = {sentence: [seed for seed, sentences in said.items() if sentence in sentences] for sentence in met}
    return [
        sentence if len(of) == len(said) else f"{sentence} (seed{'s' * (len(of) > 1)} {', '.join(of)})"
        for sentence, of in seeds.items()
    ]


def _without_places(text: str, overrides: Sequence[str], config: Config) -> str:
    """A reason without the paths of this machine."""
    places = [value for value in config.flat.values() if isinstance(value, str) and os.path.isabs(value)]
    places += [value for each in overrides if "/" in (value := each.partition("=")[2].strip("'"))]
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place, "FOLDER")
    return text
