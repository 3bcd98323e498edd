"""A paper's number next to ours: every seed trained by the paper's experiment, and a row of the ledger."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.config.flat import differences
from segbench.config.no_effect import counting
from segbench.config.paper import paper_blocks
from segbench.config.places import PLACES
from segbench.config.record import Config
from segbench.config.trust import is_trusted, own, targets_in, trusting
from segbench.errors import SegbenchError, say
from segbench.experiment.stages import trees_of
from segbench.papers.experiments import Composed, compose_experiment, row_itself
from segbench.papers.ledger import beyond, read_rows, summarise, verdict, write_row
from segbench.runs.directory import Run
from segbench.runs.provenance import computing_of, hardware_of, provenance
from segbench.runtime.processes import end_with_parent
from segbench.spec import of_class

if TYPE_CHECKING:
    from segbench.papers.deviations import Conduct


@dataclass(frozen=True)
class Order:
    """What the command line asks for.

    Attributes:
        experiment: its name.
        seeds: one run each.
        folds: each trained with every seed; empty for the experiment's own split.
        output: where the runs go.
        ledger: where the row goes.
        overrides: Hydra's.
        config_dir: the user's own configs.
        allow_dirty: whether code that is in no commit may run.
        trust: names of the user's own classes that the runs may name.
    """

    experiment: str
    seeds: tuple[int, ...]
    folds: tuple[int, ...]
    output: Path
    ledger: Path
    overrides: list[str]
    config_dir: Path | None
    allow_dirty: bool = False
    trust: tuple[str, ...] = ()

    def directory(self, composed: Composed, fold: int | None) -> Path:
        """Of the run of a seed on a fold."""
        return self.output / (f"fold_{fold}" if fold is not None else "") / f"seed_{composed.config.seed}"


def reproduce(order: Order, command: str, say: Callable[[Mapping[str, Any], Path], None]) -> None:
    """Train every seed on every fold, or continue it, and write the row of the ledger.

    Args:
        order: what is asked for.
        command: as recorded in the row, for others to run.
        say: called with the row and its file, also for a row that could not be run.

    Raises:
        SegbenchError: no row of a paper, uncommitted code, other runs in the directory, missing data, or a failed run.
    """
    composed = {
        order.directory(each, fold): each
        for fold in order.folds or (None,)
        for each in (_compose(order, seed, fold) for seed in order.seeds or (None,))
    }
    first = next(iter(composed.values()))
    paper = first.config.paper
    if paper is None or not paper.metrics:
        raise SegbenchError(
            f"experiment {order.experiment} reproduces no row of a paper",
            f"one of {', '.join(paper_blocks())}",
            "segbench reproduce --list",
        )
    packaged = paper_blocks().get(order.experiment)
    if packaged is not None and first.config.tree["paper"] != packaged:
        raise SegbenchError(
            f"another experiment of the packaged name {order.experiment} in --config-dir",
            "the packaged facts of the paper, or an experiment of another name",
            "rename yours",
        )
    _refuse_dirty(order, "the code", [provenance()])
    row: dict[str, Any] = {"experiment": order.experiment, "row": paper.row, "method": paper.method}
    row["paper"] = {"source": paper.source, "metrics": paper.metrics}
    for directory, each in composed.items():
        _check_same(directory, each)
    try:
        with trusting(order.trust), own(first.config.tree):
            _have_data(first)
        for directory, each in composed.items():
            _train(directory, order, each)
    except SegbenchError as error:
        if not _has_numbers(order):
            why = [_without_places(error.found, order.overrides, first.config)]
            blocked = row | {"verdict": "not run", "why": why, "command": command, "date": time.strftime("%Y-%m-%d")}
            say(blocked, write_row(order.ledger, blocked))
        raise
    reference = row_itself(paper, order.experiment, order.config_dir)
    measured = _measured(order, list(composed), reference, first.config)
    measured = row | measured | {"command": command, "date": time.strftime("%Y-%m-%d")}
    say(measured, write_row(order.ledger, measured))


def _refuse_dirty(order: Order, what: str, provenances: Sequence[Mapping[str, Any]]) -> None:
    commits = [git["commit"] for each in provenances if (git := each.get("git") or {}).get("dirty")]
    if commits and not order.allow_dirty:
        raise SegbenchError(
            f"{what} has changes that are in no commit, on top of {commits[0][:10]}",
            "code that others can check out: a row of the ledger names its commit",
            "commit the changes of src and conf, or add allow_dirty=true, which the row shows",
        )


def _refuse_partial(directory: Path) -> None:
    if (partial := Run.open(directory).partial()) is not None:
        raise SegbenchError(
            f"{directory}: {partial} of the test were counted",
            "a test that counted each image once",
            "leave out what limits the test (trainer.limit_test_batches), and choose another output=DIR",
        )


def _compose(order: Order, seed: int | None, fold: int | None) -> Composed:
    overrides = [*order.overrides, *([] if seed is None else [f"seed={seed}"])]
    overrides += [] if fold is None else [f"data.fold={fold}"]
    return compose_experiment(order.experiment, overrides, order.config_dir)


def _have_data(composed: Composed) -> None:
    """Build the data set; if that fails and a recipe is known, download it first."""
    from segbench.experiment.build import build_dataset

    try:
        build_dataset(composed.config.data, composed.config.weights, composed.config.model)
    except SegbenchError as missing:
        from segbench.data.prepare.downloads import Listener
        from segbench.data.prepare.prepare import prepare
        from segbench.data.prepare.recipes import PARTS

        if composed.data not in PARTS:
            raise
        say(f"{missing.found}; segbench data prepare {composed.data}", file=sys.stderr)
        listener = Listener(say=lambda said: say(said, file=sys.stderr), progress=lambda *_: None)
        prepare(composed.data, Path(str(composed.config.data.arguments["root"])), [], None, listener)
        build_dataset(composed.config.data, composed.config.weights, composed.config.model)


def _check_same(directory: Path, composed: Composed) -> None:
    """Refuse a directory that holds another run."""
    if not (directory / "config.yaml").is_file():
        return
    recorded = Run.open(directory).config()
    # Other files in the places of data and weights are found by their digests.
    wanted, found = ({"seed": each.seed, **counting(each.flat)} for each in (composed.config, recorded))
    # What the machine or the data settled; an augmentation that is chosen brings its transforms.
    left = [key.removesuffix(".pick") for key, value in composed.config.flat.items() if value == "auto"]
    differing = [
        f"{key}: {theirs}, now {mine}"
        for key, (mine, theirs) in differences(wanted, found).items()
        if not any(key == each or key.startswith(f"{each}.") for each in left)
        and (key not in PLACES or key == "init_from")
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
        say(f"{directory}: finished", file=sys.stderr)
        return
    command = [sys.executable, "-m", "segbench.train", f"resume={directory}"]
    command += [f"trust={','.join(trusted)}"] if (trusted := _trusted(order, composed)) else []
    # It survives exec; this process has one thread, so no lock is held after the fork.
    child = functools.partial(end_with_parent, os.getpid())
    code = subprocess.run(command, check=False, preexec_fn=child).returncode
    if code != 0:
        reason = (run.reason() or f"exit code {code}").splitlines()[0]
        raise SegbenchError(reason, f"a finished run in {directory}", "fix it, then run the same command again")


def _trusted(order: Order, composed: Composed) -> list[str]:
    """What the run's own config may name beside what any may: the command line is the user's own."""
    named = targets_in([composed.config.tree, *trees_of(composed.stages)])
    return list(dict.fromkeys([*order.trust, *(name for name in named if not is_trusted(name))]))


def _has_numbers(order: Order) -> bool:
    return bool(order.ledger.is_dir() and (read_rows(order.ledger).get(order.experiment) or {}).get("ours"))


def _measured(order: Order, directories: Sequence[Path], reference: Composed, now: Config) -> dict[str, Any]:
    from segbench.papers.deviations import Conduct, deviations, looked_at, not_comparable

    paper = now.paper
    assert paper is not None
    done = {directory: Conduct.of(Run.open(directory)) for directory in directories}
    said: dict[str, list[str]] = {}
    other: dict[str, None] = {}
    scores: dict[Path, dict[str, float | None]] = {}
    apart: dict[Path, dict[str, float | None]] = {}
    for directory, conduct in done.items():
        name = str(directory.relative_to(order.output))
        _refuse_dirty(order, f"the code of {directory}", conduct.provenances)
        _refuse_partial(directory)
        said[name] = deviations(conduct, reference.config, reference.stages)
        other |= dict.fromkeys(not_comparable(conduct.config, reference.config))
        why = looked_at(conduct.config) if order.folds else None
        (scores if why is None else apart)[directory] = _scores(conduct)
    files = _same_files(done)
    commits = {
        name: str((each.provenance["git"] or {}).get("commit")) for name, each in zip(said, done.values(), strict=True)
    }
    for name, commit in commits.items() if len(set(commits.values())) > 1 else ():
        said[name].append(f"code: commit {commit[:10]}")
    ours = _over_folds(scores or apart)
    results, first = [each.results for each in done.values()], next(iter(done.values()))
    printed = paper.metrics
    return {
        "ours": ours,
        "difference": {name: ours[name]["mean"] - value for name, value in printed.items() if name in ours},
        "verdict": verdict(printed, ours, list(other)),
        "why": list(other),
        **({"flags": flags} if (flags := beyond(str(paper.row), printed, ours)) else {}),
        **({"folds": _each_fold(scores, printed)} if order.folds and scores else {}),
        **({"apart": _each_fold(apart, printed)} if apart and scores else {}),
        "deviations": [_without_places(each, order.overrides, now) for each in _of_all(said)],
        "data": "; ".join(dict.fromkeys(f"{r['protocol']['dataset']}, {r['protocol']['split']}" for r in results)),
        **files,
        "seeds": sorted({each.config.seed for each in done.values()}),
        "cost": {
            "steps": first.results["timing"].get("steps"),
            "hours": round(sum(each["timing"].get("fit_s", 0.0) for each in results) / 3600, 3),
            **_data_wait([each["timing"] for each in results]),
            "runs": len(done),
        },
        "machine": list(dict.fromkeys(hardware_of(made) for each in done.values() for made in each.provenances)),
        "computed_in": list(dict.fromkeys(computing_of(made) for each in done.values() for made in each.provenances)),
        "versions": first.provenance["versions"],
        "commit": first.provenance["git"],
    }


def _data_wait(timings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The share of the steps' time that was waited for data; nothing where a run did not measure it."""
    trained = [each.get("train_s", 0.0) for each in timings]
    if not all(trained):
        return {}
    return {"data_wait": round(sum(each["data_wait_s"] for each in timings) / sum(trained), 3)}


