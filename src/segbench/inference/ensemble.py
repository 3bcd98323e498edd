"""Several networks as one: the mean of their class probabilities.

What goes through one network goes through this: tiles, strips of rows, symmetries, scores, export.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from segbench.errors import SegbenchError
from segbench.inference.outputs import as_heads
from segbench.spec import ModalitySpec, TileGeometry

Scales = Mapping[str, tuple[Tensor, Tensor]]
"""By modality what turns an input of the ensemble into one of a network, factor and offset, C11 each."""


class Ensemble(nn.Module):
    """The mean of the probabilities of networks with the same modalities, heads and classes.

    Its output are the logarithms of the means, B K h w float32 by head, whose softmax the means are again.

    Args:
        members: the networks, in eval mode.
        geometries: their input sizes.
        heads: the names of their heads.
        scales: of each network; empty for one whose inputs are those of the ensemble.

    Raises:
        SegbenchError: no side of an image suits all of them.
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        geometries: Sequence[TileGeometry],
        heads: Sequence[str],
        scales: Sequence[Scales],
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.geometry = common_geometry(geometries)
        self._heads = tuple(heads)
        self._beyond = [self.geometry.margin - each.margin for each in geometries]
        self._scaled = [tuple(each) for each in scales]
        for number, of_member in enumerate(scales):
            for name, (factor_C11, offset_C11) in of_member.items():
                self.register_buffer(f"factor_{number}_{name}", factor_C11, persistent=False)
                self.register_buffer(f"offset_{number}_{name}", offset_C11, persistent=False)

    def forward(self, images: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """BCHW, or by modality where there are several."""
        by_name = {"": images} if isinstance(images, Tensor) else images
        sums: dict[str, Tensor] = {}
        for number, member in enumerate(self.members):
            given = {name: self._input(number, name, each) for name, each in by_name.items()}
            height, width = next(iter(given.values())).shape[-2:]
            output = as_heads(member(given[""] if isinstance(images, Tensor) else given), self._heads, (height, width))
            for head, logits_BKhw in output.items():
                probabilities_BKhw = logits_BKhw.float().softmax(1)
                sums[head] = sums[head] + probabilities_BKhw if head in sums else probabilities_BKhw
        least = torch.finfo(torch.float32).tiny
        return {head: (sum_BKhw / len(self.members)).clamp(min=least).log() for head, sum_BKhw in sums.items()}

    def _input(self, number: int, name: str, image_BCHW: Tensor) -> Tensor:
        """What a network sees of a modality, "" for the only one."""
        if beyond := self._beyond[number]:
            image_BCHW = image_BCHW[..., beyond:-beyond, beyond:-beyond]
        scaled = self._scaled[number]
        if not scaled or (name and name not in scaled):
            return image_BCHW
        key = f"{number}_{name or scaled[0]}"
        return image_BCHW * self.get_buffer(f"factor_{key}") + self.get_buffer(f"offset_{key}")


def scales_between(ours: Mapping[str, ModalitySpec], theirs: Mapping[str, ModalitySpec]) -> Scales:
    """What turns inputs on one data set's scale into inputs on another's; without the modalities of one scale.

    Args:
        ours: modalities of the inputs that are given.
        theirs: those that a network was trained on.
    """
    made = {}
    for name, given in ours.items():
        wanted = theirs[name]
        if (given.mean, given.std) != (wanted.mean, wanted.std):
            mean, std, mean_wanted, std_wanted = (
                torch.tensor(values, dtype=torch.float64)[:, None, None]
                for values in (given.mean, given.std, wanted.mean, wanted.std)
            )
            made[name] = (std / std_wanted).float(), ((mean - mean_wanted) / std_wanted).float()
    return made


def common_geometry(geometries: Sequence[TileGeometry]) -> TileGeometry:
    """Input sides that suit all networks.

    An image is continued by mirroring to a side that suits all, so near its lower and right border a network may see
    more of it than alone. A network without padding that takes any side from some side on, as sliding windows do, gives
    a pixel the same scores wherever its input begins: it sees less of a tile than one that loses a wider margin.

    Args:
        geometries: at least one.

    Raises:
        SegbenchError: there are none; or networks without padding, whose pooling would start at other pixels than it
            does alone, or that take an image whole stand beside others.
    """
    margin = max(each.margin for each in geometries)
    seen = [_with_margin(each, margin) for each in geometries]
    first = seen[0]
    if all(each == first for each in seen):
        return first
    step = math.lcm(*(each.step for each in seen))
    least = max(each.offset + each.step * each.minimum for each in seen)
    fitting = (side for side in range(least, least + step) if all(each.is_valid(side) for each in seen))
    side = next(fitting, None)
    if TileGeometry() in seen or len({each.margin for each in seen}) > 1 or side is None:
        kinds = dict.fromkeys(
            "whole images"
            if each == TileGeometry()
            else f"{each.offset} + {each.step} k pixels, {each.margin} fewer out"
            for each in geometries
        )
        raise SegbenchError(
            f"an ensemble of networks that take {'; '.join(kinds)}",
            "networks that take the same tiles and give the same part of them",
            "leave the others out of ensemble=",
        )
    return TileGeometry(
        step=step,
        offset=side - step,
        margin=margin,
        context=max(each.context for each in seen),
    )


def _with_margin(geometry: TileGeometry, margin: int) -> TileGeometry:
    """The geometry of a network whose input is cut, where that changes none of its scores; else its own."""
    beyond = margin - geometry.margin
    if geometry.step > 1 or not geometry.margin or geometry.context != geometry.margin:
        return geometry
    return replace(geometry, offset=geometry.offset + 2 * beyond, margin=margin, context=geometry.context + beyond)
