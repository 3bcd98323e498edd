"""Tversky loss (Salehi, Erdogmus and Gholipour: MLMI 2017, arXiv:1706.05721): false positives and misses apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from segbench.errors import check
from segbench.losses.loss import Classes
from segbench.losses.overlap import OverlapLoss
from segbench.spec import VOID


class Tversky(OverlapLoss):
    """The mean over classes of (1 - T_k)^gamma, T_k the Tversky index of sets that are probabilities.

    With the sizes of `OverlapLoss`, where predicted - shared are the false positives and labelled - shared the misses:

        T_k = (shared + s) / (shared + alpha (predicted - shared) + beta (labelled - shared) + s)

    beta > alpha punishes misses more, which favours small classes. alpha = beta = 1/2 is Dice (with twice the s), and
    alpha = beta = 1 the Jaccard index. The exponent is that of the focal Tversky loss (Abraham and Khan: ISBI 2019,
    arXiv:1810.07842), written there as 1/gamma with a best gamma of 4/3, so 0.75 here.

    Args:
        alpha: factor >= 0 of false positives; the paper's best is 0.3.
        beta: factor >= 0 of misses; the paper's best is 0.7.
        gamma: the exponent, above 0; 1 is the plain loss.
        smooth: s, in pixels.
        classes: `present` or `all`, as for `OverlapLoss`.
        ignore_index: the void label.
        per_image: sums over each image, and the mean over images.
        class_weights: factors of the classes in the mean over them.

    Raises:
        SegbenchError: an argument outside its range.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 1.0,
        smooth: float = 0.0,
        classes: Classes = "present",
        ignore_index: int = VOID,
        per_image: bool = False,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(smooth, classes, per_image, ignore_index, class_weights)
        for name, value, usual in (("alpha", alpha, 0.3), ("beta", beta, 0.7)):
            check(f"loss.{name}", value, 0 <= value < math.inf, "a finite number, 0 or more", usual)
        check("loss.gamma", gamma, 0 < gamma < math.inf, "a finite number above 0", 1)
        self.alpha, self.beta, self.gamma = alpha, beta, gamma

    def _loss(self, shared_SK: Tensor, predicted_SK: Tensor, labelled_SK: Tensor, counted_SK: Tensor) -> Tensor:
        wrong_SK = self.alpha * (predicted_SK - shared_SK) + self.beta * (labelled_SK - shared_SK)
        size_SK = shared_SK + wrong_SK + self.smooth
        # 0 / 0 dropped after the division would still give NaN gradients.
        loss_SK = wrong_SK / torch.where(counted_SK & (size_SK > 0), size_SK, 1)
        if self.gamma == 1:
            return loss_SK
        # At 0 a power below 1 has an infinite slope.
        return loss_SK.clamp(min=torch.finfo(loss_SK.dtype).tiny) ** self.gamma
