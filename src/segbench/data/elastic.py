"""U-Net's random deformation as albumentations transforms, which compose with any other of that library."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.data.warp import Interpolation, rigid_matrix, sample, sampling_map
from segbench.errors import SegbenchError

# The library asks a server for a newer version at import.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations
from albumentations.core.type_definitions import Targets


class CoarseElastic(albumentations.DualTransform):
    """The paper's elastic deformation: displacements on a coarse grid, interpolated to every pixel.

    "We generate smooth deformations using random displacement vectors on a coarse 3 by 3 grid. The displacements are
    sampled from a Gaussian distribution with 10 pixels standard deviation. Per-pixel displacements are then computed
    using bicubic interpolation" (arXiv:1505.04597, section 3.1). The grid's corners lie on the image's corner pixels;
    outside, the image is mirrored about its border pixels.

    Images are sampled with `interpolation`. Masks follow their type: integers and bool are labels or ids, copied from
    the nearest pixel; floats are values (a weight map), interpolated linearly.

    Args:
        grid: nodes along a side, from 1 to one per pixel.
        sigma: standard deviation of a displacement along each axis, in pixels; 0 is the identity.
        interpolation: of images: `cubic` (the default, as linear sampling blurs the noise that the network sees in
            images that are not warped), `linear` or `nearest`.
        p: probability of applying it.

    Raises:
        SegbenchError: grid, sigma or interpolation are out of range; on a call, a grid larger than the image.
    """

    _targets = (Targets.IMAGE, Targets.MASK)

    def __init__(
        self, grid: int = 3, sigma: float = 10.0, interpolation: Interpolation = "cubic", p: float = 1.0
    ) -> None:
        super().__init__(p=p)
        self.grid = int(_in_range("grid", grid, 1, math.inf))
        self.sigma = _in_range("sigma", sigma, 0, math.inf)
        if interpolation not in ("nearest", "linear", "cubic"):
            raise SegbenchError(f"interpolation={interpolation}", "nearest, linear or cubic", "set it to cubic")
        # Not `interpolation`: in the library that is an OpenCV constant.
        self.image_interpolation: Interpolation = interpolation
        self._map = np.empty((2, 0, 0), np.float32)

    def matrix(self, height: int, width: int) -> NDArray[np.float64] | None:
        """The rigid part, freshly drawn; None if there is none."""
        return None

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """The sampling map for an image of this size, in a buffer reused by the next; called once for all targets."""
        height, width = params["shape"][:2]
        matrix = self.matrix(height, width)
        displacement = self.random_generator.normal(0.0, self.sigma, (2, self.grid, self.grid))
        if self._map.shape[1:] != (height, width):
            self._map = np.empty((2, height, width), np.float32)
        map_x, map_y = sampling_map(height, width, matrix, displacement, out=self._map)
        return {"map_x": map_x, "map_y": map_y}

    def apply(
        self, img: NDArray[Any], map_x: NDArray[np.float32], map_y: NDArray[np.float32], **params: Any
    ) -> NDArray[Any]:
        """An image through the map."""
        return sample(img, map_x, map_y, self.image_interpolation)

    def apply_to_mask(
        self, mask: NDArray[Any], map_x: NDArray[np.float32], map_y: NDArray[np.float32], **params: Any
    ) -> NDArray[Any]:
        """A mask through the map: labels nearest, values linear."""
        return sample(mask, map_x, map_y, "linear" if np.issubdtype(mask.dtype, np.floating) else "nearest")


class RigidElastic(CoarseElastic):
    """Rotation, zoom, shift and `CoarseElastic` in one, so that an image is interpolated once, not twice.

    Args:
        rotate: the angle is uniform in [-rotate, rotate] degrees about the image's centre; 180 is any angle.
        shift: uniform in [-shift, shift] pixels along each axis.
        scale: the zoom is log-uniform in [1 / (1 + scale), 1 + scale].
        grid: this and the following as in `CoarseElastic`.

    Raises:
        SegbenchError: as `CoarseElastic`, or rotate, shift or scale are negative.
    """

    def __init__(
        self,
        rotate: float = 180.0,
        shift: float = 0.0,
        scale: float = 0.0,
        grid: int = 3,
        sigma: float = 10.0,
        interpolation: Interpolation = "cubic",
        p: float = 1.0,
    ) -> None:
        super().__init__(grid=grid, sigma=sigma, interpolation=interpolation, p=p)
        self.rotate = _in_range("rotate", rotate, 0, 180)
        self.shift = _in_range("shift", shift, 0, math.inf)
        self.scale = _in_range("scale", scale, 0, math.inf)

    def matrix(self, height: int, width: int) -> NDArray[np.float64]:
        """Rotation, zoom and shift, freshly drawn."""
        angle, octave, x, y = self.random_generator.uniform(-1, 1, 4)
        zoom = (1 + self.scale) ** octave
        return rigid_matrix(height, width, angle * self.rotate, zoom, (x * self.shift, y * self.shift))


def _in_range(name: str, value: float, low: float, high: float) -> float:
    if not (low <= value <= high and math.isfinite(value)):
        expected = f"a number from {low} to {high}" if math.isfinite(high) else f"a finite number of at least {low}"
        raise SegbenchError(f"{name}={value} in an elastic transform", expected, f"change {name} under augment=")
    return float(value)
