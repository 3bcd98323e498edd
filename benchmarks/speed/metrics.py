"""The metrics, each beside its reference in the same run, on drawn volumes."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from segbench.errors import SegbenchError
from segbench.metrics import (
    THRESHOLDS,
    challenge_scores,
    confusion_matrix,
    contingency,
    pixel_error,
    rand_error,
    regions,
)
from segbench.metrics.stack import available_cores
from speed.timing import Benches, Row, best_of

SLICES, SIDE, CELLS = 30, 512, 250


def drawn_stack(slices: int = SLICES, side: int = SIDE, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A volume like the challenge's: cells of a Voronoi diagram, and a prediction with gaps, blur and noise.

    Args:
        slices: N.
        side: H and W.
        seed: of the drawing; every slice differs.

    Returns:
        float32 probability of cell (N, H, W) in [0, 1] and uint8 label (N, H, W), 1 = cell.
    """
    prob, label = np.empty((slices, side, side), np.float32), np.empty((slices, side, side), np.uint8)
    grid = np.moveaxis(np.mgrid[:side, :side], 0, -1)
    for index in range(slices):
        rng = np.random.default_rng((seed, index))
        centres = rng.uniform(0, side, (CELLS * side**2 // SIDE**2, 2))
        near: NDArray[np.float64] = np.asarray(cKDTree(centres).query(grid, k=2)[0])
        label[index] = near[..., 1] - near[..., 0] > 3.0
        faint = cv2.GaussianBlur(rng.random((side, side), np.float32), (0, 0), 6.0) > 0.515
        membrane = cv2.GaussianBlur((label[index] == 0).astype(np.float32), (0, 0), 1.5) * np.where(faint, 0.45, 1.25)
        prob[index] = np.clip(1.0 - membrane + rng.normal(0, 0.06, (side, side)), 0.0, 1.0)
    return prob, label


def _skimage() -> tuple[Callable[..., NDArray[np.int64]], Callable[..., object]]:
    try:
        from skimage.measure import label
        from skimage.metrics import contingency_table
    except ImportError as error:
        raise SegbenchError(
            "scikit-image is not installed", "the reference of the bench", "pip install 'segbench[dev]'"
        ) from error
    return label, contingency_table


def challenge() -> list[Row]:
    """All metrics of the challenge, and its two cheapest ones, over all thresholds of 30 x 512 x 512."""
    prob, label = drawn_stack()
    components, table_of = _skimage()

    def pixel_by_numpy() -> None:
        truth = label > 0
        for threshold in THRESHOLDS:
            pred = prob.astype(np.float64) > threshold
            (pred & truth).sum(), (pred & ~truth).sum(), (~pred & truth).sum()

    def rand_by_skimage() -> None:
        # A tenth of the slices, since it takes seconds.
        for prob_HW, label_HW in zip(prob[::10], label[::10], strict=True):
            truth = components(label_HW, connectivity=1)
            for threshold in THRESHOLDS:
                table_of(truth, components(prob_HW > threshold, connectivity=1))

    all_five = best_of(lambda: challenge_scores(prob, label), repeats=2)[0]
    pixel, pixel_reference = best_of(lambda: pixel_error(prob, label), pixel_by_numpy)
    rand, rand_reference = best_of(lambda: rand_error(prob, label), rand_by_skimage)
    cores = f"{available_cores()} cores"
    size = f"{SLICES}x{SIDE}x{SIDE}, all thresholds"
    plugin = f"{cores}; the challenge's plugin takes about 9 s a slice on one"
    return [
        Row(f"five challenge metrics, {size}", all_five, "", None, "at most 12 s", all_five <= 12.0, plugin),
        Row(f"pixel error, {size}", pixel, "numpy", pixel_reference, "at most 0.2 s", pixel <= 0.2, cores),
        Row(
            f"Rand error, {size}",
            rand,
            "scikit-image components and tables",
            10 * rand_reference,
            "at most 0.6 s",
            rand <= 0.6,
            f"{cores}; the reference on one core, from every tenth slice",
        ),
    ]


def tables() -> list[Row]:
    """The two counting loops under the metrics: confusion matrix and contingency table."""
    import torch
    from torchmetrics.classification import MulticlassConfusionMatrix

    rng = np.random.default_rng(0)
    label, pred = rng.integers(0, 21, (4, 500, 500)), rng.integers(0, 21, (4, 500, 500))
    label[:, :25] = 255
    reference = MulticlassConfusionMatrix(21, ignore_index=255, validate_args=False)
    label_tensor, pred_tensor = torch.from_numpy(label), torch.from_numpy(pred)
    ours, theirs = best_of(
        lambda: confusion_matrix(label, pred, 21), lambda: reference.update(pred_tensor, label_tensor)
    )
    confusion = Row(
        "confusion matrix, 4x500x500, 21 classes",
        ours,
        "torchmetrics MulticlassConfusionMatrix.update",
        theirs,
        "at least 5 times",
        theirs / ours >= 5,
        f"the reference without its checks of the input, {torch.get_num_threads()} threads",
    )

    prob, cells = drawn_stack()
    _, table_of = _skimage()
    first = np.stack([regions(cell_HW) for cell_HW in cells])
    second = np.stack([regions(prob_HW > 0.5) for prob_HW in prob])
    ours, theirs = best_of(lambda: contingency(first, second), lambda: table_of(first, second))
    name = f"contingency table, {SLICES}x{SIDE}x{SIDE}"
    overlap = Row(name, ours, "scikit-image", theirs, "at least 5 times", theirs / ours >= 5, "one core each")
    return [confusion, overlap]


BENCHES: Benches = {"challenge": challenge, "tables": tables}
