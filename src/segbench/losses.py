"""Pixel-wise cross-entropy: plain, weighted by a map, averaged or summed.

U-Net (arXiv:1505.04597, section 3, equation 1) weights each pixel's cross-entropy by a map w(x); FCN (arXiv:1411.4038,
released nets) sums it over the image without a denominator, which its learning rates (1e-10 and the like) are made for.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from segbench.errors import SegbenchError
from segbench.spec import VOID


class CrossEntropy(nn.Module):
    """Softmax cross-entropy over labelled pixels, with a weight a pixel where one is given.

    With l(x) = -log softmax(logits(x))[target(x)], w(x) the weight (1 where none is given), and the sums over all
    pixels x of the batch whose target is not `ignore_index`:

        sum:   L = sum_x w(x) l(x)
        mean:  L = sum_x w(x) l(x) / n,   n = the number of labelled pixels

    The denominator counts pixels and not weights on purpose. A pixel's gradient is then w(x) / n in every tile: a
    weight raises the loss where it is high. Divided by the sum of weights, a tile with many borders would count its
    other pixels less than a tile with few, and scaling the whole map would do nothing. For w = 1 it is the usual mean.

    A batch without a labelled pixel has loss 0 and gradient 0. Half-precision logits are taken to float32 first, inside
    and outside autocast; float64 stays.

    Args:
        reduction: `mean` or `sum`, as above.
        ignore_index: the void label.

    Raises:
        SegbenchError: the reduction is neither of the two.
    """

    needs_weight = False
    """Whether `forward` refuses a batch without a weight map; `build` reads it before training starts."""

    def __init__(self, reduction: Literal["mean", "sum"] = "mean", ignore_index: int = VOID) -> None:
        super().__init__()
        if reduction not in ("mean", "sum"):
            raise SegbenchError(f"loss.reduction={reduction}", "mean or sum", "set loss.reduction=mean")
        self.reduction = reduction
        self.ignore_index = ignore_index

    def normaliser(self, target_BHW: Tensor, weight_BHW: Tensor | None = None) -> Tensor:
        """What `mean` divides by: the number of labelled pixels, a float32 scalar; the weight has no part in it.

        It is 0 for a batch without labelled pixels, where the mean is 0 too, so `mean * normaliser == sum` always. Over
        R ranks, whose gradients are averaged, the mean over all pixels is the local mean times
        `R * normaliser / all_reduce(normaliser)`.
        """
        return (target_BHW != self.ignore_index).sum().to(torch.float32)

    def forward(self, logits_BKHW: Tensor, target_BHW: Tensor, weight_BHW: Tensor | None = None) -> Tensor:
        """The scalar loss, float32 (float64 for float64 logits).

        Args:
            logits_BKHW: scores before softmax, any float type.
            target_BHW: int64 labels in [0, K) or `ignore_index`.
            weight_BHW: float weights >= 0; finite also on void pixels.

        Raises:
            SegbenchError: target or weight are not of the logits' size.
        """
        B, _, H, W = logits_BKHW.shape
        for name, tensor in (("target", target_BHW), ("weight", weight_BHW)):
            # A B1HW weight would broadcast without an error, to a wrong loss.
            if tensor is not None and tensor.shape != (B, H, W):
                raise SegbenchError(
                    f"a {name} of shape {tuple(tensor.shape)} for logits of shape {tuple(logits_BKHW.shape)}",
                    f"a {name} of shape {(B, H, W)}",
                    f"crop or squeeze the {name} to the size of the network's output",
                )
        logits_BKHW = logits_BKHW.to(torch.promote_types(logits_BKHW.dtype, torch.float32))
        with torch.autocast(logits_BKHW.device.type, enabled=False):
            loss_BHW = cross_entropy(logits_BKHW, target_BHW, reduction="none", ignore_index=self.ignore_index)
            if weight_BHW is not None:
                loss_BHW = loss_BHW * weight_BHW
            total = loss_BHW.sum()
            return total if self.reduction == "sum" else total / self.normaliser(target_BHW).clamp(min=1)


class WeightedCrossEntropy(CrossEntropy):
    """`CrossEntropy` that refuses a batch without a weight map, so that the map is never left out unnoticed.

    This is U-Net's energy (arXiv:1505.04597, equation 1) with the map of `segbench.data.weight_map`.
    """

    needs_weight = True

    def forward(self, logits_BKHW: Tensor, target_BHW: Tensor, weight_BHW: Tensor | None = None) -> Tensor:
        """As `CrossEntropy.forward`.

        Raises:
            SegbenchError: also where there is no weight.
        """
        if weight_BHW is None:
            raise SegbenchError(
                "loss=weighted_cross_entropy, and a batch without a weight map",
                "samples that carry a weight (Sample.weight)",
                "turn the data set's weight map on, or choose loss=cross_entropy",
            )
        return super().forward(logits_BKHW, target_BHW, weight_BHW)
