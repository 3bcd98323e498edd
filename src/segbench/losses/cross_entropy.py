"""Pixel-wise cross-entropy: plain or weighted by pixel, averaged or summed.

U-Net (arXiv:1505.04597, section 3, equation 1) weights each pixel's cross-entropy by a map w(x); FCN (arXiv:1411.4038,
released nets) sums it over the image without a denominator; its learning rates (1e-10 and the like) assume that.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from segbench.errors import SegbenchError, check_one_of
from segbench.losses.loss import Loss, Reduction, Sums
from segbench.spec import VOID


class CrossEntropy(Loss):
    """Softmax cross-entropy over labelled pixels, with pixel weights where given.

    With l(x) = -log softmax(logits(x))[target(x)], w(x) the pixel weight and c the class weights (1 where none are
    given), and the sums over all pixels x of the batch whose target t(x) is not `ignore_index`:

        sum:   L = sum_x c[t(x)] w(x) l(x)
        mean:  L = sum_x c[t(x)] w(x) l(x) / n,   n = sum_x c[t(x)]; without class weights the number of labelled pixels

    The denominator does not contain the pixel weights, on purpose. A pixel's gradient is then w(x) / n in every tile: a
    high weight raises the loss. Divided by the sum of weights, a tile with many borders would count its other pixels
    less than a tile with few, and scaling the whole map would change nothing. It does contain the class weights, as in
    torch (`cross_entropy(weight=c)`): scaling them all changes nothing. For c = w = 1 it is the usual mean.

    Args:
        reduction: `mean` or `sum`.
        ignore_index: the void label.
        class_weights: c, as for every loss.

    Raises:
        SegbenchError: another reduction, or class weights out of range.
    """

    def __init__(
        self,
        reduction: Reduction = "mean",
        ignore_index: int = VOID,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(ignore_index, class_weights)
        check_one_of("loss.reduction", reduction, ("mean", "sum"))
        self.reduction = reduction

    def value(self, sums: Sums) -> Tensor:
        """The sum, or the mean over labelled pixels."""
        pixels = sums["pixels"]
        return sums["total"] if self.reduction == "sum" else sums["total"] / torch.where(pixels > 0, pixels, 1)

    def _sums(self, logits_BKHW: Tensor, target_BHW: Tensor, weight_BHW: Tensor | None) -> Sums:
        loss_BHW = self._pixel_losses(logits_BKHW, target_BHW)
        if weight_BHW is not None:
            loss_BHW = loss_BHW * weight_BHW
        labelled_BHW = target_BHW != self.ignore_index
        if self.class_weights is None:
            return {"total": loss_BHW.sum(), "pixels": labelled_BHW.sum().to(torch.float32)}
        label_BHW = torch.where(labelled_BHW, target_BHW, 0)
        factor_BHW = self.class_weights.to(loss_BHW.dtype)[label_BHW] * labelled_BHW
        return {"total": (loss_BHW * factor_BHW).sum(), "pixels": factor_BHW.sum()}

    def _pixel_losses(self, logits_BKHW: Tensor, target_BHW: Tensor) -> Tensor:
        """l(x), BHW; 0 on void pixels."""
        return cross_entropy(logits_BKHW, target_BHW, reduction="none", ignore_index=self.ignore_index)


class WeightedCrossEntropy(CrossEntropy):
    """`CrossEntropy` that refuses a batch without pixel weights, so that they are never dropped unnoticed.

    This is U-Net's energy (arXiv:1505.04597, equation 1) with the map of `segbench.data.weight_map`.
    """

    needs_weight = True

    def sums(self, logits_BKHW: Tensor, target_BHW: Tensor, weight_BHW: Tensor | None = None) -> Sums:
        """As `Loss.sums`.

        Raises:
            SegbenchError: as `Loss.sums`, and where there are no pixel weights.
        """
        if weight_BHW is None:
            raise SegbenchError(
                "loss=weighted_cross_entropy, and a batch without pixel weights",
                "samples with pixel weights (Sample.weight)",
                "turn on the data set's weight map, or choose loss=cross_entropy",
            )
        return super().sums(logits_BKHW, target_BHW, weight_BHW)
