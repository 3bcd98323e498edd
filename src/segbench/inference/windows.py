"""Images that are read part by part, and the windows in which their probabilities come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segbench.inference.tiling import Span, mirrored

Read = Callable[[int, int, int, int], Mapping[str, Tensor | NDArray[Any]]]
"""`read(y0, y1, x0, x1)`: rows y0 to y1 and columns x0 to x1 (exclusive) of each modality, CHW, normalised."""


@dataclass(frozen=True)
class ReadableImage:
    """An image that is read part by part.

    Attributes:
        key: identifies it in its windows.
        size: H and W.
        read: reads a part; never more than a tile with its context.
    """

    key: Any
    size: tuple[int, int]
    read: Read


@dataclass(frozen=True)
class Window:
    """Class probabilities of a part of an image.

    Attributes:
        key: of the image.
        y: its first row.
        x: its first column.
        probabilities: Khw float32 by head.
    """

    key: Any
    y: int
    x: int
    probabilities: dict[str, Tensor]


def read_mirrored(read: Read, row: Span, column: Span, size: tuple[int, int]) -> dict[str, Tensor]:
    """A tile of an image of H and W `size`, CHW by modality; mirrored beyond the border."""
    ys = mirrored(row.read_from, row.read_from + row.read_size, size[0])
    xs = mirrored(column.read_from, column.read_from + column.read_size, size[1])
    y0, x0 = int(ys.min()), int(xs.min())
    part = read(y0, int(ys.max()) + 1, x0, int(xs.max()) + 1)

    def continued(part_CHW: Tensor | NDArray[Any]) -> Tensor:
        image_CHW = torch.as_tensor(part_CHW)
        for dim, indices in ((-2, ys - y0), (-1, xs - x0)):
            if not np.array_equal(indices, np.arange(image_CHW.shape[dim])):
                image_CHW = image_CHW.index_select(dim, torch.from_numpy(indices).to(image_CHW.device))
        return image_CHW

    return {name: continued(part_CHW) for name, part_CHW in part.items()}
