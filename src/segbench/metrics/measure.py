"""What every metric is here: counts of one image, and scores from the sum of such counts.

A metric that is written this way is exact under any batch size, any number of processes and any resume, since sums do
not care for order; and an interval, a paired test or another formula can be computed later from the counts alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from segbench.spec import VOID, HeadSpec, ScoreInfo


@dataclass(frozen=True)
class ImageResult:
    """One evaluated image, as measures see it.

    Attributes:
        label_HW: int64 (any integer type is taken), `ignore_index` = void.
        pred_HW: the predicted class, integers.
        prob_KHW: float32 class probabilities in [0, 1], where a measure asks for them (`needs_prob`), else None.
        raw_CHW: the input before normalisation, in its unit, where a measure asks for it (`needs_raw`), else None.
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


Counts = dict[str, NDArray[np.generic]]
"""Named arrays of one image; each key has one shape and dtype (int64 or float64) for the whole data set."""


@runtime_checkable
class Measure(Protocol):
    """A metric definition: pure numpy, no torch.

    Attributes:
        name: unique among the measures of a head; the key of its counts in `per_image.npz`.
        version: of the definition, e.g. `"isbi2012-1"`.
        needs_prob: whether `counts` reads `ImageResult.prob_KHW`.
        needs_raw: whether `counts` reads `ImageResult.raw_CHW`.
        test_only: too slow for every validation.

    A measure whose counts are large may have a method `reduced(counts)` beside these: smaller counts, linear in the
    counts, that `scores` takes too. A bootstrap then sums 3 K numbers an image instead of K x K.
    """

    name: str
    version: str
    needs_prob: bool
    needs_raw: bool
    test_only: bool

    def infos(self) -> tuple[ScoreInfo, ...]:
        """The scalar scores that `scores` returns, in its order."""
        ...

    def counts(self, image: ImageResult) -> Counts:
        """Counts of one image."""
        ...

    def scores(self, totals: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float64]]:
        """Scores from counts summed over images.

        Args:
            totals: the keys of `counts`, each with any leading axes (...) before the shape that `counts` gave it: none
                for one data set, one of D for D bootstrap draws.

        Returns:
            one float64 array of shape (...) a score named in `infos()`; NaN where a score is not defined.
        """
        ...


def arguments_of_head(kind: Callable[..., Any], given: Mapping[str, Any], head: HeadSpec) -> dict[str, Any]:
    """What a definition takes from its head: class names and excluded classes, where it asks for them.

    Args:
        kind: the measure's class.
        given: what the configuration sets; it comes first.
        head: whose pixels are scored.
    """
    offered = {"class_names": head.class_names, "excluded": head.excluded}
    wanted = inspect.signature(kind).parameters
    return {key: value for key, value in offered.items() if key in wanted and key not in given}
