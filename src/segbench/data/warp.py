"""The geometry of augmentation as plain functions: where each output pixel is sampled, and the sampling itself.

One map combines the rigid part (rotation, zoom, shift) and the elastic part, so an image is interpolated once, and all
arrays of a sample are sampled through the same map.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from segbench.errors import SegbenchError

Interpolation = Literal["nearest", "linear", "cubic"]
_FLAGS = {"nearest": cv2.INTER_NEAREST, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}

_CUBIC = -0.75
"""The free parameter of the bicubic kernel (Keys 1981), as in OpenCV and in PyTorch."""


@lru_cache(maxsize=32)
def bicubic_basis(size: int, grid: int) -> NDArray[np.float32]:
    """The share of each of `grid` nodes in each of `size` pixels: `field = basis @ nodes`, bicubic along one axis.

    Corners are aligned: the first and last nodes lie on the centres of the first and last pixels, so nothing is
    extrapolated. The kernel and the repeated border node are those of PyTorch's `interpolate(mode="bicubic",
    align_corners=True)`.

    Returns:
        (size, grid) float32, rows sum to 1; read-only.

    Raises:
        SegbenchError: the grid has no node, or more nodes than pixels.
    """
    if not 1 <= grid <= size:
        raise SegbenchError(
            f"an elastic grid of {grid} nodes on an image side of {size} pixels",
            "at least 1 node and at most one per pixel",
            "set the transform's grid=3 (the paper's), or use larger tiles",
        )
    basis = np.zeros((size, grid))
    position = np.arange(size) * ((grid - 1) / max(size - 1, 1))
    first = np.floor(position).astype(int)
    for offset in (-1, 0, 1, 2):
        distance = np.abs(position - (first + offset))
        inner = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance**2 + 1
        outer = _CUBIC * (((distance - 5) * distance + 8) * distance - 4)
        weight = np.where(distance <= 1, inner, np.where(distance < 2, outer, 0))
        np.add.at(basis, (np.arange(size), np.clip(first + offset, 0, grid - 1)), weight)
    result = basis.astype(np.float32)
    result.flags.writeable = False
    return result


@lru_cache(maxsize=32)
def _basis(size: int, grid: int) -> NDArray[np.float32]:
    """`bicubic_basis`, a column of ones, and one of pixel coordinates: all parts of a sampling map along one axis."""
    return np.column_stack([bicubic_basis(size, grid), np.ones(size), np.arange(size)]).astype(np.float32)


def rigid_matrix(
    height: int, width: int, angle: float = 0.0, zoom: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)
) -> NDArray[np.float64]:
    """The map from output to input pixels of an image rotated and zoomed about its centre, then shifted.

    Args:
        height: H in pixels.
        width: W in pixels.
        angle: degrees; positive rotates the image counter-clockwise as seen (y points down).
        zoom: above 1 enlarges.
        shift: (x, y) in pixels, by which the image moves.

    Returns:
        2x3 float64 M with input = M (x, y, 1) for the output pixel (x, y).
    """
    turn = np.deg2rad(angle)
    inverse = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) / zoom
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    return np.column_stack([inverse, centre - inverse @ (centre + np.asarray(shift, np.float64))])


def sampling_map(
    height: int,
    width: int,
    matrix: NDArray[np.floating] | None,
    displacement: NDArray[np.floating] | None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Where each output pixel (x, y) is sampled in the input: M (x, y, 1) + u(x, y).

    u is the bicubic interpolation of a coarse grid of displacement vectors (U-Net, arXiv:1505.04597, section 3.1).
    Each coordinate is a matrix of low rank, one for the rigid part and one for the elastic part together: one product.

    Args:
        height: H of the output.
        width: W of the output.
        matrix: 2x3, or None for the identity.
        displacement: (2, G, G) pixels at the grid's nodes, x then y, rows top to bottom, or None.
        out: (2, H, W) float32 to write to. Allocating that much memory, page by page, takes longer than the
            arithmetic.

    Returns:
        map_x and map_y, (2, H, W) float32.

    Raises:
        SegbenchError: the grid is larger than the output.
    """
    matrix = np.eye(2, 3) if matrix is None else matrix
    nodes = np.zeros((2, 1, 1)) if displacement is None else displacement
    G = nodes.shape[-1]
    rows, columns = _basis(height, G), np.ascontiguousarray(_basis(width, G).T)
    maps = np.empty((2, height, width), np.float32) if out is None else out
    for (along_x, along_y, constant), node, coordinate_HW in zip(matrix, nodes, maps, strict=True):
        core = np.zeros((G + 2, G + 2), np.float32)
        core[:G, :G] = node
        core[G, G], core[G, G + 1], core[G + 1, G] = constant, along_x, along_y
        # Not numpy's product: on shared cores its BLAS threads wait for each other, 15 ms instead of 0.1.
        half = cv2.gemm(rows, core, 1, None, 0)
        cv2.gemm(half, columns, 1, None, 0, coordinate_HW)
    return maps


def sample(
    array: NDArray[Any], map_x: NDArray[np.float32], map_y: NDArray[np.float32], interpolation: Interpolation
) -> NDArray[Any]:
    """`array` at the mapped positions; outside, it is mirrored about the border pixels (reflect-101).

    Args:
        array: HW or HWC. `nearest` accepts any type and copies values exactly; `linear` and `cubic` accept uint8,
            int16, uint16, float32 and float64.
        map_x: HW float32, the column sampled.
        map_y: HW float32, the row sampled.
        interpolation: `nearest`, `linear` or `cubic`. Only `cubic` can leave the array's range (integers saturate).

    Returns:
        HW or HWC of the map's size and the array's type.
    """
    if array.ndim == 3 and array.shape[2] > 4:
        # OpenCV interpolates at most four channels at once.
        groups = [sample(array[..., c : c + 4], map_x, map_y, interpolation) for c in range(0, array.shape[2], 4)]
        return np.concatenate(groups, axis=2)
    source, dtype = np.ascontiguousarray(array), array.dtype
    if interpolation == "nearest":
        # OpenCV supports no 64-bit integers and no bool, but nearest copies bytes whatever they mean.
        word = {1: np.uint8, 2: np.uint16, 4: np.int32, 8: np.float64}[dtype.itemsize]
        source = source.view(word)
    warped = cv2.remap(source, map_x, map_y, _FLAGS[interpolation], borderMode=cv2.BORDER_REFLECT_101)
    # OpenCV drops a channel axis of length 1.
    return np.asarray(warped).view(dtype).reshape(map_x.shape + array.shape[2:])
