"""Lovász-softmax loss (Berman, Rannen Triki and Blaschko: CVPR 2018, arXiv:1705.08790): mean IU, made trainable."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from segbench.errors import check_one_of
from segbench.losses.loss import Classes, Loss, Sums, one_hot
from segbench.spec import VOID


class LovaszSoftmax(Loss):
    """The Lovász extension of each class's Jaccard loss at the errors of the softmax, averaged over classes.

    For class k the error of a pixel is m(x) = |g_k(x) - p_k(x)| (equation 11), the set function is 1 - IU of class k
    when the pixels of a set M are wrong, delta(M) = |M| / |{g_k = 1} or M| (equation 6), and the loss is its Lovász
    extension (definition 2, equations 8 and 9): with the errors sorted downwards,

        sum_i m(i) (delta({1..i}) - delta({1..i-1}))

    averaged over classes, by the class weights where given. At probabilities of 0 and 1 it is 1 - mean IU. With pixel
    weights (the paper has none) |.| is their sum, for which delta stays submodular.

    Each image is a separate set, and the loss is the mean over images with a labelled pixel; `per_image=false` takes
    all pixels of a batch as one set, closer to a score over the whole data set. Sorting then needs them all at once,
    so several processes are refused, and accumulated batches are separate sets.

    Args:
        per_image: as above.
        classes: `present`, those labelled in the set (as the paper trains), or `all`.
        ignore_index: the void label.
        class_weights: factors of the classes in the mean over them: sum_k c_k loss_k / sum_k c_k.

    Raises:
        SegbenchError: another value of classes, or class weights out of range.
    """

    def __init__(
        self,
        per_image: bool = True,
        classes: Classes = "present",
        ignore_index: int = VOID,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(ignore_index, class_weights)
        check_one_of("loss.classes", classes, ("present", "all"))
        self.classes, self.per_image = classes, per_image
        self.additive = per_image

    def value(self, sums: Sums) -> Tensor:
        """The mean over the sets."""
        return sums["total"] / sums["sets"].clamp(min=1)

    def _sums(self, logits_BKHW: Tensor, target_BHW: Tensor, weight_BHW: Tensor | None) -> Sums:
        labelled_BHW = target_BHW != self.ignore_index
        true_BKHW = one_hot(target_BHW, labelled_BHW, logits_BKHW.shape[1])
        error_BKHW = torch.where(labelled_BHW[:, None], true_BKHW.to(logits_BKHW.dtype) - logits_BKHW.softmax(1), 0)
        weight_BHW = _whole_numbers(weight_BHW, target_BHW)
        # Sets S of N pixels: the images, or the batch.
        sets = len(logits_BKHW) if self.per_image else 1
        error_SKN, true_SKN, weight_S1N = (
            x_BKHW.movedim(1, -1).reshape(sets, -1, x_BKHW.shape[1]).movedim(-1, 1)
            for x_BKHW in (error_BKHW.abs(), true_BKHW, weight_BHW[:, None])
        )
        losses = [self._of_set(*of_set) for of_set in zip(error_SKN, true_SKN, weight_S1N, strict=True)]
        counted_S = labelled_BHW.reshape(sets, -1).any(1)
        return {"total": torch.stack(losses).sum(), "sets": counted_S.sum().to(torch.float32)}

    def _of_set(self, error_KN: Tensor, true_KN: Tensor, weight_1N: Tensor) -> Tensor:
        # Void pixels have no error: they sort to the end, where they add nothing.
        present_K = true_KN.any(1)
        counted_K = present_K if self.classes == "present" else torch.ones_like(present_K)
        share_K = counted_K.to(error_KN.dtype)
        if self.class_weights is not None:
            share_K = share_K * self.class_weights.to(share_K.dtype)
        if counted_K.is_cpu:
            # Sorting is what takes time. On a GPU the number of classes that are left would have to be waited for.
            error_KN, true_KN, share_K = error_KN[counted_K], true_KN[counted_K], share_K[counted_K]
        error_KN, order_KN = error_KN.sort(dim=1, descending=True)
        weight_KN = weight_1N.expand_as(error_KN).gather(1, order_KN)
        true_weight_KN = weight_KN * true_KN.gather(1, order_KN)
        # Of the class and the wrong pixels so far: what is still right of the class, and their union.
        size_K1 = true_weight_KN.sum(1, keepdim=True)
        shared_KN = size_K1 - true_weight_KN.cumsum(1)
        union_KN = size_K1 + (weight_KN - true_weight_KN).cumsum(1)
        delta_KN = torch.where(union_KN > 0, 1 - shared_KN.double() / union_KN.clamp(min=1), 0)
        loss_K = (error_KN * pad(delta_KN, (1, 0)).diff(dim=1).to(error_KN.dtype)).sum(1)
        total = share_K.sum()
        return (share_K * loss_K).sum() / torch.where(total > 0, total, 1)


def _whole_numbers(weight_BHW: Tensor | None, target_BHW: Tensor) -> Tensor:
    """Pixel weights as int64 multiples of a common unit, which cancels in delta.

    On a GPU the running sum of floats has no deterministic form; that of whole numbers is exact in every order. The
    unit keeps the sum of all N weights below 2^62: with 10^6 pixels a weight is kept to 2^-42 of the largest.

    Returns:
        1 for every pixel where no weights are given.
    """
    if weight_BHW is None:
        return torch.ones_like(target_BHW)
    largest = 2.0 ** (61 - math.ceil(math.log2(max(weight_BHW.numel(), 1))))
    weight_BHW = weight_BHW.double()
    return (weight_BHW * (largest / weight_BHW.max().clamp(min=torch.finfo(torch.float32).tiny))).round().long()
