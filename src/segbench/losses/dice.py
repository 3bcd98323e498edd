"""Soft Dice loss (Milletari, Navab and Ahmadi: 3DV 2016, arXiv:1606.04797, section 3), for any number of classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segbench.losses.loss import Classes
from segbench.losses.overlap import OverlapLoss
from segbench.spec import VOID


class Dice(OverlapLoss):
    """1 - the mean over classes of a Dice coefficient whose sets are probabilities.

    With p = softmax(logits), g one-hot, w the pixel weight (1 where none is given), and the sums over all labelled
    pixels of the batch (of all processes' batches), or of each image with `per_image`:

        D_k = (2 sum_x w p_k g_k + s) / (sum_x w p_k^e + sum_x w g_k + s)

    The paper squares (e = 2); e = 1 is usual since (Drozdzal et al., arXiv:1608.04117). For probabilities of 0 and 1
    both are the Dice score. At s = 0 a class that is labelled nowhere has D_k = 0 whatever is predicted, so
    `classes=present` leaves it out; `classes=all` punishes its false positives, and needs s > 0.

    Args:
        squared: e = 2.
        smooth: s, in pixels.
        classes: `present` or `all`.
        ignore_index: the void label.
        per_image: sums over each image, and the mean over images.
        class_weights: c in the mean over classes, 1 - sum_k c_k D_k / sum_k c_k over those that count.

    Raises:
        SegbenchError: an argument outside its range.
    """

    def __init__(
        self,
        squared: bool = False,
        smooth: float = 0.0,
        classes: Classes = "present",
        ignore_index: int = VOID,
        per_image: bool = False,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(smooth, classes, per_image, ignore_index, class_weights)
        self.squared = squared

    def _loss(self, shared_SK: Tensor, predicted_SK: Tensor, labelled_SK: Tensor, counted_SK: Tensor) -> Tensor:
        size_SK = predicted_SK + labelled_SK + self.smooth
        # Chosen before the division: 0 / 0 dropped after it would still give NaN gradients.
        return 1 - (2 * shared_SK + self.smooth) / torch.where(counted_SK, size_SK, 1)

    def _predicted(self, weighted_BKHW: Tensor, prob_BKHW: Tensor) -> Tensor:
        return weighted_BKHW * prob_BKHW if self.squared else weighted_BKHW
