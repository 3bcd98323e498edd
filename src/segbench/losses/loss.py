"""A loss is sums over the pixels of a batch, and a function of them.

Sums of several batches add up, so a loss across processes is exactly that of one batch: the task adds the processes'
sums and takes the function of the total.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from segbench.errors import SegbenchError, check
from segbench.spec import VOID

Reduction = Literal["mean", "sum"]

Classes = Literal["present", "all"]
"""The classes that a loss averages over: those labelled in the pixels it sees, or all."""

Sums = dict[str, Tensor]
"""Sums by name: scalars, or one value per class."""


class Loss(nn.Module):
    """A loss of one head: `value(sums(logits, target, weight))`.

    For every loss, void pixels influence neither value nor gradient, a batch without a labelled pixel has loss 0 and
    gradient 0, and half-precision logits are converted to float32 first, with or without autocast (float64 stays).

    Args:
        ignore_index: the void label.
        class_weights: K finite factors >= 0, in the order of the labels; None: 1 for all. What they weight is each
            loss's own: pixels by their label, or the classes of a mean over classes.

    Raises:
        SegbenchError: class weights out of range; when called, of another number than K.
    """

    class_weights: Tensor | None

    needs_weight = False
    """Whether `sums` refuses a batch without pixel weights; `build` checks it before training starts."""

    reduction: Reduction = "mean"
    """Whether it grows with the number of pixels (`sum`) or not; the learning rate has to match."""

    additive = True
    """Whether the sums of two batches add up to those of both in one; if not, the task refuses several processes."""

    def __init__(self, ignore_index: int = VOID, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.weigh_classes(class_weights)

    def weigh_classes(self, class_weights: Sequence[float] | None) -> None:
        """Set the class weights, as in the constructor."""
        good = class_weights is None or all(0 <= factor < math.inf for factor in class_weights)
        good = good and (class_weights is None or any(factor > 0 for factor in class_weights))
        check("loss.class_weights", class_weights, good, "a finite factor >= 0 per class, one of them above 0", "null")
        # Not in the checkpoint: they are in the config.
        weights = None if class_weights is None else torch.tensor(list(class_weights), dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits_BKHW: Tensor, target_BHW: Tensor, weight_BHW: Tensor | None = None) -> Tensor:
        """The scalar loss of a batch, float32 (float64 for float64 logits); arguments as in `sums`."""
        return self.value(self.sums(logits_BKHW, target_BHW, weight_BHW))

    def sums(self, logits_BKHW: Tensor, target_BHW: Tensor, weight_BHW: Tensor | None = None) -> Sums:
        """What the batch adds to the loss.

        Args:
            logits_BKHW: scores before softmax, any float type.
            target_BHW: int64 labels in [0, K) or `ignore_index`.
            weight_BHW: float pixel weights >= 0, finite on void pixels too; None: 1 everywhere.

        Raises:
            SegbenchError: target or pixel weights are not of the logits' size.
        """
        B, _, H, W = logits_BKHW.shape
        for name, tensor in (("target", target_BHW), ("pixel weight", weight_BHW)):
            # Without this, a B1HW weight would broadcast to a wrong loss.
            if tensor is not None and tensor.shape != (B, H, W):
                raise SegbenchError(
                    f"{name} of shape {tuple(tensor.shape)} for logits of shape {tuple(logits_BKHW.shape)}",
                    f"{name} of shape {(B, H, W)}",
                    f"crop or squeeze the {name} to the size of the network's output",
                )
        if self.class_weights is not None and len(self.class_weights) != logits_BKHW.shape[1]:
            raise SegbenchError(
                f"loss.class_weights with {len(self.class_weights)} factors for {logits_BKHW.shape[1]} classes",
                "one factor per class",
                "correct loss.class_weights, or set loss.class_weights=null",
            )
        logits_BKHW = logits_BKHW.to(torch.promote_types(logits_BKHW.dtype, torch.float32))
        kind = logits_BKHW.device.type
        with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
            return self._sums(logits_BKHW, target_BHW, weight_BHW)

    def value(self, sums: Sums) -> Tensor:
        """The scalar loss from the sums of one batch or of several."""
        raise NotImplementedError

    def terms(self, sums: Sums) -> dict[str, Tensor]:
        """Scalars to log beside the loss, by name: its parts."""
        return {}

    def _sums(self, logits_BKHW: Tensor, target_BHW: Tensor, weight_BHW: Tensor | None) -> Sums:
        raise NotImplementedError

    def _mean_over_classes(self, loss_SK: Tensor, counted_SK: Tensor) -> Tensor:
        """The mean of each set's losses over the counted classes, weighted by class; 0 where none counts."""
        share_SK = counted_SK.to(loss_SK.dtype)
        if self.class_weights is not None:
            share_SK = share_SK * self.class_weights.to(loss_SK.dtype)
        total_S = share_SK.sum(-1)
        return (share_SK * loss_SK).sum(-1) / torch.where(total_S > 0, total_S, 1)


def one_hot(target_BHW: Tensor, labelled_BHW: Tensor, classes: int) -> Tensor:
    """Where each class is labelled, BKHW bool; False on void pixels.

    Args:
        target_BHW: int64 labels.
        labelled_BHW: bool.
        classes: K. A label beyond it is an IndexError on a CPU and a device assert on a GPU, as in cross-entropy.
    """
    B, H, W = target_BHW.shape
    label_B1HW = torch.where(labelled_BHW, target_BHW, 0)[:, None]
    return target_BHW.new_zeros((B, classes, H, W), dtype=torch.bool).scatter_(1, label_B1HW, labelled_BHW[:, None])
