"""The last steps of a run's predictions: polynomials fitted on its training images, never on what is scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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
    dataset: Callable[[], DataSet],
    members: Sequence[Member] = (),
    written_to: Run | None = None,
    device: torch.device | None = None,
) -> list[str]:
    """Give a task what its config does with probabilities at the end; its weights become the checkpoint's.

    Polynomials that the run has recorded for this file, these symmetries and this precision are taken; others are
    fitted, on each process alike.

    Args:
        task: whose predictions are finished from then on, but for those of validations.
        config: of the evaluation or prediction.
        trained: the run.
        checkpoint: one of its files.
        dataset: makes the run's data set, if polynomials are to be fitted.
        members: networks beside it.
        written_to: the directory that records them; None: none does.
        device: where they are fitted; None: as `evaluating` chooses.

    Returns:
        what was done, as sentences.

    Raises:
        SegbenchError: no labelled training images.
    """
    from segbench.inference.finishing import Finishing, rises
    from segbench.inference.multiscale import scales_of

    if config.calibration is None and config.median is None:
        task.finish = None
        return []
    sentences, calibration = [], None
    if config.calibration is not None:
        digests = "+".join([file_digest(checkpoint), *(each.digest for each in members)])
        scales = scales_of(config.tta, config.tta_scales)
        resized = [] if config.input_scale is None else [f"input_scale={config.input_scale:g}"]
        averaged = " ".join([config.tta, *(f"{scale:g}" for scale in scales), *resized])
        wanted = digests, averaged, str(config.trainer.precision)
        calibration, how = trained.calibration(), f"as recorded in {trained.path / 'calibration.json'}"
        if calibration is None or not calibration.is_of(*wanted) or set(calibration.polynomials) != {*task.spec.heads}:
            calibration = _fitted(task, config, checkpoint, members, dataset(), wanted, device)
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
    task.finish = Finishing({} if calibration is None else calibration.polynomials, config.median or 0)
    return sentences


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
            "set calibration=none",
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
