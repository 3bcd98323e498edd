"""Torch data sets over a split: random tiles for training, whole images for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from segbench.data.augment import Augmentation
from segbench.data.raw import RawImage, Source
from segbench.data.sampler import Draw
from segbench.data.weights import LossWeights
from segbench.inference.tiling import mirrored
from segbench.spec import DatasetSpec, ModalitySpec, Sample

_ONE_PASS = (np.uint8, np.uint16, np.float32)
"""What OpenCV subtracts from without a detour; 32-bit and 64-bit numbers go by plane."""


def normalise(image: NDArray[np.generic], spec: ModalitySpec) -> torch.Tensor:
    """HW or HWC raw values to a CHW float32 tensor, `(raw - mean) / std`.

    Colours that only lose their mean keep the order of their pixels in memory, HWC: one pass over them, in half the
    time of three planes, and a network in channels_last takes them as they are.
    """
    if image.ndim == 3 and 2 <= image.shape[2] <= 4 and image.dtype in _ONE_PASS and set(spec.std) == {1.0}:
        centred_HWC: NDArray[np.float32] = cv2.subtract(image, (*spec.mean, 0.0, 0.0)[:4], dtype=cv2.CV_32F)
        return torch.from_numpy(centred_HWC).permute(2, 0, 1)
    # Plane by plane, cast and then shifted in place: a broadcast over the last axis takes over ten times as long.
    planes = [image] if image.ndim == 2 else cv2.split(image)
    scaled_CHW = np.empty((len(planes), *image.shape[:2]), np.float32)
    for plane_HW, scaled_HW, mean, std in zip(planes, scaled_CHW, spec.mean, spec.std, strict=True):
        np.copyto(scaled_HW, plane_HW)
        scaled_HW -= np.float32(mean)
        if std != 1:
            scaled_HW /= np.float32(std)
    return torch.from_numpy(scaled_CHW)


def to_sample(raw: RawImage, spec: DatasetSpec, index: int, weight_HW: NDArray[np.float32] | None = None) -> Sample:
    """A raw image as the network takes it."""
    return Sample(
        images={name: normalise(image, spec.modalities[name]) for name, image in raw.images.items()},
        targets={head: torch.from_numpy(label.astype(np.int64)) for head, label in raw.labels.items()},
        id=raw.id,
        index=index,
        instances=None if raw.instances is None else torch.from_numpy(np.ascontiguousarray(raw.instances)),
        weight=None if weight_HW is None else torch.from_numpy(np.ascontiguousarray(weight_HW)),
        references={name: torch.from_numpy(np.ascontiguousarray(ids)) for name, ids in raw.references.items()},
    )


class TrainTiles(Dataset[Sample]):
    """Augmented tiles, each a function of (seed, epoch, draw) alone: workers and resumes do not change it.

    The tile's output window (what an unpadded network predicts) is placed at random inside the image; the context
    around it comes from the mirrored image.

    Args:
        source: the training split.
        spec: of the data set.
        augmentation: applied to the tile.
        seed: of the run.
        tile: input side in pixels, or None for whole images.
        margin: pixels that the network loses on each side.
        surround: pixels cut around the tile for the augmentation alone and cropped after it: a rotation or a
            deformation then brings real image into the tile's corners in place of a mirrored one.
        weights: makes the loss weight of an image, or None.
    """

    def __init__(
        self,
        source: Source,
        spec: DatasetSpec,
        augmentation: Augmentation,
        seed: int,
        tile: int | None = None,
        margin: int = 0,
        surround: int = 0,
        weights: LossWeights | None = None,
    ) -> None:
        self._source, self._spec, self._augmentation, self._seed = source, spec, augmentation, seed
        self._tile, self._margin, self._surround, self._weights = tile, margin, surround, weights

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, draw: Draw) -> Sample:
        raw = self._source.read(draw.index)
        weight = None if self._weights is None else self._weights(raw)
        rng = np.random.default_rng((self._seed, draw.epoch, draw.draw))
        if self._tile is not None:
            raw, weight = self._cut(raw, weight, rng)
        reweigh = None if self._weights is None else self._weights.of_warped
        images, labels, instances, weight = self._augmentation(
            raw.images, raw.labels, raw.instances, weight, int(rng.integers(2**31)), reweigh
        )
        augmented = RawImage(images, labels, raw.id, instances)
        if self._tile is not None and self._surround:
            inside = (slice(self._surround, -self._surround),) * 2
            augmented, weight = _part(augmented, weight, inside)
        return to_sample(augmented, self._spec, draw.index, weight)

    def _cut(
        self, raw: RawImage, weight: NDArray[np.float32] | None, rng: np.random.Generator
    ) -> tuple[RawImage, NDArray[np.float32] | None]:
        assert self._tile is not None
        output = self._tile - 2 * self._margin
        height, width = next(iter(raw.images.values())).shape[:2]
        edge, side = self._margin + self._surround, self._tile + 2 * self._surround
        starts = [_place(size, output, rng) - edge for size in (height, width)]
        sizes = (height, width)
        grid = np.ix_(*(mirrored(start, start + side, size) for start, size in zip(starts, sizes, strict=True)))
        return _part(raw, weight, grid)


def _part(
    raw: RawImage, weight: NDArray[np.float32] | None, where: tuple[Any, ...]
) -> tuple[RawImage, NDArray[np.float32] | None]:
    def cut(array: NDArray[Any] | None) -> Any:
        return None if array is None else array[where]

    return RawImage(_each(raw.images, cut), _each(raw.labels, cut), raw.id, cut(raw.instances)), cut(weight)


def _place(size: int, output: int, rng: np.random.Generator) -> int:
    low, high = min(0, size - output), max(0, size - output)
    return int(rng.integers(low, high + 1))


def _each(arrays: Mapping[str, NDArray[Any]], change: Callable[[NDArray[Any]], Any]) -> dict[str, Any]:
    return {name: change(array) for name, array in arrays.items()}


class WholeImages(Dataset[Sample]):
    """The images of a split as they are, for evaluation.

    Args:
        source: the split.
        spec: of the data set.
    """

    def __init__(self, source: Source, spec: DatasetSpec) -> None:
        self._source, self._spec = source, spec

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, draw: Draw) -> Sample:
        return to_sample(self._source.read(draw.index), self._spec, -1 if draw.padding else draw.index)
