"""Torch data sets over a split: random tiles for training, whole images for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
"""Types that OpenCV subtracts from directly; other integers and float64 are converted plane by plane."""


def normalise(image: NDArray[np.generic], spec: ModalitySpec) -> torch.Tensor:
    """HW or HWC raw values to a CHW float32 tensor, `(raw - mean) / std`.

    Colours with std 1 keep their HWC layout in memory: one pass takes half the time of three planes, and a network in
    channels_last uses them as they are.
    """
    if image.ndim == 3 and 2 <= image.shape[2] <= 4 and image.dtype in _ONE_PASS and set(spec.std) == {1.0}:
        centred_HWC: NDArray[np.float32] = cv2.subtract(image, (*spec.mean, 0.0, 0.0)[:4], dtype=cv2.CV_32F)
        return torch.from_numpy(centred_HWC).permute(2, 0, 1)
    # Plane by plane, cast and then shifted in place: a broadcast along the last axis takes over ten times as long.
    planes = [image] if image.ndim == 2 else cv2.split(image)
    scaled_CHW = np.empty((len(planes), *image.shape[:2]), np.float32)
    for plane_HW, scaled_HW, mean, std in zip(planes, scaled_CHW, spec.mean, spec.std, strict=True):
        np.copyto(scaled_HW, plane_HW)
        scaled_HW -= np.float32(mean)
        if std != 1:
            scaled_HW /= np.float32(std)
    return torch.from_numpy(scaled_CHW)


def to_sample(raw: RawImage, spec: DatasetSpec, index: int, weight_HW: NDArray[np.float32] | None = None) -> Sample:
    """A raw image as a loader gives it; `Batch.normalised` makes a network's input of it."""
    return Sample(
        images={
            name: _as_stored(image) if image.dtype == np.uint8 else normalise(image, spec.modalities[name])
            for name, image in raw.images.items()
        },
        targets={head: torch.from_numpy(np.ascontiguousarray(label)) for head, label in raw.labels.items()},
        id=raw.id,
        index=index,
        instances=None if raw.instances is None else torch.from_numpy(np.ascontiguousarray(raw.instances)),
        weight=None if weight_HW is None else torch.from_numpy(np.ascontiguousarray(weight_HW)),
        references={name: torch.from_numpy(np.ascontiguousarray(ids)) for name, ids in raw.references.items()},
    )


def _as_stored(image: NDArray[Any]) -> torch.Tensor:
    """HW or HWC as CHW; colours keep their memory order."""
    tensor = torch.from_numpy(np.ascontiguousarray(image))
    return tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)


