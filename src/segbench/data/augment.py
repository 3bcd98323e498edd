"""Augmentation of a whole sample: all arrays move together, only images change values, and one seed decides it all."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.errors import SegbenchError

# The library asks a server for a newer version at import. Set here as well as in `elastic`, as configs name the
# library's own transforms. Importing it takes two seconds, so the first sample does it.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

Reweigh = Callable[[Mapping[str, NDArray[Any]], NDArray[np.int32] | None], NDArray[np.float32]]
"""Computes HW float32 pixel weights from the labels by head and the instances (or None) of a warped tile."""

Augmented = tuple[
    dict[str, NDArray[Any]], dict[str, NDArray[Any]], NDArray[np.int32] | None, NDArray[np.float32] | None
]
"""Images by modality, labels by head, instances, pixel weights."""


class Augmentation:
    """Applies albumentations transforms to the images, labels, instances and pixel weights of one sample.

    Geometric transforms move all of them by the same warp. Those of this package copy labels and ids from the nearest
    pixel and interpolate pixel weights linearly; the library's own treat them as a mask (nearest). Transforms of values
    (brightness, blur ...) change images only, and only the photometric ones.

    The result depends on the seed and the input alone, not on earlier calls or the process. All transforms draw from
    one stream: with the library's own `Compose.set_random_seed`, each restarts from the same number, and two flips of
    probability 1/2 always flip together.

    Args:
        transforms: albumentations transforms, in order; an empty list leaves samples unchanged.
        recompute_weight: compute the pixel weights from the warped labels instead of warping the given ones. A warped
            map keeps the gap's height while its width is stretched; a recomputed one is exact, at some milliseconds
            per tile.
        photometric: modalities whose values transforms may change; None: all of type uint8. (The library assumes a
            float image to be in [0, 1] and would clip depth in metres.)
    """

    def __init__(
        self,
        transforms: Sequence[Any] = (),
        recompute_weight: bool = False,
        photometric: Sequence[str] | None = None,
    ) -> None:
        self.transforms = list(transforms)
        self.recompute_weight = recompute_weight
        self.photometric = None if photometric is None else tuple(photometric)
        self._compose: Any = None

    def __call__(
        self,
        images: Mapping[str, NDArray[Any]],
        labels: Mapping[str, NDArray[Any]],
        instances: NDArray[np.int32] | None = None,
        weight: NDArray[np.float32] | None = None,
        rng_seed: int = 0,
        reweigh: Reweigh | None = None,
    ) -> Augmented:
        """The augmented sample. The input is not changed; arrays that no transform touched may share its memory.

        Args:
            images: HW or HWC by modality, raw values.
            labels: HW integers by head.
            instances: HW int32 ids, 0 = none.
            weight: HW float32 pixel weights.
            rng_seed: the only source of randomness, >= 0.
            reweigh: called with the warped labels and instances if `recompute_weight` is set.

        Raises:
            SegbenchError: arrays differ in size, or `recompute_weight` is set without `reweigh`.
        """
        # The values of `image:` arrays may change; `field:` arrays only move.
        keys = {
            name: f"{'image' if self._is_photometric(name, image) else 'field'}:{name}"
            for name, image in images.items()
        }
        targets: dict[str, NDArray[Any]] = {keys[name]: image for name, image in images.items()}
        targets |= {f"label:{name}": label for name, label in labels.items()}
        if instances is not None:
            targets["instances"] = instances
        if weight is not None and not self.recompute_weight:
            targets["weight"] = weight
        _check_sizes(targets)
        if self.transforms:
            targets = self._transform(targets, rng_seed)
        # Arrays from a cache are read-only, and torch warns about those.
        targets = {name: np.require(array, requirements=["C", "W"]) for name, array in targets.items()}
        moved_images = {name: targets[keys[name]] for name in images}
        moved_labels = {name: targets[f"label:{name}"] for name in labels}
        moved_instances = targets.get("instances")
        if not self.recompute_weight:
            return moved_images, moved_labels, moved_instances, targets.get("weight")
        if reweigh is None:
            raise SegbenchError(
                "augment.recompute_weight=true, and no function that computes pixel weights",
                "a loss with a weight map",
                "choose a loss with a weight map, or set augment.recompute_weight=false",
            )
        return moved_images, moved_labels, moved_instances, reweigh(moved_labels, moved_instances)

    def _transform(self, targets: dict[str, NDArray[Any]], rng_seed: int) -> dict[str, NDArray[Any]]:
        import albumentations

        if self._compose is None:
            self._compose = albumentations.Compose(self.transforms)
        images = [name for name in targets if name.startswith("image:")]
        fields = [name for name in targets if name.startswith("field:")]
        masks = [name for name in targets if name not in (*images, *fields)]
        any_by_value = False
        for leaf in _leaves(self.transforms):
            by_value = isinstance(leaf, albumentations.ImageOnlyTransform)
            any_by_value |= by_value
            leaf.add_targets(dict.fromkeys(images if by_value else images + fields, "image"))
            leaf.add_targets(dict.fromkeys(masks, "mask"))
        self._compose.set_random_state(np.random.default_rng(rng_seed), random.Random(rng_seed))
        # The library reads size and type from a target named `image`: a blank one if no real one may change.
        main = next(iter(images if any_by_value else images + fields), None)
        size = next(iter(targets.values())).shape[:2]
        image = np.zeros(size, np.uint8) if main is None else targets[main]
        moved = self._compose(image=image, **{name: array for name, array in targets.items() if name != main})
        image = moved.pop("image")
        return moved if main is None else {**moved, main: image}

    def _is_photometric(self, name: str, image: NDArray[Any]) -> bool:
        return image.dtype == np.uint8 if self.photometric is None else name in self.photometric


def _check_sizes(targets: Mapping[str, NDArray[Any]]) -> None:
    sizes = {name: array.shape[:2] for name, array in targets.items()}
    if len(set(sizes.values())) > 1:
        raise SegbenchError(
            "arrays of one sample differ in size: " + ", ".join(f"{name} {size}" for name, size in sizes.items()),
            "images, labels, instances and pixel weights of one height and width",
            "check the sample's files",
        )


def _leaves(transforms: Iterable[Any]) -> Iterable[Any]:
    import albumentations

    for transform in transforms:
        # ColorJitter has an attribute `transforms` too, of functions.
        nested = isinstance(transform, albumentations.BaseCompose)
        yield from _leaves(transform.transforms) if nested else [transform]
