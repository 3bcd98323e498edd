"""Optimisers with the papers' treatment of biases, and learning-rate schedules over steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


def parameter_groups(
    module: nn.Module, lr: float, weight_decay: float, bias_lr_factor: float, bias_weight_decay: float | None
) -> list[dict[str, Any]]:
    """Split parameters into weights and the rest (biases, scales and shifts of norms: all of one dimension).

    Args:
        module: trained parameters are those that ask for a gradient.
        lr: of the weights.
        weight_decay: of the weights.
        bias_lr_factor: the biases' rate is `lr` times this (2 in Caffe's habit and both FCN protocols).
        bias_weight_decay: of the biases; None = as the weights.

    Returns:
        groups named `weight` and `bias`, those that are not empty.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in trained if parameter.ndim > 1]
    biases = [parameter for parameter in trained if parameter.ndim <= 1]
    bias_decay = weight_decay if bias_weight_decay is None else bias_weight_decay
    groups = [
        {"name": "weight", "params": weights, "lr": lr, "weight_decay": weight_decay},
        {"name": "bias", "params": biases, "lr": lr * bias_lr_factor, "weight_decay": bias_decay},
    ]
    return [group for group in groups if group["params"]]


def sgd(
    module: nn.Module,
    lr: float,
    momentum: float = 0.99,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    bias_lr_factor: float = 1.0,
    bias_weight_decay: float | None = None,
) -> torch.optim.SGD:
    """Stochastic gradient descent with momentum (U-Net, section 3; FCN, section 4.3).

    torch keeps v = momentum v + g and subtracts lr v, Caffe keeps v = momentum v + lr g: the same while the rate is
    constant, as it is in both papers.
    """
    groups = parameter_groups(module, lr, weight_decay, bias_lr_factor, bias_weight_decay)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)


def adamw(
    module: nn.Module,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    bias_lr_factor: float = 1.0,
    bias_weight_decay: float | None = 0.0,
) -> torch.optim.AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019); biases and norms are not decayed."""
    groups = parameter_groups(module, lr, weight_decay, bias_lr_factor, bias_weight_decay)
    return torch.optim.AdamW(groups, lr=lr, betas=(betas[0], betas[1]), eps=eps)


def _warmed(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def constant(optimizer: torch.optim.Optimizer, total_steps: int, warmup_steps: int = 0) -> LambdaLR:
    """The given rate throughout, after a linear warm-up."""
    return LambdaLR(optimizer, lambda step: _warmed(step, warmup_steps))


def cosine(optimizer: torch.optim.Optimizer, total_steps: int, warmup_steps: int = 0, final: float = 0.0) -> LambdaLR:
    """Half a cosine from the given rate down to `final` times it, after a linear warm-up.

    Args:
        optimizer: whose rates are scheduled.
        total_steps: of the whole training.
        warmup_steps: steps over which the rate rises from 0.
        final: the last rate as a share of the given one.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return _warmed(step, warmup_steps)
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


Schedule = Callable[[torch.optim.Optimizer, int], LambdaLR]
"""`schedule(optimizer, total_steps)`."""
