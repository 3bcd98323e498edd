"""One confusion matrix, and every overlap score out of it (FCN, section 5).

n_ij = pixels of class i that are predicted as j, t_i = sum_j n_ij. The matrix is accumulated over the whole split,
never averaged over images or batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from segbench.metrics.measure import Counts, ImageResult
from segbench.spec import ScoreInfo


@njit(cache=True, nogil=True)
def _count(label: NDArray[np.integer], pred: NDArray[np.integer], num_classes: int, void: int) -> NDArray[np.int64]:
    # One row and one column more than there are classes: what is out of range lands there, without a branch a pixel.
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for position in range(label.size):
        row, column = label[position], pred[position]
        if row == void:
            continue
        row = row if 0 <= row < num_classes else num_classes
        column = column if 0 <= column < num_classes else num_classes
        matrix[row, column] += 1
    return matrix


def confusion_matrix(
    label: NDArray[np.integer], pred: NDArray[np.integer], num_classes: int, ignore_index: int = 255
) -> NDArray[np.int64]:
    """Count pixels by label and prediction.

    Args:
        label: integers of any shape; `ignore_index` is left out.
        pred: integers of the same shape.
        num_classes: K.
        ignore_index: the void label.

    Returns:
        KxK int64; row = label, column = prediction.

    Raises:
        ValueError: the shapes differ, or a value that is not void lies outside 0 to K-1.

    Example:
        >>> confusion_matrix(np.array([0, 0, 1, 255]), np.array([0, 1, 1, 1]), num_classes=2)
        array([[1, 1],
               [0, 1]])
    """
    if label.shape != pred.shape:
        raise ValueError(f"label {label.shape} and prediction {pred.shape} differ in shape")
    matrix = _count(np.ravel(label), np.ravel(pred), num_classes, ignore_index)
    if matrix[num_classes].any() or matrix[:, num_classes].any():
        where = "label" if matrix[num_classes].any() else "prediction"
        values = np.unique(label if where == "label" else pred)
        raise ValueError(f"{where} values {values[:12]} reach outside 0 to {num_classes - 1}, void is {ignore_index}")
    return np.asarray(matrix[:num_classes, :num_classes])


@dataclass(frozen=True)
class Overlap:
    """The four scores of the FCN papers and the IU of each class, from a confusion matrix an image.

    - `pixel_acc` = sum_i n_ii / sum_i t_i
    - `mean_acc` = mean over labelled classes of n_ii / t_i
    - `mean_iu` = mean over classes that are labelled or predicted of n_ii / (t_i + sum_j n_ji - n_ii): a class that is
      predicted and nowhere labelled counts as 0, as in the authors' score.py
    - `fw_iu` = (sum_k t_k)^-1 sum_i t_i n_ii / (t_i + sum_j n_ji - n_ii)
    - `iu/<class>`: the IU of one class, NaN where it is neither labelled nor predicted

    Attributes:
        class_names: K names.
        excluded: classes that enter none of the means; pixels that are labelled so still count for `pixel_acc`.
    """

    class_names: tuple[str, ...]
    excluded: tuple[int, ...] = ()
    name: str = "confusion"
    version: str = "fcn-1"
    needs_prob: bool = False
    needs_raw: bool = False
    test_only: bool = False

    def infos(self) -> tuple[ScoreInfo, ...]:
        """Pixel accuracy, mean accuracy, mean IU, frequency weighted IU, and the IU of each class."""
        names = ["pixel_acc", "mean_acc", "mean_iu", "fw_iu", *(f"iu/{name}" for name in self.class_names)]
        return tuple(ScoreInfo(name, (0.0, 1.0), True, self.version) for name in names)

    def counts(self, image: ImageResult) -> Counts:
        """`{"matrix": KxK int64}`."""
        classes = len(self.class_names)
        return {"matrix": confusion_matrix(image.label_HW, image.pred_HW, classes, image.ignore_index)}

    def scores(self, totals: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float64]]:
        """Scores from one KxK matrix or from any number of them (..., K, K)."""
        matrix = np.asarray(totals["matrix"], np.float64)
        hit = np.diagonal(matrix, axis1=-2, axis2=-1)
        labelled, predicted = matrix.sum(-1), matrix.sum(-2)
        kept = np.ones(matrix.shape[-1], bool)
        kept[list(self.excluded)] = False
        with np.errstate(divide="ignore", invalid="ignore"):
            accuracy = hit / labelled
            iu = hit / (labelled + predicted - hit)
            share = labelled / labelled.sum(-1, keepdims=True)
            scores = {
                "pixel_acc": hit.sum(-1) / matrix.sum((-2, -1)),
                "mean_acc": _mean_of_finite(accuracy[..., kept]),
                "mean_iu": _mean_of_finite(iu[..., kept]),
                "fw_iu": np.where(share > 0, share * np.nan_to_num(iu), 0.0)[..., kept].sum(-1),
            }
        return scores | {f"iu/{name}": iu[..., k] for k, name in enumerate(self.class_names)}


def _mean_of_finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    finite = np.isfinite(values)
    return np.asarray(np.where(finite, values, 0.0).sum(-1) / finite.sum(-1))