def _same_files(done: Mapping[Path, Conduct]) -> dict[str, Any]:
    """Digests of what the runs read; those of seeds of one fold must be the same, wherever the files lay."""
    data = {directory: Run(directory).digests() for directory in done}
    weights = {d: [leg.provenance.get("weights_sha256") for leg in each.legs[:1]] for d, each in done.items()}
    for digests, what in ((data, "data"), (weights, "initial weights")):
        for directory, digest in digests.items():
            first = next(other for other in digests if other.parent == directory.parent)
            if digests[first] != digest:
                raise SegbenchError(
                    f"{directory} and {first} read other {what}",
                    f"the same {what} for every seed of a row",
                    "choose another output=DIR, and train them with the same files",
                )
    read = {"data_sha256": next(iter(data.values())).get("test"), "weights_sha256": next(iter(weights.values()), [])}
    return {key: value for key, value in read.items() if value and value != [None]}


def _scores(conduct: Conduct) -> dict[str, float | None]:
    metrics = {key.removeprefix("test/"): v for key, v in conduct.results["metrics"].items() if key.startswith("test/")}
    return {name: value for name, value in metrics.items() if of_class(name) is None}


def _over_folds(scores: Mapping[Path, Mapping[str, float | None]]) -> dict[str, dict[str, Any]]:
    """Scores over seeds, each the mean over its folds."""
    by_seed: dict[str, list[Mapping[str, float | None]]] = {}
    for directory, each in scores.items():
        by_seed.setdefault(directory.name, []).append(each)
    means = [{name: each["mean"] for name, each in summarise(folds).items()} for folds in by_seed.values()]
    return summarise(means)


def _each_fold(
    scores: Mapping[Path, Mapping[str, float | None]], printed: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    by_fold: dict[str, list[Mapping[str, float | None]]] = {}
    for directory, each in scores.items():
        by_fold.setdefault(directory.parent.name, []).append({name: each.get(name) for name in printed})
    return {fold: summarise(each) for fold, each in by_fold.items()}


def _of_all(said: Mapping[str, Sequence[str]]) -> list[str]:
    """Sentences about all runs, each once; one that does not apply to all names its runs."""
    met = dict.fromkeys(sentence for sentences in said.values() for sentence in sentences)
    runs = {sentence: [run for run, sentences in said.items() if sentence in sentences] for sentence in met}
    return [sentence if len(of) == len(said) else f"{sentence} ({', '.join(of)})" for sentence, of in runs.items()]


def _without_places(text: str, overrides: Sequence[str], config: Config) -> str:
    """A reason without the paths of this machine."""
    places = [value for value in config.flat.values() if isinstance(value, str) and os.path.isabs(value)]
    places += [value for each in overrides if "/" in (value := each.partition("=")[2].strip("'"))]
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place, "FOLDER")
    return text
