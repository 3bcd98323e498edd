"""Predict images with a run's network: `segbench predict run=RUN input=TIFF output=DIR`."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.config import choose_run_id
from segbench.entry import hydra_entry, job, plain
from segbench.errors import SegbenchError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from omegaconf import DictConfig

    from segbench.data.raw import RawImage
    from segbench.spec import DatasetSpec, HeadSpec
    from segbench.task import SegmentationTask

log = logging.getLogger(__name__)


@contextlib.contextmanager
def evaluating(task: SegmentationTask, trainer_config: dict[str, Any]) -> Iterator[torch.device]:
    """The network on its device, in eval mode, under the run's precision and thread count."""
    import torch

    device = torch.device("cuda" if trainer_config["accelerator"] in ("gpu", "cuda") else "cpu")
    dtypes = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    dtype = dtypes.get(str(trainer_config["precision"]))
    threads = torch.get_num_threads()
    torch.set_num_threads(task.evaluation.threads)
    task.to(device).eval()
    try:
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype is not None):
            yield device
    finally:
        torch.set_num_threads(threads)


def predict_images(
    task: SegmentationTask, images: Iterable[RawImage], device: torch.device
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Class probabilities KHW float32 by head, image by image."""
    from segbench.data.tiles import normalise

    for raw in images:
        tensors = {name: normalise(image, task.spec.modalities[name]).to(device) for name, image in raw.images.items()}
        yield {head: prob_KHW.float().cpu().numpy() for head, prob_KHW in task.predict(tensors).items()}


def write_probabilities(
    predictions: Iterable[dict[str, NDArray[np.float32]]],
    count: int,
    heads: dict[str, HeadSpec],
    directory: Path,
    stem: str,
) -> list[Path]:
    """Write a float32 TIFF a class, a page an image; of two classes the second one's alone, P(cell) of an EM run.

    Args:
        predictions: KHW by head.
        count: how many, for the progress bar.
        heads: of the data set.
        directory: is made.
        stem: of the files; `<stem>.tif`, with `-<head>` and `-<class>` where there are several.

    Returns:
        the files, each written under a temporary name and renamed when it is whole.
    """
    import tifffile
    from rich.console import Console
    from rich.progress import track

    names: dict[tuple[str, int], Path] = {}
    for head, spec in heads.items():
        classes = [1] if spec.num_classes == 2 else range(spec.num_classes)
        for k in classes:
            parts = [stem, *([head] if len(heads) > 1 else []), *([spec.class_names[k]] if len(classes) > 1 else [])]
            names[head, k] = directory / f"{'-'.join(parts)}.tif"
    directory.mkdir(parents=True, exist_ok=True)
    partials = {key: path.with_name(f".{path.name}.{os.getpid()}.partial") for key, path in names.items()}
    try:
        with contextlib.ExitStack() as stack:
            writers = {key: stack.enter_context(tifffile.TiffWriter(path)) for key, path in partials.items()}
            console = Console(stderr=True)
            hidden = not console.is_terminal
            for prob in track(predictions, "predict", count, console=console, disable=hidden, transient=True):
                for (head, k), writer in writers.items():
                    writer.write(prob[head][k], photometric="minisblack", contiguous=True, metadata=None)
        for key, path in names.items():
            os.replace(partials[key], path)
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
    return list(names.values())


def read_pages(path: Path, spec: DatasetSpec) -> list[RawImage]:
    """The pages of a TIFF as images of the data set's modality.

    Raises:
        SegbenchError: the file cannot be read, or is not of the modality's channels and range.
    """
    from segbench.data.raw import RawImage
    from segbench.data.stacks import read_stack

    if len(spec.modalities) != 1:
        raise SegbenchError(
            f"a run on {spec.name} with modalities {', '.join(spec.modalities)}",
            "one modality",
            "predict a run of one modality",
        )
    name, modality = next(iter(spec.modalities.items()))
    stack = read_stack(path, "input")
    channels = 1 if stack.ndim == 3 else stack.shape[-1]
    if channels != modality.channels:
        raise SegbenchError(
            f"{path} has {channels} channels", f"{modality.channels} ({name}, {modality.unit})", "convert it first"
        )
    if "0 to 255" in modality.unit and not (stack.min() >= 0 and stack.max() <= 255):
        raise SegbenchError(
            f"{path} holds values from {stack.min()} to {stack.max()} ({stack.dtype})",
            f"{modality.unit}, as the network was trained",
            "rescale the image to 8 bits first",
        )
    return [RawImage({name: page}, {}, f"{path.stem}-{number:04d}") for number, page in enumerate(stack)]


def predict(given: dict[str, Any]) -> list[Path]:
    """Predict `input` with `run`'s network.

    Args:
        given: the composed predict config, plain containers.

    Returns:
        the files written.
    """
    from segbench.build import build_dataset_spec, build_task, resolve_hardware
    from segbench.checkpoint import load_weights
    from segbench.evaluate import recorded
    from segbench.runs import Run, not_writable

    run = Run.open(given["run"])
    checkpoint = run.checkpoint(given["checkpoint"])
    config = recorded(run.config(), given)
    said = resolve_hardware(config)
    spec = build_dataset_spec(run)
    source, output = Path(given["input"]), Path(given["output"])
    images = read_pages(source, spec)
    if (output / f"{source.stem}.tif").exists() and source.samefile(output / f"{source.stem}.tif"):
        raise SegbenchError(f"output={output} would write over the input {source}", "another folder", "change output=")
    task = build_task(config, spec)
    step = load_weights(task.model, checkpoint)
    log.info("%s; %s of step %d; tta=%s", "; ".join(said), checkpoint.name, step, task.evaluation.tta)
    with evaluating(task, config["trainer"]) as device:
        predictions = predict_images(task, images, device)
        try:
            return write_probabilities(predictions, len(images), dict(spec.heads), output, source.stem)
        except OSError as error:
            raise not_writable(output, error) from error


@job
def run_job(config: DictConfig) -> None:
    """What Hydra calls with the composed config."""
    from segbench.entry import log_to

    with log_to(None):
        for path in predict(plain(config)):
            print(path)


def main() -> None:
    """The entry point; sys.argv holds overrides."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    choose_run_id()
    hydra_entry(run_job, "predict", writes=False)


if __name__ == "__main__":
    main()