class TrainTiles(Dataset[Sample]):
    """Augmented tiles, each a function of (seed, epoch, draw) alone: workers and resumes do not change it.

    The tile's output window (what an unpadded network predicts) is placed at random inside the image; the context
    around it comes from the mirrored image. Where the draw names a class, the window contains a pixel of it, any of the
    image's, at any place in the window; where it names a pixel, that is the window's centre.

    Args:
        source: the training split.
        spec: of the data set.
        augmentation: applied to the tile.
        seed: of the run.
        tile: input side in pixels, or None for whole images.
        margin: pixels that the network loses on each side.
        surround: pixels cut around the tile for the augmentation only and cropped after it: a rotation or deformation
            then moves real image into the tile's corners, not a mirrored one.
        pixel_weights: computes the pixel weights of an image, or None.
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
        pixel_weights: LossWeights | None = None,
    ) -> None:
        self._source, self._spec, self._augmentation, self._seed = source, spec, augmentation, seed
        self._tile, self._margin, self._surround, self._pixel_weights = tile, margin, surround, pixel_weights

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, draw: Draw) -> Sample:
        raw = self._source.read(draw.index)
        weights, recompute = self._pixel_weights, self._augmentation.recompute_weight
        weight = None if weights is None or recompute else weights(raw)
        rng = np.random.default_rng((self._seed, draw.epoch, draw.draw))
        if self._tile is not None:
            raw, weight = self._cut(raw, weight, rng, draw)
        reweigh = None if weights is None else weights.of_warped
        images, labels, instances, weight = self._augmentation(
            raw.images, raw.labels, raw.instances, weight, int(rng.integers(2**31)), reweigh
        )
        augmented = RawImage(images, labels, raw.id, instances)
        if self._tile is not None and self._surround:
            inside = (slice(self._surround, -self._surround),) * 2
            augmented, weight = _part(augmented, weight, lambda array: array[inside])
        return to_sample(augmented, self._spec, draw.index, weight)

    def _cut(
        self,
        raw: RawImage,
        weight: NDArray[np.float32] | None,
        rng: np.random.Generator,
        draw: Draw,
    ) -> tuple[RawImage, NDArray[np.float32] | None]:
        assert self._tile is not None
        output = self._tile - 2 * self._margin
        edge, side = self._margin + self._surround, self._tile + 2 * self._surround
        if draw.pixel is not None:
            starts = [place - output // 2 - edge for place in draw.pixel]
            return _part(raw, weight, lambda array: window(array, starts, side))
        within: tuple[int | None, ...] = (None, None)
        if draw.label is not None:
            label_HW = next(iter(raw.labels.values()))
            pixels = np.flatnonzero(label_HW == draw.label)
            within = tuple(map(int, divmod(int(pixels[rng.integers(len(pixels))]), label_HW.shape[1])))
        starts = []
        for size, place in zip(next(iter(raw.images.values())).shape[:2], within, strict=True):
            first, last = min(0, size - output), max(0, size - output)
            if place is not None:
                first, last = max(first, place - output + 1), min(last, place)
            starts.append(int(rng.integers(first, last + 1)) - edge)
        return _part(raw, weight, lambda array: window(array, starts, side))


def _part(
    raw: RawImage, weight: NDArray[np.float32] | None, cut: Callable[[NDArray[Any]], NDArray[Any]]
) -> tuple[RawImage, NDArray[np.float32] | None]:
    images, labels = ({name: cut(array) for name, array in arrays.items()} for arrays in (raw.images, raw.labels))
    instances = None if raw.instances is None else cut(raw.instances)
    return RawImage(images, labels, raw.id, instances), None if weight is None else cut(weight)


_MOST_CHANNELS = 512
"""Of an OpenCV matrix."""


def window(array: NDArray[Any], starts: Sequence[int], side: int) -> NDArray[Any]:
    """A square window of an array that is mirrored beyond its ends: a copy of `array[np.ix_(ys, xs)]`.

    ys and xs are those of `segbench.inference.tiling.mirrored`, from each start. OpenCV copies rows, where an index
    array looks up every pixel: 0.05 ms instead of 0.7 for 572 pixels of uint8.

    Args:
        array: HW or HWC of any type.
        starts: of its rows and columns in pixels; negative ones and those past the end are mirrored.
        side: in pixels.
    """
    # Any type of these sizes may be copied as another one.
    word = {1: np.uint8, 2: np.uint16, 4: np.int32, 8: np.float64}.get(array.dtype.itemsize)
    if word is None or array.shape[2:] > (_MOST_CHANNELS,) or 0 in array.shape:
        ys, xs = (mirrored(start, start + side, size) for start, size in zip(starts, array.shape[:2], strict=True))
        return array[np.ix_(ys, xs)]
    kept: list[slice] = []
    borders: list[tuple[int, int]] = []
    insides: list[slice] = []
    for start, size in zip(starts, array.shape[:2], strict=True):
        before, after = max(0, -start), max(0, start + side - size)
        # Beside the window, what its mirrored part reaches into.
        first = max(0, min(start, size - 1 - after if after else start, size - 1))
        last = min(size, max(start + side, before + 1 if before else 0, 1))
        kept.append(slice(first, last))
        borders.append((before, after))
        begin = 0 if before else start - first
        insides.append(slice(begin, begin + side))
    part, ((top, bottom), (left, right)) = array[tuple(kept)].view(word), borders
    padded: NDArray[Any] = cv2.copyMakeBorder(part, top, bottom, left, right, cv2.BORDER_REFLECT_101)
    # OpenCV drops a channel axis of length 1.
    return padded.view(array.dtype).reshape(padded.shape[:2] + array.shape[2:])[tuple(insides)]


class WholeImages(Dataset[Sample]):
    """The images of a split as they are, for evaluation; `spec` is the data set's."""

    def __init__(self, source: Source, spec: DatasetSpec) -> None:
        self._source, self._spec = source, spec

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, draw: Draw) -> Sample:
        return to_sample(self._source.read(draw.index), self._spec, -1 if draw.padding else draw.index)
