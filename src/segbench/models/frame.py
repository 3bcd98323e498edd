"""Stages of convolutions over an image in a wide frame of zeros, computed near the image alone.

Far from the image and from the map's border the maps are constant, and along the border they repeat: they are those
of a small map of zeros, stretched. With VGG16's 100 zeros a stage has half of its pixels there.

Shape letters: B batch, C channels, H and W a map, h and w the next one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

Convolutions = Callable[[Tensor], Tensor]


class Framed:
    """A map, and the rows and columns of it that the image has reached.

    Args:
        image_BCHW: H, W >= 1, float.
        frame: zeros on each side.
        stages: how many poolings will follow.

    Attributes:
        map_BCHW: of the whole, H + 2 frame a side at first.
    """

    def __init__(self, image_BCHW: Tensor, frame: int, stages: int) -> None:
        self.map_BCHW = pad(image_BCHW, [frame] * 4)
        # A side of the same remainders, so that the last windows of the poolings lie alike, and with a constant middle.
        alike, smallest = 2**stages, 8 * 2**stages
        height, width = (smallest + size % alike for size in self.map_BCHW.shape[-2:])
        self._blank_1CHW = image_BCHW.new_zeros(1, image_BCHW.shape[1], height, width)
        self._reached = [(frame, frame + size) for size in image_BCHW.shape[-2:]]

    def stage(self, convolutions: Convolutions, reach: int, pool: Callable[[Tensor], Tensor]) -> None:
        """Go on to the next map.

        Args:
            convolutions: from BCHW to the same sides, by zeros around the map.
            reach: pixels that they look to each side.
            pool: 2x2, of stride 2, sizes rounded up.
        """
        self._blank_1CHW = pool(convolutions(self._blank_1CHW))
        near, inner, reached = [], [], []
        for size, (first, last) in zip(self.map_BCHW.shape[-2:], self._reached, strict=True):
            first, last = max(0, first - reach) // 2, (min(size, last + reach) + 1) // 2
            begin, end = max(0, 2 * first - reach), min(size, 2 * last + reach)
            near.append(slice(begin, end))
            inner.append(slice(2 * first - begin, min(2 * last, size) - begin))
            reached.append((first, last))
        patch_BChw = pool(convolutions(self.map_BCHW[..., near[0], near[1]])[..., inner[0], inner[1]])
        sides = [(size + 1) // 2 for size in self.map_BCHW.shape[-2:]]
        order = torch.contiguous_format if patch_BChw.is_contiguous() else torch.channels_last
        self.map_BCHW = torch.empty(
            (*patch_BChw.shape[:2], *sides), dtype=patch_BChw.dtype, device=patch_BChw.device, memory_format=order
        )
        for height, theirs in _thirds(self._blank_1CHW.shape[-2], sides[0]):
            for width, alike in _thirds(self._blank_1CHW.shape[-1], sides[1]):
                self.map_BCHW[..., height, width] = self._blank_1CHW[..., theirs, alike]
        self.map_BCHW[..., slice(*reached[0]), slice(*reached[1])] = patch_BChw
        self._reached = reached


def _thirds(blank: int, size: int) -> tuple[tuple[slice, slice], ...]:
    """The begin, the middle and the end of a side, and what they are of a blank one's, whose middle is repeated."""
    middle = blank // 2
    end = size - (blank - middle - 1)
    return (
        (slice(middle), slice(middle)),
        (slice(middle, end), slice(middle, middle + 1)),
        (slice(end, size), slice(middle + 1, blank)),
    )
