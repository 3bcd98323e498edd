"""The last steps of a run's predictions: polynomials fitted on the images that it was trained on, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from segbench.config.places import DATA
from segbench.config.trust import refuse_untrusted
from segbench.errors import SegbenchError
from segbench.runs.calibration import Calibration, file_digest
from segbench.runs.directory import Run

if TYPE_CHECKING:
    import torch

    from segbench.config.record import Config
    from segbench.data.raw import DataSet
    from segbench.experiment.ensemble import Member
    from segbench.training.task import SegmentationTask


def prepare_finishing(
    task: SegmentationTask,
    config: Config,
    trained: Run,
    checkpoint: Path,
    dataset: DataSet | None = None,
    members: Sequence[Member] = (),
    written_to: Run | None = None,
    device: torch.device | None = None,
) -> list[str]:
    """Give a task what its config does with probabilities at the end; its weights become the checkpoint's.

    Polynomials that the run has recorded for this file, these symmetries and this precision are taken; others are
    fitted, on each process alike, on the training images as they are and in the run's own tiles: what an evaluation or
    a prediction sets of the data, its `input_scale` and its `tile` concern other images.

    Args:
        task: whose predictions are finished from then on, but for those of validations.
        config: of the evaluation or prediction.
        trained: the run.
        checkpoint: one of its files.
        dataset: that the run is trained on just now; None: it is made of the run's record, if polynomials are fitted.
        members: networks beside it.
        written_to: the directory that records them; None: none does.
        device: where they are fitted; None: as `evaluating` chooses.

    Returns:
        what was done, as sentences.

    Raises:
        SegbenchError: no labelled training images, or not those that the run was trained on.
    """
    from segbench.inference.finishing import Finishing, rises
    from segbench.inference.multiscale import scales_of

    if config.calibration is None and config.median is None and config.contours is None:
        task.finish = None
        return []
    sentences, calibration = [], None
    if config.calibration is not None:
        digests = "+".join([file_digest(checkpoint), *(each.digest for each in members)])
        scales = scales_of(config.tta, config.tta_scales)
        averaged = " ".join([config.tta, *(f"{scale:g}" for scale in scales)])
        wanted = digests, averaged, str(config.trainer.precision)
        calibration, how = trained.calibration(), f"as recorded in {trained.path / 'calibration.json'}"
        if calibration is None or not calibration.is_of(*wanted) or set(calibration.polynomials) != {*task.spec.heads}:
            trained_on = _trained_on(trained, config) if dataset is None else dataset
            asked = task.evaluation
            # As the run itself predicts: a window at every pixel, say, gives the same polynomial much later.
            task.evaluation = replace(asked, tile=trained.config().tile)
            try:
                calibration = _fitted(task, config, checkpoint, members, trained_on, wanted, device)
            finally:
                task.evaluation = asked
            how = f"fitted on {calibration.images} training images"
            if written_to is not None:
                written_to.write_calibration(calibration)
        for head, polynomial in calibration.polynomials.items():
            name = task.spec.heads[head].class_names[1]
            terms = " ".join(f"{a:+.4f}{' p' * bool(n)}{f'^{n}' * (n > 1)}" for n, a in enumerate(polynomial))
            falls = "" if rises(polynomial) else "; it falls somewhere between 0 and 1"
            sentences.append(f"calibration: P({name}) = {terms} for p of the network, {how}{falls}")
    if config.median is not None:
        sentences.append(f"median filter: radius {config.median} pixels")
    if config.contours is not None:
        sentences.append(f"contours: of basins of the probability smoothed with sigma {config.contours:g} pixels")
    polynomials = {} if calibration is None else calibration.polynomials
    task.finish = Finishing(polynomials, config.median or 0, config.contours or 0)
    return sentences


def _trained_on(trained: Run, config: Config) -> DataSet:
    """The data set that a run was trained on, where it was then or where `config` says that the data lie now."""
    from segbench.experiment.build import build_dataset
    from segbench.experiment.unchanged import other_training_images

    recorded = trained.config()
    refuse_untrusted(recorded.tree.get("data"))
    moved = {key: place for key in DATA if (place := config.flat.get(key)) != recorded.flat.get(key)}
    reasons = []
    for changes in ({}, moved) if moved else ({},):
        there = recorded.replace(changes)
        try:
            dataset = build_dataset(there.data, there.weights, there.model)
        except SegbenchError as error:
            reasons.append(error.found)
            continue
        if not (differences := other_training_images(trained, dataset)):
            return dataset
        reasons += differences
    raise SegbenchError(
        f"calibration=cubic, and the training images of {trained.path} are not found: {'; '.join(reasons)}",
        "the images that the run was trained on",
        "say where they are (data.root=FOLDER), or set calibration=none",
    )


def _fitted(
    task: SegmentationTask,
    config: Config,
    checkpoint: Path,
    members: Sequence[Member],
    dataset: DataSet,
    wanted: tuple[str, str, str],
    device: torch.device | None,
) -> Calibration:
    from segbench.data.tiles import normalise
    from segbench.experiment.ensemble import load_networks
    from segbench.experiment.evaluating import evaluating
    from segbench.inference.finishing import CubicFit

    source = dataset.split("train")
    if source is None or len(source) == 0:
        raise SegbenchError(
            f"calibration=cubic for {dataset.spec.name}, which has no training images",
            "the images that the run was trained on",
            "set calibration=null in a training, calibration=none in evaluate and predict",
        )
    load_networks(task, checkpoint, members)
    fits = {head: CubicFit() for head in task.spec.heads}
    with evaluating(task, config.trainer, device) as place:
        for index in range(len(source)):
            raw = source.read(index)
            images = {
                name: normalise(image, dataset.spec.modalities[name]).to(place) for name, image in raw.images.items()
            }
            for head, prob_KHW in task.predict(images, finished=False).items():
                void = dataset.spec.heads[head].ignore_index
                fits[head].add(prob_KHW[1].cpu().numpy(), raw.labels[head], void)
    polynomials = {head: fit.coefficients() for head, fit in fits.items()}
    digest, tta, precision = wanted
    return Calibration(checkpoint=digest, tta=tta, precision=precision, images=len(source), polynomials=polynomials)
