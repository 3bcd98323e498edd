"""Object by object: the Cell Tracking Challenge's SEG, and average precision and F1 over IoU thresholds.

Objects and segments are matched within one image; an image of a sequence is a slice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segbench.errors import SegbenchError
from segbench.metrics.decoding import Decoding, decode_instances
from segbench.metrics.measure import Counts, ImageResult
from segbench.metrics.region_overlap import contingency
from segbench.metrics.region_runs import regions
from segbench.spec import ScoreInfo

IOU_PERCENT = np.arange(50, 100, 5)
"""The IoU thresholds 0.50, 0.55 ... 0.95 in per cent, so that an IoU is compared to them in integers."""


@dataclass(frozen=True, eq=False)
class Matches:
    """How the segments of one image overlap its reference objects.

    Attributes:
        jaccard: per reference object, the Jaccard index with the segment that covers more than half of it, or 0.
        hits: reference objects whose IoU with a segment exceeds each of `IOU_PERCENT`, int64 (10,).
        objects: reference objects.
        segments: predicted segments.
    """

    jaccard: NDArray[np.float64]
    hits: NDArray[np.int64]
    objects: int
    segments: int


def match(instances_HW: NDArray[np.integer], segments_HW: NDArray[np.integer]) -> Matches:
    """Match the objects and segments of one image.

    Above an IoU of one half a match is unique on both sides, so there is no assignment to solve.

    Args:
        instances_HW: reference object ids, 0 = none.
        segments_HW: predicted segment ids, 0 = none.

    Raises:
        SegbenchError: the shapes differ, or an id is negative.

    Example:
        >>> match(np.array([[1, 1, 1, 2]]), np.array([[7, 7, 0, 0]])).jaccard.round(3).tolist()
        [0.667, 0.0]
    """
    for name, ids in (("reference", instances_HW), ("predicted", segments_HW)):
        if not np.issubdtype(ids.dtype, np.integer) or ids.min(initial=0) < 0:
            raise SegbenchError(
                f"{name} ids of type {ids.dtype}, from {ids.min(initial=0)}",
                "integers, 0 = none",
                "label the objects of each image from 1",
            )
    if instances_HW.shape != segments_HW.shape:
        raise SegbenchError(
            f"reference objects of shape {instances_HW.shape} and segments of shape {segments_HW.shape}",
            "one id per pixel in both",
            "crop or resize the prediction to the reference",
        )
    table = contingency(instances_HW, segments_HW)
    rows, columns = np.unique(table.rows, return_inverse=True)[1], np.unique(table.columns, return_inverse=True)[1]
    object_pixels = np.bincount(rows, table.pixels).astype(np.int64)
    segment_pixels = np.bincount(columns, table.pixels).astype(np.int64)
    union = object_pixels[rows] + segment_pixels[columns] - table.pixels
    real = (table.rows > 0) & (table.columns > 0)
    hits = (100 * table.pixels[real, None] > IOU_PERCENT * union[real, None]).sum(0)
    covers = real & (2 * table.pixels > object_pixels[rows])
    jaccard = np.zeros(object_pixels.size)
    jaccard[rows[covers]] = table.pixels[covers] / union[covers]
    # Ids are renumbered in ascending order, so any background comes first.
    jaccard = jaccard[int((table.rows == 0).any()) :]
    segments = segment_pixels.size - int((table.columns == 0).any())
    return Matches(jaccard, hits, jaccard.size, segments)


def seg(instances_NHW: NDArray[np.integer], segments_NHW: NDArray[np.integer]) -> float:
    """The SEG measure of the Cell Tracking Challenge: mean Jaccard index over all reference objects.

    A segment matches a reference object if it covers more than half of it; one segment may match several objects, and
    an object without a match counts as 0. Unmatched segments cost nothing, since the reference may be partial.

    Args:
        instances_NHW: reference object ids, 0 = none; matched slice by slice.
        segments_NHW: predicted segment ids, 0 = none.

    Returns:
        0 to 1, 1 is best; NaN without a reference object.
    """
    jaccard = np.concatenate([match(*pair).jaccard for pair in zip(instances_NHW, segments_NHW, strict=True)])
    return float(jaccard.mean()) if jaccard.size else float("nan")


def reference_of(image: ImageResult, name: str | None) -> NDArray[np.int32]:
    """The reference ids of that name; None: those that the image is labelled from.

    Raises:
        SegbenchError: the image has none.
    """
    ids_HW = image.instances_HW if name is None else image.references.get(name)
    if ids_HW is None:
        raise SegbenchError(
            "an image without reference objects" if name is None else f"an image without {name} reference objects",
            "ImageResult.instances_HW, int32" if name is None else f"ImageResult.references[{name!r}], int32",
            "leave the instance metrics out for data that has none",
        )
    return ids_HW


def segments_of(image: ImageResult, cell_class: int, decoding: Decoding | None) -> NDArray[np.int32]:
    """The predicted objects: decoded from the probabilities, or the predicted class's 4-connected components.

    Raises:
        SegbenchError: there is a decoding, and no probabilities.
    """
    if decoding is None:
        return regions(np.ascontiguousarray(image.pred_HW == cell_class))
    return decode_instances(image.probabilities("decoding"), decoding)


def without_void(ids_HW: NDArray[np.int32], image: ImageResult) -> NDArray[np.int32]:
    """The ids, 0 where the label is void."""
    return np.where(image.label_HW == image.ignore_index, 0, ids_HW).astype(np.int32, copy=False)


@dataclass(frozen=True)
class Seg:
    """`seg` of a split.

    Attributes:
        cell_class: the class of the objects, if there is no decoding.
        decoding: how to derive segments from probabilities; None: the predicted class's 4-connected components.
        reference: the name of the reference objects (`gold`); None: those that the image was labelled from.
        crop_void: void pixels belong to no object or segment. The challenge has no void: a segment that reaches into
            an area without annotation loses score.
        name: of the score.
    """

    cell_class: int = 1
    decoding: Decoding | None = None
    reference: str | None = None
    crop_void: bool = True
    name: str = "seg"
    needs_raw: bool = False
    test_only: bool = False

    @property
    def version(self) -> str:
        """Of the definition."""
        return "ctc-1" if self.crop_void else "ctc-1-uncropped"

    @property
    def needs_prob(self) -> bool:
        """Whether there is a decoding."""
        return self.decoding is not None

    def infos(self) -> tuple[ScoreInfo, ...]:
        """SEG."""
        return (ScoreInfo(self.name, (0.0, 1.0), True, self.version),)

    def counts(self, image: ImageResult) -> Counts:
        """`jaccard`: float64, summed over the image's objects; `objects`: int64."""
        reference_HW = reference_of(image, self.reference)
        if not reference_HW.any():
            # A frame without annotation: its segments do not count.
            return {"jaccard": np.zeros(()), "objects": np.zeros((), np.int64)}
        segments_HW = segments_of(image, self.cell_class, self.decoding)
        if self.crop_void:
            reference_HW, segments_HW = without_void(reference_HW, image), without_void(segments_HW, image)
        found = match(reference_HW, segments_HW)
        return {"jaccard": np.asarray(found.jaccard.sum()), "objects": np.array(found.objects, np.int64)}

    def scores(self, totals: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float64]]:
        """The mean over objects; NaN without one."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return {self.name: np.asarray(totals["jaccard"], np.float64) / np.asarray(totals["objects"])}


@dataclass(frozen=True)
class InstanceOverlap:
    """Average precision and F1 of objects; void pixels belong to no object or segment.

    At each IoU threshold a hit is an object and a segment with a larger IoU; hits, objects and segments are summed over
    the split: AP = hits / (objects + segments - hits), F1 = 2 hits / (objects + segments). `instance_ap` and
    `instance_f1` are means over 0.50, 0.55 ... 0.95. There is no confidence here, so AP is not an area under a curve.

    Attributes:
        cell_class: the class of the objects, if there is no decoding.
        decoding: how to derive segments from probabilities; None: the predicted class's 4-connected components.
    """

    cell_class: int = 1
    decoding: Decoding | None = None
    name: str = "instances"
    version: str = "1"
    needs_raw: bool = False
    test_only: bool = False

    @property
    def needs_prob(self) -> bool:
        """Whether there is a decoding."""
        return self.decoding is not None

    def infos(self) -> tuple[ScoreInfo, ...]:
        """AP and F1, as means over the thresholds and at 0.5 and 0.75."""
        names = (f"instance_{kind}{at}" for kind in ("ap", "f1") for at in ("", "_50", "_75"))
        return tuple(ScoreInfo(name, (0.0, 1.0), True, self.version) for name in names)

    def counts(self, image: ImageResult) -> Counts:
        """`hits`: int64 (10,); `objects`, `segments`: int64."""
        reference_HW = without_void(reference_of(image, None), image)
        found = match(reference_HW, without_void(segments_of(image, self.cell_class, self.decoding), image))
        return {
            "hits": found.hits.astype(np.int64),
            "objects": np.array(found.objects, np.int64),
            "segments": np.array(found.segments, np.int64),
        }

    def scores(self, totals: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float64]]:
        """AP and F1 from hits of shape (..., 10); NaN where there is neither object nor segment."""
        hits = np.asarray(totals["hits"], np.float64)
        both = (np.asarray(totals["objects"], np.float64) + np.asarray(totals["segments"]))[..., None]
        with np.errstate(divide="ignore", invalid="ignore"):
            kinds = {"ap": hits / (both - hits), "f1": 2 * hits / both}
        return {
            f"instance_{kind}{at}": np.asarray(score)
            for kind, values in kinds.items()
            for at, score in (("", values.mean(-1)), ("_50", values[..., 0]), ("_75", values[..., 5]))
        }
