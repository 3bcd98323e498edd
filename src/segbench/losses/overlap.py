"""What Dice and Tversky share: an index of overlap for each class, whose sets are probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from segbench.errors import check, check_one_of
from segbench.losses.loss import Classes, Loss, Sums, one_hot
from segbench.spec import VOID


class OverlapLoss(Loss):
    """The mean over classes of a loss of the sizes of two sets, predicted and labelled, and of what they share.

    With p = softmax(logits), g one-hot and w the pixel weight (1 where none is given), the sizes of class k are

        shared = sum_x w p_k g_k,   predicted = sum_x w p_k,   labelled = sum_x w g_k

    over all labelled pixels of the batch (of all processes' batches); with `per_image` over those of each image, and
    the loss is then the mean over images with a labelled pixel. A class that is labelled nowhere in that set has an
    index of 0 whatever is predicted, unless something is added (`smooth`): `classes=present` leaves it out, and its
    false positives count only as what other classes lose by them; `classes=all` punishes them, needs smooth > 0, and
    gives an index of 1 where none is predicted. Over images more classes are absent than over batches.

    Args:
        smooth: pixels added to numerator and denominator.
        classes: `present` or `all`.
        per_image: a set for each image.
        ignore_index: the void label.
        class_weights: factors of the classes in the mean over them: sum_k c_k loss_k / sum_k c_k over those that count.

    Raises:
        SegbenchError: an argument outside its range.
    """

    def __init__(
        self,
        smooth: float,
        classes: Classes,
        per_image: bool,
        ignore_index: int = VOID,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(ignore_index, class_weights)
        check_one_of("loss.classes", classes, ("present", "all"))
        needed = "a number of pixels >= 0" if classes == "present" else "a number of pixels above 0 for classes=all"
        good = 0 <= smooth < math.inf and (smooth > 0 or classes == "present")
        check("loss.smooth", smooth, good, needed, 0 if classes == "present" else 1)
        self.smooth, self.classes, self.per_image = smooth, classes, per_image

    def value(self, sums: Sums) -> Tensor:
        """The mean over classes, and over images with `per_image`; 0 where nothing is labelled."""
        if self.per_image:
            return sums["total"] / sums["sets"].clamp(min=1)
        return self._of_sets(sums)

    def _of_sets(self, sizes: Sums) -> Tensor:
        """The loss of each set, from sizes whose last axis is K."""
        shared_SK, predicted_SK, labelled_SK = (sizes[name] for name in ("shared", "predicted", "labelled"))
        present_SK = labelled_SK > 0
        counted_SK = present_SK if self.classes == "present" else present_SK.any(-1, keepdim=True).expand_as(present_SK)
        loss_SK = self._loss(shared_SK, predicted_SK, labelled_SK, counted_SK)
        return self._mean_over_classes(torch.where(counted_SK, loss_SK, 0), counted_SK)

    def _loss(self, shared_SK: Tensor, predicted_SK: Tensor, labelled_SK: Tensor, counted_SK: Tensor) -> Tensor:
        """Of each class; finite, with finite gradients, where it does not count."""
        raise NotImplementedError

    def _predicted(self, weighted_BKHW: Tensor, prob_BKHW: Tensor) -> Tensor:
        """What a pixel adds to the predicted size of each class, from its weighted probability."""
        return weighted_BKHW

    def _sums(self, logits_BKHW: Tensor, target_BHW: Tensor, weight_BHW: Tensor | None) -> Sums:
        prob_BKHW = logits_BKHW.softmax(1)
        labelled_BHW = target_BHW != self.ignore_index
        true_BKHW = one_hot(target_BHW, labelled_BHW, logits_BKHW.shape[1])
        weight_B1HW = labelled_BHW.to(prob_BKHW.dtype)[:, None]
        if weight_BHW is not None:
            weight_B1HW = weight_B1HW * weight_BHW[:, None]
        weighted_BKHW = prob_BKHW * weight_B1HW
        pixels = (2, 3) if self.per_image else (0, 2, 3)
        sizes = {
            "shared": (weighted_BKHW * true_BKHW).sum(pixels),
            "predicted": self._predicted(weighted_BKHW, prob_BKHW).sum(pixels),
            "labelled": (true_BKHW * weight_B1HW).sum(pixels),
        }
        if not self.per_image:
            return sizes
        counted_B = labelled_BHW.flatten(1).any(1)
        return {"total": self._of_sets(sizes).sum(), "sets": counted_B.sum().to(torch.float32)}
