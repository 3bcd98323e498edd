"""The score of a single grey-level threshold of the raw image: the bar that a model has to clear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segbench.compiled import compiled
from segbench.errors import SegbenchError
from segbench.metrics.measure import Counts, ImageResult
from segbench.spec import ScoreInfo


@compiled
def _histogram(
    raw: NDArray[np.float32], group: NDArray[np.uint8], low: float, scale: float, bins: int
) -> NDArray[np.int64]:
    # Groups: 0 other, 1 cell, 2 void. The last column takes what is out of range or NaN.
    histogram = np.zeros((3, bins + 1), np.int64)
    for position in range(raw.size):
        place = (raw[position] - low) * scale + 0.5
        histogram[group[position], int(place) if 0.0 <= place < bins else bins] += 1
    return histogram


@dataclass(frozen=True)
class ThresholdBaseline:
    """Mean IU of the best global threshold of a single-channel image, chosen on the same pixels that it is scored on.

    Two classes, `cell_class` and the rest; every bin edge is tried with cells above it and with cells below it:

        threshold_mean_iu = max over thresholds and polarities of mean_c n_cc / (t_c + p_c - n_cc)

    the mean over the classes that are labelled or predicted. Since the threshold sees the labels it is scored on, this
    is an upper bound for thresholding. Void pixels do not count.

    Attributes:
        cell_class: the class that is cell.
        low: grey level of the first bin's centre.
        high: grey level of the last bin's centre.
        bins: one per grey level of bytes.
    """

    cell_class: int = 1
    low: float = 0.0
    high: float = 255.0
    bins: int = 256
    name: str = "threshold_baseline"
    version: str = "1"
    needs_prob: bool = False
    needs_raw: bool = True
    test_only: bool = False

    def infos(self) -> tuple[ScoreInfo, ...]:
        """Mean IU of the best threshold."""
        return (ScoreInfo("threshold_mean_iu", (0.0, 1.0), True, self.version),)

    def counts(self, image: ImageResult) -> Counts:
        """`histogram`: int64 (2, bins), pixels of the rest and of cell by grey level.

        Raises:
            SegbenchError: the raw image is missing, has several channels, or leaves the range from `low` to `high`.
        """
        raw = image.raw_CHW
        if raw is None or raw.shape[0] != 1:
            raise SegbenchError(
                "no raw image" if raw is None else f"a raw image of {raw.shape[0]} channels",
                "one channel",
                "leave threshold_baseline out of the metrics of this data set",
            )
        group = (image.label_HW == self.cell_class).astype(np.uint8)
        group[image.label_HW == image.ignore_index] = 2
        scale = (self.bins - 1) / (self.high - self.low)
        values = np.ascontiguousarray(raw[0], np.float32).reshape(-1)
        histogram = _histogram(values, group.reshape(-1), self.low, scale, self.bins)
        if histogram[:, self.bins].any():
            raise SegbenchError(
                f"a raw image from {values.min():g} to {values.max():g}",
                f"grey levels from {self.low:g} to {self.high:g}",
                "set low and high of threshold_baseline to the unit of the raw image",
            )
        return {"histogram": histogram[:2, : self.bins]}

    def scores(self, totals: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float64]]:
        """The best mean IU from histograms of shape (..., 2, bins)."""
        histogram = np.asarray(totals["histogram"], np.float64)
        total = histogram.sum(-1, keepdims=True)
        # Column k counts the pixels below bin k, for k = 0 (none) to bins (all).
        below = np.concatenate((np.zeros_like(total), histogram.cumsum(-1)), axis=-1)
        above = total - below
        candidates = []
        for cell, rest in ((above, below), (below, above)):
            with np.errstate(divide="ignore", invalid="ignore"):
                iu_cell = cell[..., 1, :] / (total[..., 1, :] + cell[..., 0, :])
                iu_rest = rest[..., 0, :] / (total[..., 0, :] + rest[..., 1, :])
                both = np.stack((iu_cell, iu_rest))
                finite = np.isfinite(both)
                candidates.append(np.where(finite, both, 0.0).sum(0) / finite.sum(0))
        return {"threshold_mean_iu": np.asarray(np.maximum(*candidates).max(-1), np.float64)}
