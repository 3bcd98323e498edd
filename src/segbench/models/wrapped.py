"""A network of another package that takes sides of certain sizes only."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from segbench.spec import TileGeometry


class Wrapped(nn.Module):
    """Any network, with the input sides that it takes; others are mirrored up to the next of them.

    Args:
        network: takes images BCHW, gives logits as large as they are.
        step: its sides are multiples of this many pixels, 32 for most encoders.
        context: pixels on each side of an output pixel that can affect it, by which tiles overlap.
    """

    def __init__(self, network: nn.Module, step: int = 32, context: int = 0) -> None:
        super().__init__()
        self.network = network
        self.geometry = TileGeometry(step=step, minimum=1, context=context)

    def forward(self, images: Tensor | dict[str, Tensor]) -> Any:
        """What the network gives."""
        return self.network(images)
