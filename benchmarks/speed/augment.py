"""The paper's augmentation and weight map, each beside the usual way, on drawn data."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from segbench.data.cells import near_others
from segbench.data.warp import Interpolation
from segbench.data.weight_map import weight_map
from speed.timing import Benches, Row, best_of

_SIDE = 512


def _drawn_cells(side: int = _SIDE, across: int = 10, seed: int = 0) -> NDArray[np.int32]:
    """`across` squared cells that nearly fill the square: the Voronoi cells of a jittered grid, one pixel carved."""
    rng = np.random.default_rng(seed)
    pitch = side / across
    centres_2N = (np.mgrid[:across, :across].reshape(2, -1) + rng.uniform(0.2, 0.8, (2, across**2))) * pitch
    markers = np.full((side, side), 255, np.uint8)
    rows, columns = centres_2N.astype(int)
    markers[rows, columns] = 0
    _, nearest_HW = cv2.distanceTransformWithLabels(markers, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    return np.where(near_others(nearest_HW), 0, nearest_HW).astype(np.int32)


def elastic_warp() -> list[Row]:
    """Elastic warp of image, label and weight, against ElasticTransform on image and mask: at most 1/20 of its time."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    from segbench.data.elastic import CoarseElastic

    instances_HW = _drawn_cells()
    label_HW = (instances_HW > 0).astype(np.uint8)
    weight_HW = weight_map(instances_HW)
    noise = np.random.default_rng(0).normal(0, 20, label_HW.shape)
    image_HW = np.clip(60 + 120 * label_HW + noise, 0, 255).astype(np.uint8)

    theirs = albumentations.ElasticTransform(p=1.0)
    rows = []
    interpolations: tuple[Interpolation, ...] = ("linear", "cubic")
    for interpolation in interpolations:
        ours: Any = CoarseElastic(interpolation=interpolation)
        ours.add_targets({"weight": "mask"})
        seconds, reference = best_of(
            partial(ours, image=image_HW, mask=label_HW, weight=weight_HW),
            partial(theirs, image=image_HW, mask=label_HW),
            repeats=20,
        )
        rows.append(
            Row(
                name=f"elastic warp of image ({interpolation}), label and weight, 512x512",
                seconds=seconds,
                reference="albumentations.ElasticTransform on image (linear) and mask",
                reference_seconds=reference,
                target="at most 1/20 of its time",
                met=20 * seconds <= reference,
                note=f"{cv2.getNumThreads()} OpenCV threads" + ("; our default" if interpolation == "cubic" else ""),
            )
        )
    return rows


def weight_map_of_100_cells() -> list[Row]:
    """The weight map of 100 cells, against one distance transform per cell over the whole image: at most 1/50."""
    instances_HW = _drawn_cells()

    def one_transform_a_cell() -> NDArray[np.float64]:
        distances = np.stack(
            [distance_transform_edt(instances_HW != cell) for cell in range(1, instances_HW.max() + 1)]
        )
        d1_HW, d2_HW = np.partition(distances, 1, axis=0)[:2]
        border: NDArray[np.float64] = 10 * np.exp(-((d1_HW + d2_HW) ** 2) / 50)
        return border

    seconds, reference = best_of(lambda: weight_map(instances_HW), one_transform_a_cell, repeats=3)
    transforms = best_of(
        lambda: [distance_transform_edt(instances_HW != cell) for cell in range(1, instances_HW.max() + 1)], repeats=3
    )[0]
    return [
        Row(
            name="weight map, 100 cells, 512x512",
            seconds=seconds,
            reference="scipy's distance transform of the whole image, one per cell (only the transforms)",
            reference_seconds=transforms,
            target="at most 1/50 of its time",
            met=50 * seconds <= transforms,
            note=f"with the two smallest taken and the exponential: {reference:.2f} s",
        )
    ]


BENCHES: Benches = {
    "elastic_warp": elastic_warp,
    "weight_map": weight_map_of_100_cells,
}
