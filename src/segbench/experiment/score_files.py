"""Score predictions against labels without a network: `segbench evaluate predictions=P labels=L`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from segbench.config.requests import EvaluateRequest
from segbench.errors import SegbenchError, say
from segbench.runs.directory import Run, not_writable
from segbench.runs.provenance import provenance

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from segbench.metrics import ChallengeScores, FScores, VInfoScores, VRandScores, WarpingScores

_IMAGES = (".png", ".tif", ".tiff", ".bmp")


def read_probabilities(path: Path) -> NDArray[np.generic]:
    """Predictions: a TIFF stack, an image, or a folder of images of one page in the order of their names.

    Args:
        path: what `predictions=` names.

    Returns:
        NHW in the files' dtype; a colour image whose channels are equal is grey.

    Raises:
        SegbenchError: missing, empty or unreadable, images that differ in size, or colours.
    """
    return _read_slices(path, "predictions", _grey_pages)


def read_labels(path: Path) -> NDArray[np.generic]:
    """Labels: a TIFF stack, an image, or a folder of images of one page in the order of their names.

    Args:
        path: what `labels=` names.

    Returns:
        NHW values or palette indices, read as the masks of a data set are; non-zero is cell.

    Raises:
        SegbenchError: missing, empty or unreadable, images that differ in size, or colours, which name no class.
    """
    return _read_slices(path, "labels", _label_pages)


def _read_slices(path: Path, key: str, pages_of: Callable[[Path], list[NDArray[np.generic]]]) -> NDArray[np.generic]:
    if not path.exists():
        near = sorted(file.name for file in path.parent.iterdir())[:6] if path.parent.is_dir() else []
        beside = f"; beside it: {', '.join(near)}" if near else ""
        raise SegbenchError(
            f"no file {path}{beside}", "a TIFF stack, or a folder of images", f"set {key} to where it is"
        )
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _IMAGES)
    if not files:
        raise SegbenchError(f"no image in {path} ({key})", f"files ending in {', '.join(_IMAGES)}", f"correct {key}=")
    slices: list[NDArray[np.generic]] = []
    for file in files:
        pages = pages_of(file)
        if path.is_dir() and len(pages) > 1:
            raise SegbenchError(
                f"{file} has {len(pages)} pages", "one page in each file of a folder", f"set {key}={file}, or split it"
            )
        slices += pages
    sizes = {page.shape for page in slices}
    if len(sizes) > 1:
        raise SegbenchError(f"{path} holds images of sizes {sorted(sizes)}", "one size", f"correct {key}=")
    return np.stack(slices)


def _tiff_pages(file: Path, key: str) -> list[NDArray[np.generic]]:
    """HWC."""
    from segbench.data.files.stacks import read_stack

    stack = read_stack(file, key)
    return [*(stack[..., np.newaxis] if stack.ndim == 3 else stack)]


def _grey_pages(file: Path) -> list[NDArray[np.generic]]:
    from segbench.data.files.image_files import is_tiff, read_image

    pages = _tiff_pages(file, "predictions") if is_tiff(file) else [read_image(file)]
    for page_HWC in pages:
        if not _is_grey(page_HWC):
            raise SegbenchError(
                f"{file} (predictions) is a colour image",
                "one value per pixel, the probability of cell in [0, 1]",
                "give the probabilities: segbench predict format=probabilities writes them",
            )
    return [page_HWC[..., 0] for page_HWC in pages]


def _label_pages(file: Path) -> list[NDArray[np.generic]]:
    from segbench.data.files.image_files import is_tiff
    from segbench.data.files.masks import coded, masks_of, read_mask

    lacking = sum(int((mask.codes_HW == mask.nodata).sum()) for mask in masks_of(file) if mask.nodata is not None)
    if lacking:
        raise SegbenchError(
            f"{file} (labels) declares {lacking} of its pixels as no data (GDAL_NODATA)",
            "labels of every pixel, as these scores know no void",
            "cut the labelled part out, or remove the declaration: gdal_edit.py -unsetnodata FILE",
        )
    masks = [coded(page_HWC, file) for page_HWC in _tiff_pages(file, "labels")] if is_tiff(file) else [read_mask(file)]
    pages: list[NDArray[np.generic]] = []
    for mask in masks:
        codes_HW: NDArray[np.generic] = mask.codes_HW
        if mask.kind == "colours":
            # 0xRRGGBB of grey is its level, three times.
            grey_HW = mask.codes_HW & 0xFF
            if not np.array_equal(grey_HW * 0x010101, mask.codes_HW):
                colours = np.unique(mask.codes_HW)
                shown = ", ".join(f"#{colour:06x}" for colour in colours[:6]) + (" ..." if len(colours) > 6 else "")
                raise SegbenchError(
                    f"{file} (labels) holds colours: {shown}",
                    "one number per pixel, 0 = membrane and any other = cell",
                    "write the labels in grey, e.g. as 8-bit PNG of 0 and 255, or with a palette whose index 0 is "
                    "membrane",
                )
            codes_HW = grey_HW
        pages.append(codes_HW)
    return pages


def _is_grey(image_HWC: NDArray[np.generic]) -> bool:
    """Whether an image has one channel, or three equal ones and no transparency."""
    channels = image_HWC.shape[2]
    equal = channels in (3, 4) and bool((image_HWC[..., :3] == image_HWC[..., :1]).all())
    opaque = channels != 4 or bool((image_HWC[..., 3] == image_HWC[..., 3].max(initial=0)).all())
    return channels == 1 or (equal and opaque)


def score_files(given: EvaluateRequest, directory: Path, overrides: list[str]) -> dict[str, float]:
    """Score by every metric of the ISBI 2012 challenge; print a table and json, and write results.json.

    Args:
        given: what is asked for: `predictions` holds P(cell) in [0, 1], `labels` cells as non-zero.
        directory: the evaluation's own.
        overrides: of the command line.

    Returns:
        the scores by name.
    """
    import time

    from segbench.metrics import challenge_scores

    prob_NHW, label_NHW = read_probabilities(Path(str(given.predictions))), read_labels(Path(str(given.labels)))
    with Run.create(directory, given, overrides) as run:
        started = time.monotonic()
        scored = challenge_scores(cast("NDArray[np.floating]", prob_NHW), label_NHW)
        values = scored.values()
        protocol = {"dataset": given.labels, "split": f"{len(label_NHW)} slices of {given.predictions}"}
        try:
            run.write_results(values, {"evaluate_s": time.monotonic() - started}, provenance(), protocol)
            run.set_state("finished")
        except OSError as error:
            raise not_writable(directory, error) from error
    print_scores(scored, len(label_NHW))
    say(json.dumps(values))
    say(f"run: {directory}")
    return values


def print_scores(scored: ChallengeScores, count: int) -> None:
    """The challenge's metrics as a table: value, best threshold, direction."""
    from rich.table import Table

    from segbench.display.tables import RAND_DEFINITIONS
    from segbench.runtime.console import Console

    table = Table(title=f"ISBI 2012 challenge metrics, {count} slices", title_justify="left", caption_justify="left")
    for column in ("metric", "value", "at threshold", "better"):
        table.add_column(column, justify="left" if column in ("metric", "better") else "right")
    parts: dict[str, FScores | VRandScores | VInfoScores | WarpingScores] = {
        "pixel_error": scored.pixel_error,
        "rand_error": scored.rand_error,
        "rand_error_pairs": scored.rand_error_pairs,
        "v_rand": scored.v_rand,
        "v_info": scored.v_info,
        "warping_error": scored.warping_error,
    }
    for name, part in parts.items():
        value = f"{part.value:.6f}" if name == "warping_error" else f"{part.value:.4f}"
        table.add_row(name, value, f"{part.threshold:.1f}", "higher" if name.startswith("v_") else "lower")
    table.caption = RAND_DEFINITIONS
    Console(soft_wrap=True).print(table)
