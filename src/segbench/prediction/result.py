"""A predicted window: its probabilities, classes and part of the image, each computed once."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segbench.inference.windows import Window
from segbench.prediction.pages import Page


class Result:
    """What outputs are made of.

    Args:
        window: as predicted.
        page: its page.
    """

    def __init__(self, window: Window, page: Page) -> None:
        self.y, self.x = window.y, window.x
        self._window, self._page = window, page
        self._probabilities: dict[str, NDArray[np.float32]] = {}
        self._classes: dict[str, NDArray[np.uint8]] = {}

    def probabilities(self, head: str) -> NDArray[np.float32]:
        """Khw."""
        if head not in self._probabilities:
            self._probabilities[head] = self._window.probabilities[head].float().cpu().numpy()
        return self._probabilities[head]

    def classes(self, head: str) -> NDArray[np.uint8]:
        """The likeliest class, hw."""
        if head not in self._classes:
            # On the device: one map of classes is less to move than a map per class.
            self._classes[head] = _likeliest(self._window.probabilities[head]).cpu().numpy()
        return self._classes[head]

    @cached_property
    def empty(self) -> NDArray[np.bool_] | None:
        """Where the image has no data, hw; None if it has data everywhere."""
        height, width = next(iter(self._window.probabilities.values())).shape[-2:]
        return self._page.empty(self.y, self.y + height, self.x, self.x + width)

    def image(self, modality: str) -> NDArray[Any]:
        """This window of the image."""
        height, width = next(iter(self._window.probabilities.values())).shape[-2:]
        return self._page.read(self.y, self.y + height, self.x, self.x + width)[modality]


def _likeliest(probabilities_Khw: Tensor) -> Tensor:
    """`argmax(0)` as uint8, the first of equals; on a CPU in a tenth of its time."""
    best_hw = probabilities_Khw[0].clone()
    classes_hw = torch.zeros_like(best_hw, dtype=torch.uint8)
    for k, probability_hw in enumerate(probabilities_Khw[1:], start=1):
        classes_hw.masked_fill_(probability_hw > best_hw, k)
        torch.maximum(best_hw, probability_hw, out=best_hw)
    return classes_hw
