"""Detects a learning rate meant for the other kind of loss: summed over pixels, or averaged over them."""

from __future__ import annotations

import torch

from segbench.errors import SegbenchError

SMALLEST, LARGEST = 3e-8, 1e-1
"""Plausible SGD steps in units of a pixel's mean gradient: lr * pixels / (1 - momentum) where pixels are summed.

The papers' lie between 1e-7 (FCN-8s, averaged: 1e-8 and momentum 0.9) and 1e-1 (U-Net, averaged: 1e-3 and momentum
0.99); FCN's summed ones between 2e-7 and 2e-3 (1e-14 and 1e-10, momentum 0.99, 187,500 pixels). Mixed up they would lie
far outside: 1e-4 summed takes steps of 2e3, 1e-10 averaged of 1e-8.
"""


def loss_rate_mismatch(reduction: str, optimizer: torch.optim.Optimizer, pixels: int) -> SegbenchError | None:
    """Whether the rate suits averages and the loss is a sum, or the reverse.

    Adam and its kin divide a gradient by its size: their step does not depend on the loss's scale, so any rate passes.

    Args:
        reduction: of the loss, `sum` or `mean`.
        optimizer: at its initial rates.
        pixels: per step.

    Returns:
        the error to log, or None.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return None
    group = optimizer.param_groups[0]
    lr, momentum = float(group["lr"]), float(group["momentum"])
    step = lr / (1 - momentum) if momentum < 1 else float("inf")
    given = f"optimizer.lr={lr:g} (momentum {momentum:g})"
    if reduction == "sum" and step * pixels > LARGEST:
        return SegbenchError(
            f"{given} and a loss summed over {pixels:,} pixels: steps of {step * pixels:.0e} mean gradients of a pixel",
            f"a rate below {LARGEST * (1 - momentum) / pixels:.0e} for such a sum (FCN: 1e-10 to 1e-14)",
            "set loss=cross_entropy, or a smaller optimizer.lr",
        )
    if reduction == "mean" and step < SMALLEST:
        return SegbenchError(
            f"{given} and a loss averaged over pixels: steps of {step:.0e} mean gradients of a pixel",
            f"a rate above {SMALLEST * (1 - momentum):.0e} for an average (FCN: 1e-3 to 1e-8)",
            "set loss=cross_entropy_sum, or a larger optimizer.lr",
        )
    return None
