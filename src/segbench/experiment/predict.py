"""Predict images with a run's network: `segbench predict run=RUN input=FILE|DIR output=DIR [format=...]`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.config.trust import names_in, refuse_untrusted, trusting
from segbench.errors import SegbenchError, say
from segbench.experiment.evaluating import devices_of, evaluating
from segbench.runs.calibration import file_digest
from segbench.runtime.frameworks import import_frameworks

if TYPE_CHECKING:
    from segbench.config.record import Config
    from segbench.config.requests import PredictRequest
    from segbench.data.raw import Source
    from segbench.experiment.ensemble import Member
    from segbench.metrics.decoding import Decoding
    from segbench.prediction.histogram import Reference
    from segbench.prediction.inputs import Input
    from segbench.prediction.loop import Job
    from segbench.prediction.record import Record
    from segbench.prediction.settings import Settings
    from segbench.runs.directory import Run
    from segbench.spec import DatasetSpec
    from segbench.training.task import SegmentationTask

CLASSES = "classes.json"
"""Beside the masks: which value is which class, by head."""


def write_split(task: SegmentationTask, source: Source, directory: Path) -> list[Path]:
    """Predict the split that a protocol has for it, at the end of a training.

    Args:
        task: on its device, in eval mode.
        source: the split.
        directory: takes the files, `test-volume.tif` for two classes (P(second), one page per image, as the ISBI
            challenge takes it), else one mask per image.

    Raises:
        SegbenchError: an image cannot be read, or the directory cannot be written.
    """
    from segbench.prediction.inputs import SplitInput, split_inputs
    from segbench.prediction.loop import Job
    from segbench.prediction.settings import Settings

    binary = all(head.num_classes == 2 for head in task.spec.heads.values())
    inputs: list[Input] = split_inputs(source)
    if binary:
        inputs = [SplitInput("test-volume", source, tuple(range(len(source))))]
    settings = Settings(("probabilities",) if binary else ("masks",))
    work = Job(task, task.spec, directory, lambda _: settings)
    return [path for _, paths in _predicted(work, inputs, lambda given, paths: None) for path in paths]


def _predicted(
    work: Job, inputs: Sequence[Input], done: Callable[[Input, list[Path]], None]
) -> Iterator[tuple[str, list[Path]]]:
    from segbench.prediction.loop import predict_inputs
    from segbench.prediction.progress import Progress
    from segbench.runs.directory import not_writable

    failed: dict[str, SegbenchError] = {}
    try:
        with Progress(len(inputs)) as progress:
            for each, paths in predict_inputs(work, inputs, failed, progress, done):
                yield each.name, paths
    except OSError as error:
        refused = not_writable(work.folder, error)
        kept = f"{refused.action}; then run the command again: finished predictions are kept"
        raise SegbenchError(refused.found, refused.expected, kept) from error
    if failed:
        raise _all_of(failed, len(inputs))


def _all_of(failed: dict[str, SegbenchError], inputs: int) -> SegbenchError:
    first = next(iter(failed.values()))
    if inputs == 1:
        return first
    shown = [f"\n  {error.found}" for error in list(failed.values())[:10]]
    more = [f"\n  and {len(failed) - 10} more"] if len(failed) > 10 else []
    parts = {(error.expected, error.action) for error in failed.values()}
    several = "whole images, of the kind and scale that the network was trained on", "fix or remove them"
    expected, action = parts.pop() if len(parts) == 1 else several
    return SegbenchError(
        f"{len(failed)} of {inputs} inputs could not be predicted:{''.join(shown + more)}",
        expected,
        f"{action}; then run the command again: finished predictions are kept",
    )


def predict(given: PredictRequest, written: Callable[[Path], None] = lambda path: None) -> list[Path]:
    """Predict `input`, or a split of the run's own data, with `run`'s network.

    Args:
        given: what is asked for.
        written: called with each file that is written.

    Returns:
        all files of the inputs, including those of an earlier call.

    Raises:
        SegbenchError: bad input of any kind; inputs that could be read are predicted before it is raised.
    """
    from segbench.experiment.ensemble import members_of
    from segbench.experiment.evaluate import built_of
    from segbench.runs.directory import Run

    run = Run.open(given.run)
    checkpoint = run.checkpoint(given.checkpoint)
    import_frameworks()
    from segbench.experiment.build import build_dataset_spec
    from segbench.experiment.check_decoding import refuse_idle_decoding
    from segbench.runtime.hardware import settle

    config, sentences = settle(given.applied_to(run.config()))
    if asked := _other_decoding(given):
        refuse_idle_decoding(config.decoding, asked, build_dataset_spec(run).heads)
    if not config.trainer.on_gpu and config.trainer.processes_here > 1:
        raise SegbenchError(
            f"trainer.devices={config.trainer.devices} for a prediction on a CPU",
            "one process, which computes on all cores",
            "leave trainer.devices out; threads= sets the number of cores",
        )
    with trusting(names_in(given.trust)):
        sections = ("model", "decoding", *(("data",) if given.split else ()))
        refuse_untrusted(built_of(config, *sections))
        members = members_of(given.ensemble, checkpoint, build_dataset_spec(run))
        return _predict(given, run, checkpoint, members, config, sentences, written)


def _predict(
    given: PredictRequest,
    run: Run,
    checkpoint: Path,
    members: Sequence[Member],
    config: Config,
    sentences: Sequence[str],
    written: Callable[[Path], None],
) -> list[Path]:
    from segbench.experiment.build import build_dataset_spec
    from segbench.experiment.check_decoding import refuse_other_cores
    from segbench.experiment.ensemble import left_out
    from segbench.inference.multiscale import scales_of
    from segbench.metrics.decoding import Decoding
    from segbench.prediction.histogram import read_reference
    from segbench.prediction.settings import check_frames, check_settings

    scales = scales_of(config.tta, config.tta_scales)
    facts = [str(checkpoint), *(f"beside it {each.checkpoint}" for each in members), *sentences, f"tta={config.tta}"]
    facts += left_out(members, config)
    facts += [f"over {', '.join(map(str, scales))} of each image, taken whole, and mirrored"] if scales else []
    if config.input_scale is not None:
        facts.append(f"images resized by {config.input_scale:g}, each taken whole, and probabilities back")
    trained_on = build_dataset_spec(run)
    reference = None
    if given.match_histogram is not None:
        reference = read_reference(Path(given.match_histogram), trained_on, _say)
        facts.append(str(reference))
    spec = _read_as(given, trained_on)
    output = Path(given.output)
    inputs = _inputs(given, config, spec, output)
    with contextlib.closing(_record(given, config, run.path, checkpoint, members, reference)) as record:
        own = record.made_by.get("values", "own") == "own"
        suffixes = dict.fromkeys(each.suffix for each in inputs)
        settings = {suffix: _settings(given, config, suffix, own) for suffix in suffixes}
        _refuse_unused(given, {kind for chosen in settings.values() for kind in chosen.kinds})
        for chosen in settings.values():
            check_settings(chosen, spec)
            if "ctc" in chosen.kinds:
                check_frames([each.name for each in inputs])
            if isinstance(chosen.decoding, Decoding):
                refuse_other_cores(config.data.arguments.get("core"), chosen.decoding, spec.heads)
        if any("masks" in chosen.kinds for chosen in settings.values()):
            _say_values(given, spec, own, output)
        files = {each.name: record.done(each.name, each.stamp()) for each in inputs}
        left = [each for each in inputs if files[each.name] is None]
        if len(left) < len(inputs):
            _say(f"{len(inputs) - len(left)} of {len(inputs)} inputs are already predicted in {output}")
        if left:
            _say("; ".join(facts))
            how = settings, record, reference
            for name, paths in _predict_left(given, config, spec, checkpoint, members, left, *how):
                files[name] = paths
                for path in paths:
                    written(path)
    if any("voc" in chosen.kinds for chosen in settings.values()):
        _say(f"for the server: tar -C {output} -czf results.tgz results")
    return [path for each in inputs for path in files[each.name] or []]


def _predict_left(
    given: PredictRequest,
    config: Config,
    spec: DatasetSpec,
    checkpoint: Path,
    members: Sequence[Member],
    left: Sequence[Input],
    settings: dict[str, Settings],
    record: Record,
    reference: Reference | None,
) -> Iterator[tuple[str, list[Path]]]:
    from segbench.experiment.build import build_task
    from segbench.experiment.calibrate import prepare_finishing
    from segbench.experiment.ensemble import load_networks
    from segbench.prediction.loop import Job
    from segbench.runs.directory import Run

    output = Path(given.output)
    # Nothing is scored, so the run's metrics are not built either.
    task = build_task(config.replace({"metrics": {}}), spec, training=False)
    load_networks(task, checkpoint, members)

    for sentence in prepare_finishing(task, config, Run.open(given.run), checkpoint, None, members):
        _say(sentence)

    def check(each: Input, paths: list[Path]) -> None:
        _refuse_over_input(each, paths, output)
        record.refuse_foreign(paths)

    def done(each: Input, paths: list[Path]) -> None:
        record.add(each.name, each.stamp(), paths)

    with evaluating(task, config.trainer):
        devices = devices_of(config.trainer)
        if len(devices) > 1:
            _say(f"images and their tiles in turn on {', '.join(map(str, devices))}")
        if given.overlap is not None:
            _say(f"overlap={given.overlap:g}: probabilities are approximate near the borders of tiles")
        how = (given.batch_size, devices, given.overlap, reference)
        work = Job(task, spec, output, lambda each: settings[each.suffix], check, *how)
        try:
            yield from _predicted(work, left, done)
        finally:
            for sentence in _told(work.notes):
                _say(sentence)


def _told(notes: Mapping[str, int]) -> Iterator[str]:
    """What was converted and left out, with counts."""
    from segbench.prediction.loop import LACKING, NO_DATA

    yield from (f"{what}: {count} of the inputs" for what, count in notes.items() if what not in (NO_DATA, LACKING))
    if notes[LACKING]:
        yield (
            f"no data in {notes[NO_DATA]} pixels of {notes[LACKING]} inputs: void in masks, NaN in probabilities, "
            "no object"
        )


def _read_as(given: PredictRequest, spec: DatasetSpec) -> DatasetSpec:
    """The run's description with what the request changes of how files are read."""
    from segbench.data.files.statements import checked_reading

    named = ("channels", "axes", "exif", "nodata")
    changes = {key: value for key in named if (value := getattr(given.data, key)) is not None}
    modalities = {
        name: dataclasses.replace(modality, reading=checked_reading(dataclasses.replace(modality.reading, **changes)))
        for name, modality in spec.modalities.items()
    }
    return dataclasses.replace(spec, modalities=modalities) if changes else spec


