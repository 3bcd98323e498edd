"""Which layers are trained, optimisers with the papers' treatment of biases, and learning-rate schedules over steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from segbench.errors import SegbenchError

PER_LAYER = ("bias_lr_factor", "bias_weight_decay", "bias_layers")
"""Arguments of `parameter_groups` that may stand beside those of any optimiser."""


def freeze_others(module: nn.Module, train_only: Sequence[str]) -> tuple[list[str], list[str]]:
    """Freeze every layer but the named ones; a layer is a module that itself has parameters.

    Frozen layers take no gradient, so nothing is propagated below the first trained one. Norm layers among them keep
    their running statistics too.

    Args:
        module: the network.
        train_only: patterns of layer names, as in a shell: `score_*`.

    Returns:
        names of the layers that are trained, and of those that are not.

    Raises:
        SegbenchError: a pattern names no layer.
    """
    layers = {name: layer for name, layer in module.named_modules() if any(True for _ in layer.parameters(False))}
    trained = _matching(train_only, layers, "task.train_only")
    for name, layer in layers.items():
        if name not in trained:
            for parameter in layer.parameters(False):
                parameter.requires_grad_(False)
            if getattr(layer, "running_mean", None) is not None:
                layer.momentum = 0.0
    return trained, [name for name in layers if name not in trained]


def _matching(patterns: Sequence[str], layers: Iterable[str], key: str) -> list[str]:
    known = list(layers)
    if unmatched := [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in known)]:
        raise SegbenchError(
            f"{key}: no layer {', '.join(unmatched)}", f"patterns of {', '.join(known)}", f"correct {key}"
        )
    return [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]


def parameter_groups(
    module: nn.Module,
    lr: float,
    weight_decay: float,
    bias_lr_factor: float,
    bias_weight_decay: float | None,
    bias_layers: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Split parameters into weights and the rest (biases, scales and shifts of norms: all of one dimension).

    Args:
        module: its trained parameters are those that require a gradient.
        lr: of the weights.
        weight_decay: of the weights.
        bias_lr_factor: the biases' rate is `lr` times this (2 by Caffe's custom and in both FCN protocols).
        bias_weight_decay: of the biases; None = as the weights.
        bias_layers: patterns of the layers whose biases are treated so, other biases count as weights; None: all.

    Returns:
        the groups `weight` and `bias` that are not empty.

    Raises:
        SegbenchError: a pattern names no layer with a bias.
    """
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    owners = {name: name.rpartition(".")[0] for name, parameter in trained.items() if parameter.ndim <= 1}
    if bias_layers is not None:
        apart = _matching(bias_layers, dict.fromkeys(owners.values()), "optimizer.bias_layers")
        owners = {name: layer for name, layer in owners.items() if layer in apart}
    weights = [parameter for name, parameter in trained.items() if name not in owners]
    biases = [trained[name] for name in owners]
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
    bias_layers: Sequence[str] | None = None,
    fused: bool = True,
) -> torch.optim.SGD:
    """Stochastic gradient descent with momentum (U-Net, section 3; FCN, section 4.3).

    torch keeps v = momentum v + g and subtracts lr v, Caffe keeps v = momentum v + lr g: the same while the rate is
    constant, as it is in both papers. `fused`, where the device has it, is one pass over the weights.
    """
    groups = parameter_groups(module, lr, weight_decay, bias_lr_factor, bias_weight_decay, bias_layers)
    made = torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=_fused(groups, fused))
    made.register_step_pre_hook(_lay_out_alike)
    return made


def adamw(
    module: nn.Module,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    bias_lr_factor: float = 1.0,
    bias_weight_decay: float | None = 0.0,
    fused: bool = True,
) -> torch.optim.AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019); biases and norms are not decayed.

    `fused`, where the device has it, is one pass over the weights; its rounding differs.
    """
    groups = parameter_groups(module, lr, weight_decay, bias_lr_factor, bias_weight_decay)
    made = torch.optim.AdamW(groups, lr=lr, betas=(betas[0], betas[1]), eps=eps, fused=_fused(groups, fused))
    made.register_step_pre_hook(_lay_out_alike)
    return made


def _fused(groups: Sequence[dict[str, Any]], asked: bool) -> bool | None:
    parameters = [parameter for group in groups for parameter in group["params"]]
    able = all(each.is_floating_point() and each.device.type in ("cpu", "cuda") for each in parameters)
    # None, not False: torch then chooses as it does by itself.
    return True if asked and able else None


def _lay_out_alike(optimizer: torch.optim.Optimizer, *arguments: Any) -> None:
    """Give gradients and state the memory order of their weights.

    torch 2.13: on a CPU a fused step walks through all of them as if they had one, without a check. They have it but
    for a state that was saved in another order.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["fused"] else ():
            order = parameter.stride()
            if parameter.grad is not None and parameter.grad.stride() != order:
                parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)
            state = optimizer.state[parameter] if parameter in optimizer.state else {}
            for name, each in state.items():
                if isinstance(each, torch.Tensor) and each.shape == parameter.shape and each.stride() != order:
                    state[name] = torch.empty_like(parameter).copy_(each)


def _warmed(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def _falling(
    optimizer: torch.optim.Optimizer,
    total_steps: int,
    warmup_steps: int,
    final: float,
    curve: Callable[[float], float],
) -> LambdaLR:
    """A warm-up, then `curve(t)` from 1 to 0 over t from 0 to 1, scaled to end at `final`."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return _warmed(step, warmup_steps)
        return final + (1 - final) * curve(min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps)))

    return LambdaLR(optimizer, factor)


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
    return _falling(optimizer, total_steps, warmup_steps, final, lambda t: 0.5 * (1 + math.cos(math.pi * t)))


def poly(
    optimizer: torch.optim.Optimizer,
    total_steps: int,
    warmup_steps: int = 0,
    power: float = 0.9,
    final: float = 0.0,
) -> LambdaLR:
    """(1 - t)^power of the given rate, t from 0 to 1 over the steps after a linear warm-up, down to `final` times it.

    Caffe's policy `poly`, with the power of DeepLab (arXiv:1606.00915, section 4.1).

    Args:
        optimizer: whose rates are scheduled.
        total_steps: of the whole training.
        warmup_steps: steps over which the rate rises from 0.
        power: above 0; 1 falls in a straight line.
        final: the last rate as a share of the given one.

    Raises:
        SegbenchError: the power is 0 or less.
    """
    if not power > 0:
        raise SegbenchError(f"scheduler.power={power}", "a number above 0", "set scheduler.power=0.9")

    return _falling(optimizer, total_steps, warmup_steps, final, lambda t: math.pow(1 - t, power))


@dataclass(frozen=True)
class Scheduled:
    """A learning-rate schedule, and when it steps.

    Attributes:
        schedule: torch's.
        interval: `step` or `epoch`.
        frequency: of every how many.
        monitor: the score that it follows, after each validation; the two above do not matter then.
    """

    schedule: LRScheduler
    interval: str = "step"
    frequency: int = 1
    monitor: str | None = None


Schedule = Callable[[torch.optim.Optimizer, int], Scheduled | LRScheduler]
"""`schedule(optimizer, total_steps)`; a schedule alone steps every step."""
