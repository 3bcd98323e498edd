"""Boundary F1: how well class boundaries agree, within a tolerance.

Csurka, Larlus and Perronnin, "What is a good evaluation measure for semantic segmentation?", BMVC 2013.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segbench.errors import SegbenchError
from segbench.metrics.distance import distance_inside
from segbench.metrics.measure import Counts, ImageResult, over_labelled
from segbench.metrics.thresholds import harmonic_mean
from segbench.spec import ScoreInfo

TOLERANCE = 0.0075
"""The tolerance of Csurka et al., as a share of the image's diagonal."""


def boundary(mask_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask with a 4-neighbour outside it; the image's edge is not a boundary."""
    inner = mask_HW.copy()
    inner[1:] &= mask_HW[:-1]
    inner[:-1] &= mask_HW[1:]
    inner[:, 1:] &= mask_HW[:, :-1]
    inner[:, :-1] &= mask_HW[:, 1:]
    return mask_HW & ~inner


def boundary_f1(label_HW: NDArray[np.bool_], pred_HW: NDArray[np.bool_], tolerance: float = TOLERANCE) -> float:
    """F1 of the boundary of one class in one image.

    P is the share of the prediction's boundary pixels within `tolerance` of one of the label's, R the share of the
    label's within `tolerance` of one of the prediction's, and F1 = 2 P R / (P + R).

    Args:
        label_HW: where the label is of the class, bool.
        pred_HW: where the prediction is of the class, bool.
        tolerance: share of the image's diagonal; the distance is Euclidean, the limit inclusive.

    Returns:
        0 to 1. Where neither has a boundary (the class fills the image or is absent): 1 if they are equal, else 0.
        Where only one has: 0.

    Raises:
        SegbenchError: the shapes differ.
    """
    if label_HW.shape != pred_HW.shape:
        raise SegbenchError(
            f"a label of {label_HW.shape} and a prediction of {pred_HW.shape}", "one shape", "crop one to the other"
        )
    reach = tolerance * float(np.hypot(*label_HW.shape))
    ours, theirs = boundary(pred_HW), boundary(label_HW)
    if not (ours.any() and theirs.any()):
        return float(np.array_equal(label_HW, pred_HW))
    precision = (distance_inside(~theirs)[ours] <= reach).mean()
    recall = (distance_inside(~ours)[theirs] <= reach).mean()
    return float(harmonic_mean(np.asarray(precision), np.asarray(recall)))


@dataclass(frozen=True)
class BoundaryF1:
    """`boundary_f1` of a split: for each class the mean over the images that hold it, then the mean over classes.

    An image holds a class that is labelled or predicted in it. On void pixels the label takes the prediction's value,
    so a boundary inside a void band (as around VOC's objects) matches itself.

    Attributes:
        class_names: K names.
        excluded: classes left out of the mean.
        tolerance: share of the image's diagonal.
    """

    class_names: tuple[str, ...]
    excluded: tuple[int, ...] = ()
    tolerance: float = TOLERANCE
    name: str = "boundary"
    version: str = "csurka2013-1"
    needs_prob: bool = False
    needs_raw: bool = False
    test_only: bool = True

    def infos(self) -> tuple[ScoreInfo, ...]:
        """The mean over classes."""
        return (ScoreInfo("boundary_f1", (0.0, 1.0), True, self.version, test_only=True),)

    def counts(self, image: ImageResult) -> Counts:
        """Counts of one image.

        `f`: float64 (K,), F1 of each class that the image holds, else 0; `images`: int64 (K,), 1 where it does;
        `labelled`: int64, pixels that are not void.
        """
        pred = image.pred_HW
        label = np.where(image.label_HW == image.ignore_index, pred, image.label_HW)
        f, images = np.zeros(len(self.class_names)), np.zeros(len(self.class_names), np.int64)
        for k in range(len(self.class_names)):
            label_HW, pred_HW = label == k, pred == k
            if label_HW.any() or pred_HW.any():
                f[k], images[k] = boundary_f1(label_HW, pred_HW, self.tolerance), 1
        return {"f": f, "images": images, "labelled": np.array(image.labelled, np.int64)}

    def scores(self, totals: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float64]]:
        """The mean over the classes that some image holds, from sums of shape (..., K); NaN if nothing is labelled."""
        kept = [k for k in range(len(self.class_names)) if k not in self.excluded]
        f = np.asarray(totals["f"], np.float64)[..., kept]
        images = np.asarray(totals["images"], np.float64)[..., kept]
        held = images > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            by_class = np.where(held, f / images, 0.0)
            return over_labelled(totals, {"boundary_f1": np.asarray(by_class.sum(-1) / held.sum(-1))})