def _say_values(given: PredictRequest, spec: DatasetSpec, own: bool, output: Path) -> None:
    """Write the table of classes, and tell where masks hold indices though a user has values."""
    from segbench.prediction.coding import tables
    from segbench.runtime.files import write_whole

    write_whole(output / CLASSES, json.dumps(tables(spec, own), indent=1) + "\n")
    recorded = all(head.coding is not None for head in spec.heads.values())
    if given.values is None and not own and recorded:
        _say(f"masks hold class indices, as {output} was begun by an earlier version; values=own in another folder")
    if own and not recorded and (given.values == "own" or spec.name == "image_folder"):
        _say(f"the run recorded no values of its masks: masks hold class indices, as {CLASSES} says")


def _record(
    given: PredictRequest,
    config: Config,
    run: Path,
    checkpoint: Path,
    members: Sequence[Member],
    reference: Reference | None,
) -> Record:
    from segbench.prediction.record import Record
    from segbench.runs.directory import not_writable

    output = Path(given.output)
    also = {"run": str(run.resolve()), "file": checkpoint.name, "tile": config.tile}
    try:
        return Record(output, _made_by(given, config, checkpoint, members, reference), also, given.overwrite)
    except OSError as error:
        raise not_writable(output, error) from error


def _inputs(given: PredictRequest, config: Config, spec: DatasetSpec, output: Path) -> list[Input]:
    from segbench.experiment.build import build_dataset
    from segbench.prediction.inputs import find_inputs, split_inputs

    if (given.input is None) == (given.split is None):
        both = given.input is not None
        raise SegbenchError(
            "both input= and split=" if both else "neither input= nor split=",
            "input=FILE or input=DIR, or split=NAME of the run's own data",
            "leave one out" if both else "add input=...",
        )
    if given.input is not None:
        return find_inputs(given.input, given.ids, spec, output, _say)
    if given.ids is not None:
        raise SegbenchError(f"ids={given.ids} with split={given.split}", "ids= beside a folder", "leave it out")
    dataset = build_dataset(config.data, config.weights, config.model)
    source = dataset.split(str(given.split))
    if source is None or len(source) == 0:
        names = [name for name in ("train", "val", "test", "predict") if dataset.split(name)]
        raise SegbenchError(
            f"split={given.split} of {spec.name}", f"one of {', '.join(names)}", "choose one of them, or give input="
        )
    return split_inputs(source)


