"""One confusion matrix, and every overlap score from it (FCN, section 5).

n_ij = pixels of class i that are predicted as j, t_i = sum_j n_ij. The matrix is accumulated over the whole split,
never averaged over images or batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segbench.compiled import compiled
from segbench.errors import SegbenchError
from segbench.metrics.measure import Counts, ImageResult
from segbench.spec import OF_CLASSES, ScoreInfo

FOUR = ("pixel_acc", "mean_acc", "mean_iu", "fw_iu")
"""The scores that the FCN papers print."""

WAYS, FEW = 4, 4096
"""Tables that are counted in turn, and the most numbers in each: neighbours are mostly of one class, and a sum that
waits for the one before it takes twice as long. Four larger tables would not fit the cache."""


@compiled
def _cell(label: int, pred: int, num_classes: int, void: int) -> np.uint64:
    # Branch-free: an extra row and column take what is out of range, a further row what is void. As an unsigned number
    # a negative value is large.
    most = np.uint64(num_classes)
    row, column = min(np.uint64(label), most), min(np.uint64(pred), most)
    row = most + np.uint64(1) if label == void else row
    return row * np.uint64(num_classes + 2) + column


@compiled
def _count(label: NDArray[np.integer], pred: NDArray[np.integer], num_classes: int, void: int) -> NDArray[np.int64]:
    side = num_classes + 2
    cells = np.uint64(side * side)
    tables = np.zeros((WAYS if cells <= FEW else 1) * side * side, np.int64)
    apart = cells if cells <= FEW else np.uint64(0)
    whole = label.size // WAYS * WAYS
    for start in range(0, whole, WAYS):
        for way in range(WAYS):
            tables[np.uint64(way) * apart + _cell(label[start + way], pred[start + way], num_classes, void)] += 1
    for position in range(whole, label.size):
        tables[_cell(label[position], pred[position], num_classes, void)] += 1
    counted: NDArray[np.int64] = tables.reshape(-1, side, side).sum(0)[:-1, :-1]
    return counted


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
    """The four scores of the FCN papers, the other mean IUs in use, and IU and Dice of each class.

    With the matrix summed over the split:

    - `pixel_acc` = sum_i n_ii / sum_i t_i
    - `mean_acc` = mean over labelled classes of n_ii / t_i
    - `iu/<class>` = n_ii / (t_i + sum_j n_ji - n_ii), NaN where the class is neither labelled nor predicted
    - `dice/<class>` = 2 n_ii / (t_i + sum_j n_ji), the F1 of its pixels, NaN likewise; it is 2 IU / (1 + IU)
    - `mean_iu` = mean IU over classes that are labelled or predicted: a class predicted but not labelled counts as 0,
      as in the authors' score.py
    - `mean_iu_present` = over classes that are labelled (the SIFT Flow protocol)
    - `mean_iu_all` = over all classes, those that are neither labelled nor predicted counting as 0
    - `fw_iu` = (sum_k t_k)^-1 sum_i t_i n_ii / (t_i + sum_j n_ji - n_ii)

    Over no labelled pixel all of them are NaN.

    `without` names a class, such as a background that is trained but counted by some tables and left out by others:
    `pixel_acc_without_<class>`, `mean_acc_without_<class>`, `mean_iu_without_<class>` and `fw_iu_without_<class>` are
    the four scores of the papers once more, with i and k over the other classes alone and j over all: the class's own
    pixels count in IU_i where they are predicted as i.

    Not from that matrix comes `mean_iu_per_image`: the mean of the images' `mean_iu`. It does not estimate the others,
    since small images and rare classes weigh more in it.

    Attributes:
        class_names: K names.
        excluded: classes left out of all means; their labelled pixels still count for `pixel_acc`.
        without: the class that four further scores leave out; None: no further scores.

    Raises:
        SegbenchError: `without` is none of the classes.
    """

    class_names: tuple[str, ...]
    excluded: tuple[int, ...] = ()
    name: str = "confusion"
    version: str = "fcn-1"
    needs_prob: bool = False
    needs_raw: bool = False
    test_only: bool = False
    without: str | None = None

    def __post_init__(self) -> None:
        if self.without is not None and self.without not in self.class_names:
            shown = ", ".join(self.class_names[:8]) + (" ..." if len(self.class_names) > 8 else "")
            raise SegbenchError(
                f"without={self.without} in the metric {self.name}",
                f"a class of the labels: {shown}",
                f"correct metrics.{self.name}.without, or remove it",
            )

    def infos(self) -> tuple[ScoreInfo, ...]:
        """Accuracies, mean IUs by every definition, frequency weighted IU, those without a class, then each class's."""
        means = ("mean_iu", "mean_iu_present", "mean_iu_all", "mean_iu_per_image")
        of_classes = (f"{family}/{name}" for family in OF_CLASSES for name in self.class_names)
        further = () if self.without is None else (f"{name}_without_{self.without}" for name in FOUR)
        names = ("pixel_acc", "mean_acc", *means, "fw_iu", *further, *of_classes)
        return tuple(ScoreInfo(name, (0.0, 1.0), True, self.version) for name in names)

    def counts(self, image: ImageResult) -> Counts:
        """`matrix`: KxK int64; `image_mean_iu`: float64, 0 where undefined; `images`: int64, 1 where it is defined."""
        matrix = confusion_matrix(image.label_HW, image.pred_HW, len(self.class_names), image.ignore_index)
        mean = _mean_of_finite(_class_iu(self.reduced({"matrix": matrix}))[self._kept()])
        return {
            "matrix": matrix,
            "image_mean_iu": np.nan_to_num(mean),
            "images": np.array(np.isfinite(mean), np.int64),
        }

    def reduced(self, counts: Mapping[str, NDArray[np.generic]]) -> Counts:
        """What `scores` reads of the counts, linear in them: 3 K numbers for each matrix (..., K, K).

        Returns:
            `hit`, `labelled`, `predicted`: int64 (..., K), the matrix's diagonal, row sums and column sums; the other
            counts unchanged.
        """
        matrix = counts["matrix"]
        margins = {
            "hit": np.diagonal(matrix, axis1=-2, axis2=-1),
            "labelled": np.asarray(matrix.sum(-1)),
            "predicted": np.asarray(matrix.sum(-2)),
        }
        return margins | {key: value for key, value in counts.items() if key != "matrix"}

    def scores(self, totals: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float64]]:
        """Scores from matrices (..., K, K), or from what `reduced` makes of them."""
        totals = self.reduced(totals) if "matrix" in totals else totals
        hit, labelled = (np.asarray(totals[key], np.float64) for key in ("hit", "labelled"))
        kept = self._kept()
        iu, pixels = _class_iu(totals), labelled.sum(-1)
        some = pixels > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            share = labelled / pixels[..., None]
            scores = {
                "pixel_acc": hit.sum(-1) / pixels,
                "mean_acc": _mean_of_finite((hit / labelled)[..., kept]),
                "mean_iu": _mean_of_finite(iu[..., kept]),
                "mean_iu_present": _mean_of_finite(np.where(labelled > 0, iu, np.nan)[..., kept]),
                "mean_iu_all": np.where(some, np.nan_to_num(iu)[..., kept].mean(-1), np.nan),
                "mean_iu_per_image": np.asarray(totals["image_mean_iu"], np.float64) / np.asarray(totals["images"]),
                "fw_iu": np.where(some, np.where(share > 0, share * np.nan_to_num(iu), 0.0)[..., kept].sum(-1), np.nan),
            }
            dice = 2 * hit / (labelled + np.asarray(totals["predicted"], np.float64))
            if self.without is not None:
                scores |= self._without(hit, labelled, iu)
        for family, of_class in zip(OF_CLASSES, (iu, dice), strict=True):
            scores |= {f"{family}/{name}": of_class[..., k] for k, name in enumerate(self.class_names)}
        return scores

    def _without(
        self, hit: NDArray[np.float64], labelled: NDArray[np.float64], iu: NDArray[np.float64]
    ) -> dict[str, NDArray[np.float64]]:
        kept, counted = self._kept(), np.array([name != self.without for name in self.class_names])
        pixels = labelled[..., counted].sum(-1)
        share = labelled / pixels[..., None]
        weighted = np.where(share > 0, share * np.nan_to_num(iu), 0.0)[..., kept & counted].sum(-1)
        values = (
            hit[..., counted].sum(-1) / pixels,
            _mean_of_finite((hit / labelled)[..., kept & counted]),
            _mean_of_finite(iu[..., kept & counted]),
            np.where(pixels > 0, weighted, np.nan),
        )
        return {f"{name}_without_{self.without}": value for name, value in zip(FOUR, values, strict=True)}

    def _kept(self) -> NDArray[np.bool_]:
        kept = np.ones(len(self.class_names), bool)
        kept[list(self.excluded)] = False
        return kept


def _class_iu(margins: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float64]:
    hit, labelled, predicted = (np.asarray(margins[key], np.float64) for key in ("hit", "labelled", "predicted"))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(hit / (labelled + predicted - hit))


def _mean_of_finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    finite = np.isfinite(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(finite, values, 0.0).sum(-1) / finite.sum(-1))
