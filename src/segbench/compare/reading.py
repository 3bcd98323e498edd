"""Reads run directories and W&B projects into records; what cannot be read is listed with the reason."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segbench.compare.records import LeftOut, RunRecord, identity
from segbench.compare.tracked import TRACKED, from_tracker, tracked
from segbench.config.flat import flatten
from segbench.config.handed_over import read_json
from segbench.errors import SegbenchError, as_typed
from segbench.runs.configs import Configs
from segbench.runs.directory import SCHEMA, Run
from segbench.runs.history import Leg, continuations, effective
from segbench.runs.partial import Partial
from segbench.runs.schemas import fault_of_protocol, fault_of_provenance
from segbench.runtime.files import walk

_UNREAD = ("checkpoints", "wandb", "panels", "predictions", "stages", "inspect", "tensorboard")


def read_runs(sources: Sequence[str], partial: bool = False) -> tuple[list[RunRecord], list[LeftOut]]:
    """All runs of the sources, each once.

    Args:
        sources: run directories, folders of them, globs, `wandb:ENTITY/PROJECT[/RUN]` or `mlflow:EXPERIMENT`.
        partial: read a run whose scores are of a part of their split too, if it is the only one.

    Returns:
        the runs in the order of the sources, and those left out with their reasons. A run that is found twice is read
        once; a run that a tracker and this machine have is read from this machine, where its counts are.

    Raises:
        SegbenchError: a source without any run, or a server that cannot be reached.
    """
    configs = Configs()
    read: dict[str, RunRecord | LeftOut] = {}
    for source in sources:
        if source.startswith(TRACKED):
            continue
        for path in find_runs(source):
            found = read_run(path, configs)
            if isinstance(found, LeftOut) and path == Path(source):
                found = replace(found, wrong=True)
            read.setdefault(str(path.resolve()), found)
    local = {name for record in read.values() if isinstance(record, RunRecord) for name in record.tracked}
    for source in sources:
        for run in tracked(source):
            if run.id not in local:
                read.setdefault(run.address, from_tracker(run))
    if not (partial and sum(isinstance(record, RunRecord) for record in read.values()) == 1):
        read = {key: _unless_partial(record, sources) for key, record in read.items()}
    records = [record for record in read.values() if isinstance(record, RunRecord)]
    return records, [record for record in read.values() if isinstance(record, LeftOut)]


def _unless_partial(record: RunRecord | LeftOut, sources: Sequence[str]) -> RunRecord | LeftOut:
    if isinstance(record, LeftOut) or record.partial is None:
        return record
    trained = record.source if record.path == record.trained else record.trained or record.source
    split = "" if record.split == "test" else f" {as_typed('split', record.split)}"
    reason = (
        f"partial: {record.partial} of {record.split} were counted, expected: each image once; evaluate the run whole "
        f"(segbench evaluate {as_typed('run', trained)}{split}), and compare that"
    )
    return LeftOut(record.source, reason, wrong=any(Path(source) == record.path for source in sources))


def find_runs(source: str) -> list[Path]:
    """Run directories: the source itself, those below it, or those that match it as a glob.

    Links are followed. Stages of a run are part of it and are not listed.

    Raises:
        SegbenchError: there is none.
    """
    path = Path(source)
    given = [path] if path.exists() else [Path(match) for match in sorted(glob.glob(source, recursive=True))]
    found = [run for start in given for run in _below(start)]
    if not found:
        there = "no such file or folder" if not given else "no config.yaml in it or below it"
        raise SegbenchError(
            f"no run in {source}: {there}",
            "a run directory, a folder of them (a sweep), a glob, wandb:ENTITY/PROJECT or mlflow:EXPERIMENT",
            "give the directory that `segbench train` printed, e.g. outputs/quickstart",
        )
    return found


def _below(start: Path) -> Iterator[Path]:
    for folder, below, files in walk(start):
        if "config.yaml" in files and not folder.endswith(".hydra"):
            yield Path(folder)
            below.clear()
        else:
            below[:] = [name for name in below if name not in _UNREAD and not name.startswith(".")]


def read_run(path: Path, configs: Configs | None = None) -> RunRecord | LeftOut:
    """A run directory, of a training or of an evaluation.

    Args:
        path: with a `config.yaml`.
        configs: configurations that were read already.

    Returns:
        the run, or why it cannot be compared.
    """
    configs = configs or Configs()
    source = str(path)
    try:
        config = _config(path, configs)
        state = _json(path / "state.json").get("state") if (path / "state.json").is_file() else None
        if state not in (None, "finished"):
            return LeftOut(source, _unfinished(path, config, str(state)))
        if not (path / "results.json").is_file():
            again = (
                f"segbench evaluate {as_typed('run', path)}" if (path / "checkpoints").is_dir() else "train it again"
            )
            return LeftOut(source, f"no results.json: {again}")
        try:
            results = _json(path / "results.json")
        except _Damaged as damaged:
            raise _Damaged(
                f"{damaged}; score it again (segbench evaluate {as_typed('run', path)}), and compare that"
            ) from damaged
        if results.get("schema") != SCHEMA:
            return LeftOut(source, f"results.json has schema {results.get('schema')}, this version reads {SCHEMA}")
        trained = path
        if "model" not in config and config.get("run"):
            found = _trained(path, str(config["run"]))
            if found is None:
                return LeftOut(source, f"evaluates {config['run']}, which does not exist: move both together")
            trained, config = found, _config(found, configs)
        return _record(path, trained, config, results, configs)
    except _Damaged as damaged:
        return LeftOut(source, str(damaged), wrong=True)


class _Damaged(Exception):
    pass


def _config(path: Path, configs: Configs) -> dict[str, Any]:
    try:
        return configs.of(path, "config.yaml")
    except SegbenchError as error:
        raise _Damaged(error.found) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        read: dict[str, Any] = read_json(path)
        return read
    except SegbenchError as error:
        raise _Damaged(error.found) from error


def _unfinished(path: Path, config: Mapping[str, Any], state: str) -> str:
    if "model" not in config:
        return f"{state}: evaluate it again"
    goes_on = {"running": "it is running, or was killed", "prepared": "it has not begun"}.get(state, state)
    return f"{goes_on}: segbench train {as_typed('resume', path)}"


def _trained(evaluation: Path, run: str) -> Path | None:
    # Recorded relative to the working directory of the command; the outputs folder may have moved since, as a whole.
    parents = evaluation.resolve().parents
    for start in (Path(), *parents):
        if (start / run / "config.yaml").is_file():
            return start / run
    return None


def _record(
    path: Path, trained: Path, config: Mapping[str, Any], results: Mapping[str, Any], configs: Configs
) -> RunRecord:
    protocol, provenance, timing = (results.get(key) or {} for key in ("protocol", "provenance", "timing"))
    metrics = results.get("metrics")
    if not all(isinstance(part, dict) for part in (protocol, provenance, timing)):
        raise _Damaged("results.json does not match its schema")
    versions = protocol.get("versions") or {}
    if not isinstance(versions, dict) or not all(isinstance(version, str | None) for version in versions.values()):
        raise _Damaged("results.json does not match its schema: its protocol.versions is no table of texts")
    if fault := fault_of_protocol(protocol):
        raise _Damaged(f"results.json does not match its schema: its protocol.{fault}")
    if not all(isinstance(value, int | float | None) for value in timing.values()):
        raise _Damaged("results.json does not match its schema: its timing is no table of numbers")
    _check_origin("results.json", provenance)
    if not isinstance(metrics, dict) or not all(isinstance(v, int | float | None) for v in metrics.values()):
        raise _Damaged("results.json has no table of metrics")
    settings, config = _effective(trained, config, timing.get("steps") if path == trained else _steps(trained), configs)
    digests = trained / "digests.json"
    digest = hashlib.sha256(digests.read_bytes()).hexdigest()[:8] if digests.is_file() else None
    if "data.images" in settings and digest is not None:
        # Wherever the images lie.
        settings["data.images"] = digest
        settings.pop("data.masks", None)
    # Runs of which it cut the test are left out; what is scored was scored whole.
    settings.pop("trainer.limit_test_batches", None)
    if "partial_validation" in results and any(not key.startswith("val/") for key in metrics):
        # Of a part of the images.
        metrics = {key: value for key, value in metrics.items() if not key.startswith("val/")}
    if path != trained:
        # What an evaluation set of the data, which has other images then, and of the decoding.
        asked = _config(path, configs)
        given = flatten({key: asked.get(key) or {} for key in ("data", "decoding")})
        settings |= {key: value for key, value in given.items() if value is not None and "." in key}
    for key in ("tta", "tta_scales", "tile", "threads"):
        if key in protocol:
            settings[key] = protocol[key]
    members = [(each, _trained(path, each["run"]) or Path(each["run"])) for each in protocol.get("ensemble", ())]
    beside = sorted(f"{each['checkpoint']} of {_ancestor(run, configs, ())}" for each, run in members)
    settings |= {f"ensemble.{number}": each for number, each in enumerate(beside)}
    networks = [str(each.get("digest") or run.resolve()) for each, run in members]
    if protocol.get("tta", "multiscale") != "multiscale":
        # An evaluation of a run that averaged over scales, by another way.
        settings.pop("tta_scales", None)
    done = {"calibration": "cubic" if "calibration" in protocol else None}
    done |= {key: protocol.get(key) for key in ("input_scale", "median", "contours", "match_histogram")}
    # As they were done; runs of before lack the settings.
    settings |= {key: value for key, value in done.items() if value is not None or key in settings}
    # A run that selects a best checkpoint is scored by it.
    chosen = "best" if settings.get("callbacks.checkpoint.monitor") else "last"
    if protocol.get("checkpoint", chosen) != chosen:
        settings["checkpoint"] = protocol["checkpoint"]
    if path != trained and (step := _other_step(trained, protocol, timing)) is not None:
        settings["checkpoint"] = f"{protocol.get('checkpoint')} of step {step:.0f}"
    if protocol.get("precision", settings.get("trainer.precision")) != settings.get("trainer.precision"):
        settings["evaluated.precision"] = protocol["precision"]
    seed = config.get("seed")
    ids, legs = [path / name for name in ("wandb_id.txt", "mlflow_id.txt")], _legs(trained)
    return RunRecord(
        source=str(path),
        path=path,
        name=str(config.get("name", path.name)),
        seed=seed if isinstance(seed, int) else None,
        settings=settings,
        metrics={key: float("nan") if value is None else float(value) for key, value in metrics.items()},
        versions=versions,
        config=config,
        protocol=protocol,
        provenance=provenance,
        timing=timing,
        trained=trained.resolve(),
        ensemble=(str(protocol.get("digest") or trained.resolve()), *networks) if networks else (),
        data_digest=digest,
        legs=tuple(leg.provenance for leg in legs),
        settled=_settled_by_data(legs),
        tracked=tuple(each.read_text(errors="replace").strip() for each in ids if each.is_file()),
        partial=_partial(path, trained),
    )


def _check_origin(file: str, provenance: Mapping[str, Any]) -> None:
    if fault := fault_of_provenance(provenance):
        raise _Damaged(f"{file} does not match its schema: its provenance.{fault}")


def _partial(path: Path, trained: Path) -> Partial | None:
    try:
        return Run(path).partial(Run(trained))
    except SegbenchError as error:
        raise _Damaged(error.found) from error


def _legs(path: Path) -> list[Leg]:
    try:
        legs = Run(path).legs()
    except SegbenchError as error:
        raise _Damaged(error.found) from error
    for leg in legs:
        _check_origin("history.jsonl", leg.provenance)
    return legs


def _settled_by_data(legs: Sequence[Leg]) -> tuple[str, ...]:
    settled = [key for key in (legs[0].settled if legs else ()) if key.split(".")[0] in ("data", "loss", "augment")]
    return tuple(key for key in settled if not any(key.startswith(f"{above}.") for above in settled))


def _steps(path: Path) -> float | None:
    steps = (
        (_json(path / "results.json").get("timing") or {}).get("steps") if (path / "results.json").is_file() else None
    )
    return steps if isinstance(steps, int | float) else None


def _other_step(trained: Path, protocol: Mapping[str, Any], timing: Mapping[str, Any]) -> float | None:
    """The step of an evaluated checkpoint, unless it is that of the run's end: a run may be continued afterwards."""
    step, checkpoint = timing.get("checkpoint_step"), protocol.get("checkpoint")
    if not (trained / "results.json").is_file():
        return step
    results = _json(trained / "results.json")
    of_run = results.get("timing") or {}
    if (results.get("protocol") or {}).get("checkpoint") == checkpoint:
        end = of_run.get("checkpoint_step")
    else:
        end = of_run.get("steps") if checkpoint == "last" else None
    return step if end is not None and step != end else None


