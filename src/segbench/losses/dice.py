"""Soft Dice loss (Milletari, Navab and Ahmadi: 3DV 2016, arXiv:1606.04797, section 3), for any number of classes."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from segbench.errors import check, check_one_of
from segbench.losses.loss import Loss, Sums, one_hot
from segbench.spec import VOID

Classes = Literal["present", "all"]
"""The classes that a loss averages over: those labelled in the pixels it sees, or all."""


class Dice(Loss):
    """1 - the mean over classes of a Dice coefficient whose sets are probabilities.

    With p = softmax(logits), g one-hot, w the pixel weight (1 where none is given), and the sums over all labelled
    pixels of the batch (of all processes' batches), not of each image:

        D_k = (2 sum_x w p_k g_k + s) / (sum_x w p_k^e + sum_x w g_k + s)

    The paper squares (e = 2); e = 1 is usual since (Drozdzal et al., arXiv:1608.04117). For probabilities of 0 and 1
    both are the Dice score. At s = 0 a class that is labelled nowhere has D_k = 0 whatever is predicted, so
    `classes=present` leaves it out; `classes=all` punishes its false positives, and needs s > 0.

    Args:
        squared: e = 2.
        smooth: s, in pixels.
        classes: `present` or `all`.
        ignore_index: the void label.

    Raises:
        SegbenchError: an argument outside its range.
    """

    def __init__(
        self, squared: bool = False, smooth: float = 0.0, classes: Classes = "present", ignore_index: int = VOID
    ) -> None:
        super().__init__(ignore_index)
        check_one_of("loss.classes", classes, ("present", "all"))
        needed = "a number of pixels >= 0" if classes == "present" else "a number of pixels above 0 for classes=all"
        good = 0 <= smooth < math.inf and (smooth > 0 or classes == "present")
        check("loss.smooth", smooth, good, needed, 0 if classes == "present" else 1)
        self.squared, self.smooth, self.classes = squared, smooth, classes

    def value(self, sums: Sums) -> Tensor:
        """1 - the mean of D_k; 0 where nothing is labelled."""
        shared_K, predicted_K, labelled_K = (sums[name] for name in ("shared", "predicted", "labelled"))
        present_K = labelled_K > 0
        counted_K = present_K if self.classes == "present" else present_K.any().expand_as(present_K)
        size_K = predicted_K + labelled_K + self.smooth
        # Chosen before the division: 0 / 0 dropped after it would still give NaN gradients.
        dice_K = (2 * shared_K + self.smooth) / torch.where(counted_K, size_K, 1)
        loss_K = torch.where(counted_K, 1 - dice_K, 0)
        return loss_K.sum() / counted_K.sum().clamp(min=1)

    def _sums(self, logits_BKHW: Tensor, target_BHW: Tensor, weight_BHW: Tensor | None) -> Sums:
        prob_BKHW = logits_BKHW.softmax(1)
        labelled_BHW = target_BHW != self.ignore_index
        true_BKHW = one_hot(target_BHW, labelled_BHW, logits_BKHW.shape[1])
        weight_B1HW = labelled_BHW.to(prob_BKHW.dtype)[:, None]
        if weight_BHW is not None:
            weight_B1HW = weight_B1HW * weight_BHW[:, None]
        weighted_BKHW = prob_BKHW * weight_B1HW
        return {
            "shared": (weighted_BKHW * true_BKHW).sum((0, 2, 3)),
            "predicted": (weighted_BKHW * prob_BKHW if self.squared else weighted_BKHW).sum((0, 2, 3)),
            "labelled": (true_BKHW * weight_B1HW).sum((0, 2, 3)),
        }