def _settings(given: PredictRequest, config: Config, suffix: str, own: bool) -> Settings:
    from segbench.prediction.settings import Settings

    kinds = given.format
    if kinds is None:
        kinds = "probabilities" if suffix in (".tif", ".tiff", ".zarr") else "masks"
        kinds = "instances" if _has_objects(config) else kinds
    return Settings(
        kinds=(kinds,) if isinstance(kinds, str) else tuple(kinds),
        store=given.store or ("zarr" if suffix == ".zarr" else None),
        own_values=own,
        decoding=_decoding(given, config),
        opacity=given.opacity,
        voc_year=given.voc.year,
        voc_competition=given.voc.competition,
    )


def _refuse_unused(given: PredictRequest, kinds: Collection[str]) -> None:
    """Refuse settings of kinds of output that are not written."""
    from segbench.prediction.settings import Settings

    plain = Settings(())
    settings: dict[str, tuple[object, tuple[str, ...]]] = {
        f"decoding.{key}": (value, ("instances", "ctc")) for key, value in _other_decoding(given).items()
    }
    if given.values is not None:
        settings["values"] = given.values, ("masks",)
    if given.store is not None:
        settings["store"] = given.store, ("masks", "probabilities", "instances")
    if given.opacity != plain.opacity:
        settings["opacity"] = given.opacity, ("overlays",)
    for name, value, usual in (
        ("year", given.voc.year, plain.voc_year),
        ("competition", given.voc.competition, plain.voc_competition),
    ):
        if value != usual:
            settings[f"voc.{name}"] = value, ("voc",)
    for key, (asked, users) in settings.items():
        if not {*kinds} & {*users}:
            raise SegbenchError(
                f"{key}={asked} with format={','.join(sorted(kinds))}",
                f"format={' or '.join(users)}, which uses it",
                f"leave {key} out, or add {users[0]} to format=",
            )


