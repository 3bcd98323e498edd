"""A metric is counts of one image, and scores from the sum of such counts.

So it is exact under any batch size, any number of processes and any resume, since sums do not depend on order; and an
interval, a paired test or another formula can be computed later from the counts alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from segbench.errors import SegbenchError
from segbench.spec import VOID, HeadSpec, ScoreInfo


@dataclass(frozen=True)
class ImageResult:
    """One evaluated image, the input of measures.

    Attributes:
        label_HW: integers, `ignore_index` = void.
        pred_HW: the predicted class, integers.
        prob_KHW: float32 class probabilities in [0, 1], if a measure needs them (`needs_prob`), else None.
        raw_CHW: the input before normalisation, in its unit, if a measure needs it (`needs_raw`), else None.
        instances_HW: int32 reference object ids, 0 = none, where the data set has them.
        ignore_index: the void label.
        references: further reference object ids by name, int32.
    """

    label_HW: NDArray[np.integer]
    pred_HW: NDArray[np.integer]
    prob_KHW: NDArray[np.float32] | None = None
    raw_CHW: NDArray[np.float32] | None = None
    instances_HW: NDArray[np.int32] | None = None
    ignore_index: int = VOID
    references: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)

    @cached_property
    def labelled(self) -> int:
        """The number of pixels that are not void."""
        return int(np.count_nonzero(self.label_HW != self.ignore_index))

    def probabilities(self, measure: str) -> NDArray[np.float32]:
        """`prob_KHW`, float32.

        Args:
            measure: that reads it, for the error.

        Raises:
            SegbenchError: there are none.
        """
        if self.prob_KHW is None:
            raise SegbenchError(
                f"no probabilities for {measure}",
                "ImageResult.prob_KHW, float32 in [0, 1]",
                "pass prob_KHW: the measure declares needs_prob",
            )
        return self.prob_KHW

    def cell_view(
        self, cell_class: int, measure: str
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_] | None]:
        """The image for the challenge metrics, where one class is cell and the rest is membrane.

        Args:
            cell_class: the class that is cell.
            measure: that reads it, for the error.

        Returns:
            float32 HW, probability of cell; bool HW, where the label is cell (False on void); bool HW, where it is
            void, or None where no pixel is.

        Raises:
            SegbenchError: there are no probabilities, `cell_class` is not one of their classes, or the shapes differ.
        """
        prob_KHW = self.probabilities(measure)
        classes = prob_KHW.shape[0]
        if not 0 <= cell_class < classes:
            raise SegbenchError(
                f"cell_class={cell_class} for a head of {classes} classes",
                f"0 to {classes - 1}",
                f"set cell_class of {measure} in the metrics config, or leave {measure} out for this head",
            )
        prob_HW = np.ascontiguousarray(prob_KHW[cell_class], np.float32)
        if prob_HW.shape != self.label_HW.shape:
            raise SegbenchError(
                f"probabilities of {prob_HW.shape} and a label of {self.label_HW.shape} for {measure}",
                "one probability per label pixel",
                "crop the label to what the model predicts",
            )
        void_HW = self.label_HW == self.ignore_index
        cell_HW = np.ascontiguousarray(self.label_HW == cell_class) & ~void_HW
        return prob_HW, cell_HW, np.ascontiguousarray(void_HW) if void_HW.any() else None


Counts = dict[str, NDArray[np.generic]]
"""Named arrays of one image; each key has one shape and dtype (int64 or float64) for the whole data set."""


@runtime_checkable
class Measure(Protocol):
    """A metric definition: pure numpy, no torch.

    Attributes:
        name: unique among the measures of a head; the key of its counts in `per_image.npz`.
        version: of the definition, e.g. `"isbi2012-1"`.
        needs_prob: `counts` reads `ImageResult.prob_KHW`.
        needs_raw: `counts` reads `ImageResult.raw_CHW`.
        test_only: too slow for every validation.

    A measure with large counts may also have a method `reduced(counts)`: smaller counts, linear in the counts, that
    `scores` accepts too. A bootstrap then sums 3 K numbers per image instead of K x K.
    """

    name: str
    version: str
    needs_prob: bool
    needs_raw: bool
    test_only: bool

    def infos(self) -> tuple[ScoreInfo, ...]:
        """The scores that `scores` returns, in its order."""
        ...

    def counts(self, image: ImageResult) -> Counts:
        """Counts of one image."""
        ...

    def scores(self, totals: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float64]]:
        """Scores from counts summed over images.

        Args:
            totals: the keys of `counts`, each with any leading axes (...) before its shape there: none for one data
                set, one of D for D bootstrap draws.

        Returns:
            one float64 array (...) for each score in `infos()`; NaN where a score is not defined.
        """
        ...


@dataclass(frozen=True)
class CellMeasure:
    """What the measures of the ISBI 2012 challenge share: their fields, see `Measure`.

    Attributes:
        cell_class: the class that is cell; all others are membrane.
    """

    cell_class: int = 1
    name: str = ""
    version: str = "isbi2012-1"
    needs_prob: bool = True
    needs_raw: bool = False
    test_only: bool = False


def over_labelled(
    totals: Mapping[str, NDArray[np.generic]], scores: Mapping[str, NDArray[np.float64]]
) -> dict[str, NDArray[np.float64]]:
    """The scores, NaN where nothing is labelled, for measures whose formula gives 0 or 1 over no pixel at all.

    Args:
        totals: summed counts; `labelled` (...) counts the pixels that are not void. Runs of version 0.1.0 lack it, and
            keep what the formula gives.
        scores: (...) by name.
    """
    if "labelled" not in totals:
        return dict(scores)
    any_pixel = np.asarray(totals["labelled"]) > 0
    return {name: np.where(any_pixel, value, np.nan) for name, value in scores.items()}


def arguments_of_head(kind: Callable[..., Any], given: Mapping[str, Any], head: HeadSpec) -> dict[str, Any]:
    """What a measure takes from its head: class names and excluded classes, if it has such arguments.

    Args:
        kind: the measure's class.
        given: what the configuration sets, which wins.
        head: whose pixels are scored.
    """
    offered = {"class_names": head.class_names, "excluded": head.excluded}
    try:
        wanted: Mapping[str, Any] = inspect.signature(kind).parameters
    except ValueError:
        # Some builtins have none.
        wanted = {}
    return {key: value for key, value in offered.items() if key in wanted and key not in given}
