"""The exact symmetries of the pixel grid, over which predictions are averaged at test time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from segbench.errors import check_one_of


@dataclass(frozen=True)
class Symmetry:
    """A rearrangement of the pixels of `...HW` and its inverse, without interpolation.

    Attributes:
        name: what it does.
        apply: `...HW -> ...HW`, or `...WH` for a quarter turn.
        undo: its inverse.
    """

    name: str
    apply: Callable[[Tensor], Tensor]
    undo: Callable[[Tensor], Tensor]


def _symmetry(quarter_turns: int, flip: bool) -> Symmetry:
    def apply(image_HW: Tensor) -> Tensor:
        return torch.rot90(image_HW.flip(-1) if flip else image_HW, quarter_turns, (-2, -1))

    def undo(image_HW: Tensor) -> Tensor:
        turned = torch.rot90(image_HW, -quarter_turns, (-2, -1))
        return turned.flip(-1) if flip else turned

    return Symmetry(f"{'mirrored, ' if flip else ''}turned by {90 * quarter_turns} degrees", apply, undo)


def symmetries(tta: str = "none") -> list[Symmetry]:
    """The group to average over.

    The paper averages over seven rotated versions of the input (section 4) without giving their angles; these exact
    ones are our choice: they need no interpolation and lose no corner.

    Args:
        tta: `none` (the identity alone), `rot4` (the four quarter turns), `d4` (those, and mirrored: eight),
            `multiscale` (the identity and the mirror image; scales are apart, see `multiscale`).

    Raises:
        SegbenchError: an unknown name.
    """
    groups = {"none": [(0, False)], "rot4": [(k, False) for k in range(4)]}
    groups["d4"] = groups["rot4"] + [(k, True) for k in range(4)]
    groups["multiscale"] = [(0, False), (0, True)]
    check_one_of("tta", tta, tuple(groups))
    return [_symmetry(turns, flip) for turns, flip in groups[tta]]