def _has_objects(config: Config) -> bool:
    """Whether the run learned from masks of objects, which predictions then number."""
    return config.data.arguments.get("objects") is True


def _decoding(given: PredictRequest, config: Config) -> Decoding:
    from segbench.experiment.build import build_decoding

    return build_decoding(config.decoding, **_other_decoding(given))


def _other_decoding(given: PredictRequest) -> dict[str, Any]:
    return {key: value for key, value in given.decoding.items() if value is not None}


def _made_by(
    given: PredictRequest, config: Config, checkpoint: Path, members: Sequence[Member], reference: Reference | None
) -> dict[str, Any]:
    """What decides the values of a prediction; without overlap, `tile` and the device change only the last bits."""
    from segbench.inference.multiscale import scales_of
    from segbench.inference.stream import OVERLAP_TILE

    kinds = given.format
    names = [] if kinds is None else sorted([kinds] if isinstance(kinds, str) else kinds)
    made_by: dict[str, Any] = {
        "checkpoint": file_digest(checkpoint),
        "format": names or None,
        "store": given.store,
        "tta": config.tta,
        "precision": config.trainer.precision,
    }
    if members:
        made_by["ensemble"] = [each.digest for each in members]
    if reference is not None:
        made_by["match_histogram"] = reference.digest
    if scales := scales_of(config.tta, config.tta_scales):
        made_by["tta_scales"] = list(scales)
    # Those of earlier versions lack the keys.
    finished = ("input_scale", "calibration", "median", "contours")
    made_by |= {key: value for key in finished if (value := getattr(config, key)) is not None}
    if {"instances", "ctc"} & {*names} or (kinds is None and _has_objects(config)):
        made_by["decoding"] = _recorded(_decoding(given, config))
    if "overlays" in names:
        made_by["opacity"] = given.opacity
    if not names or "masks" in names:
        made_by["values"] = given.values
    if given.overlap is not None:
        made_by |= {"overlap": given.overlap, "tile": config.tile or OVERLAP_TILE}
    for key in ("channels", "axes", "exif", "nodata"):
        if (value := getattr(given.data, key)) is not None:
            made_by[key] = value
    return made_by


def _recorded(decoding: Decoding) -> dict[str, Any]:
    """The settings; without those of cores where there are none, as in predictions of earlier versions."""
    settings = dataclasses.asdict(decoding)
    if decoding.core_class is None:
        for key in ("core_class", "core_threshold", "min_core"):
            del settings[key]
    return settings


def _refuse_over_input(each: Input, paths: Sequence[Path], output: Path) -> None:
    for path in paths:
        for source in each.files:
            if path.exists() and path.samefile(source):
                raise SegbenchError(
                    f"output={output} would overwrite the input {source}", "another folder", "change output="
                )


def _say(text: str) -> None:
    say(text, file=sys.stderr, flush=True)