def _effective(
    path: Path, config: Mapping[str, Any], steps: float | None, configs: Configs, above: tuple[Path, ...] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of a run with those of the runs that it started from, and its configuration."""
    legs = _legs(path)
    continued, config = continuations(config, legs, steps), effective(config, legs, steps)
    settings = flatten(config)
    # Classes of the user's: the same name is the same code in files of one digest alone.
    own = {name: digest for leg in legs for name, digest in (leg.provenance.get("own_code") or {}).items()}
    settings |= {f"own_code.{name}": digest for name, digest in own.items()}
    if continued:
        settings["continued"] = "; ".join(continued)
    for key in settings:
        if key.split(".")[0] == "init_from" and settings[key]:
            settings[key] = _ancestor(Path(str(settings[key])), configs, (*above, path))
    stages = config.get("stages") or []
    for name in stages.values() if isinstance(stages, dict) else stages:
        settings[f"stage.{name}"] = _ancestor(path / "stages" / str(name), configs, (*above, path))
    return settings, dict(config)


def _ancestor(path: Path, configs: Configs, above: tuple[Path, ...]) -> str:
    # Seeds of one experiment start from seeds of another: their paths differ, their settings do not.
    if not (path / "config.yaml").is_file():
        return path.name if path.parent.name == "stages" else str(path)
    if path in above:
        raise _Damaged(f"config.yaml: {path} starts from itself")
    settings, config = _effective(path, _config(path, configs), _steps(path), configs, above)
    if path.parent.name == "stages":
        # A stage starts from the one before it, which has a key of its own.
        settings = {key: value for key, value in settings.items() if key.split(".")[0] != "init_from"}
    return f"{config.get('name', path.name)} ({identity(settings)[:8]})"
