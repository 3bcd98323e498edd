"""Score predictions against labels without a network: `segbench evaluate predictions=P labels=L`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from segbench.config.requests import EvaluateRequest
from segbench.errors import SegbenchError
from segbench.runs.directory import Run, not_writable
from segbench.runs.provenance import provenance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segbench.metrics import ChallengeScores, FScores, VInfoScores, VRandScores, WarpingScores

_IMAGES = (".png", ".tif", ".tiff", ".bmp")


def read_slices(path: Path, key: str) -> NDArray[np.generic]:
    """A TIFF stack, or a folder of single-page images in the order of their names.

    Args:
        path: the file or folder.
        key: the config key that named it.

    Returns:
        NHW in the files' dtype.

    Raises:
        SegbenchError: it is missing, empty or cannot be read, or the images differ in size.
    """
    from segbench.data.files.stacks import read_stack

    if not path.is_dir():
        return read_stack(path, key)
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _IMAGES)
    if not files:
        raise SegbenchError(f"no image in {path} ({key})", f"files ending in {', '.join(_IMAGES)}", f"correct {key}=")
    pages = [_read_image(file, key) for file in files]
    sizes = {page.shape for page in pages}
    if len(sizes) > 1:
        raise SegbenchError(f"{path} holds images of sizes {sorted(sizes)}", "one size", f"correct {key}=")
    return np.stack(pages)


def _read_image(file: Path, key: str) -> NDArray[np.generic]:
    from segbench.data.files.stacks import read_stack

    if file.suffix.lower().startswith(".tif"):
        page: NDArray[np.generic] = read_stack(file, key)[0]
        return page
    import cv2

    image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise SegbenchError(f"{file} cannot be decoded", "a whole image", "write the file again")
    grey: NDArray[np.generic] = image if image.ndim == 2 else image[..., 0]
    return grey


def score_files(given: EvaluateRequest, directory: Path, said: list[str]) -> dict[str, float]:
    """Score by every metric of the ISBI 2012 challenge; print a table and json, and write results.json.

    Args:
        given: what is asked for: `predictions` holds P(cell) in [0, 1], `labels` cells as non-zero.
        directory: the evaluation's own.
        said: the command line's overrides.

    Returns:
        the scores by name.
    """
    import time

    from segbench.metrics import challenge_scores

    prob_NHW = read_slices(Path(str(given.predictions)), "predictions")
    label_NHW = read_slices(Path(str(given.labels)), "labels")
    with Run.create(directory, given, said) as run:
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
    print(json.dumps(values))
    print(f"run: {directory}")
    return values


def print_scores(scored: ChallengeScores, count: int) -> None:
    """The challenge's metrics as a table: value, best threshold, direction."""
    from rich.console import Console
    from rich.table import Table

    from segbench.display.tables import RAND_DEFINITIONS

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
    Console(highlight=False, soft_wrap=True).print(table)
