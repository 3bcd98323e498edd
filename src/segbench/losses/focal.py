"""Focal loss (Lin, Goyal, Girshick, He and Dollár: ICCV 2017, arXiv:1708.02002): pixels already right count less."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from segbench.errors import SegbenchError, check
from segbench.losses.cross_entropy import CrossEntropy
from segbench.losses.loss import Reduction
from segbench.spec import VOID


class Focal(CrossEntropy):
    """Cross-entropy times (1 - p)^gamma, p the probability of the true class (equations 4 and 5, for K classes).

    l(x) = -alpha[t] (1 - p_t)^gamma log p_t, with t = target(x) and p = softmax(logits(x)); reduced and weighted as in
    `CrossEntropy`, which it equals at gamma = 0 without alpha. The paper divides by the number of anchors assigned to
    an object; here `mean` divides by the number of labelled pixels, or by the sum of their class weights. alpha is the
    paper's: it is in no denominator.

    Args:
        gamma: how fast a pixel's share of the loss falls with its probability; the paper's best is 2.
        alpha: a factor >= 0 for each of the K classes; None: 1 for all. The paper's best for two classes is
            (0.75, 0.25), the object being class 1.
        reduction: `mean` or `sum`.
        ignore_index: the void label.
        class_weights: as for `CrossEntropy`.

    Raises:
        SegbenchError: an argument outside its range; when called, an alpha of another length than K.
    """

    alpha: Tensor | None

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: Sequence[float] | None = None,
        reduction: Reduction = "mean",
        ignore_index: int = VOID,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(reduction, ignore_index, class_weights)
        check("loss.gamma", gamma, 0 <= gamma < math.inf, "a finite number, 0 or more", 2)
        good = alpha is None or (len(alpha) > 0 and all(0 <= factor < math.inf for factor in alpha))
        check("loss.alpha", alpha, good, "null, or a finite factor >= 0 per class", "null")
        self.gamma = gamma
        # Not in the checkpoint: it is in the config.
        self.register_buffer("alpha", None if alpha is None else torch.tensor(list(alpha)), persistent=False)

    def _pixel_losses(self, logits_BKHW: Tensor, target_BHW: Tensor) -> Tensor:
        loss_BHW = super()._pixel_losses(logits_BKHW, target_BHW)
        # At p = 1 a power below 1 has an infinite slope, which times the loss of 0 would be NaN.
        other_BHW = -torch.expm1(-loss_BHW)
        focal_BHW = other_BHW.clamp(min=torch.finfo(other_BHW.dtype).tiny) ** self.gamma * loss_BHW
        if self.alpha is None:
            return focal_BHW
        classes = logits_BKHW.shape[1]
        if len(self.alpha) != classes:
            raise SegbenchError(
                f"loss.alpha with {len(self.alpha)} factors for {classes} classes",
                "one factor per class",
                "correct loss.alpha, or set loss.alpha=null",
            )
        label_BHW = torch.where(target_BHW == self.ignore_index, 0, target_BHW)
        return focal_BHW * self.alpha.to(focal_BHW.dtype)[label_BHW]
