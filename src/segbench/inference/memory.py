"""Whether a tile's feature maps fit into memory, checked before the system kills the process silently."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

PROBES = (64, 192)
"""Sides of two inputs, far enough apart that layers of stride 32 differ."""


def least_bytes_per_pixel(model: nn.Module, probe: Tensor | Mapping[str, Tensor]) -> float:
    """A lower bound of the memory of a forward pass, measured on a small input.

    Args:
        model: in eval mode.
        probe: BCHW, or by modality, as the model takes it.

    Returns:
        Bytes per input pixel of the layer with the largest input and output together.
    """
    first = probe if isinstance(probe, Tensor) else next(iter(probe.values()))
    return _largest_layer(model, probe) / (first.shape[-2] * first.shape[-1])


def extrapolated_bytes(
    model: nn.Module, probe: Callable[[int], Tensor | Mapping[str, Tensor]], height: int, width: int
) -> float:
    """A lower bound for networks with much padding (FCN: 100 pixels), from two small inputs.

    Feature maps of an input of side s grow as (s + p)^2; two sides give p and the factor.

    Args:
        model: in eval mode.
        probe: makes a square input of a given side, as the model takes it.
        height: of the image.
        width: of the image.

    Returns:
        Bytes of the layer with the largest input and output together.
    """
    small, large = (math.sqrt(_largest_layer(model, probe(side))) for side in PROBES)
    slope = (large - small) / (PROBES[1] - PROBES[0])
    start = small - slope * PROBES[0]
    return (slope * height + start) * (slope * width + start)


def _largest_layer(model: nn.Module, probe: Tensor | Mapping[str, Tensor]) -> int:
    largest = 0

    def weigh(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal largest
        largest = max(largest, sum(x.nbytes for x in (*inputs, output) if isinstance(x, Tensor)))

    layers = [layer for layer in model.modules() if not [*layer.children()]]
    hooks = [layer.register_forward_hook(weigh) for layer in layers]
    try:
        with torch.inference_mode():
            model(probe)
    finally:
        for hook in hooks:
            hook.remove()
    return largest


def free_bytes(
    meminfo: Path = Path("/proc/meminfo"),
    limit: Path = Path("/sys/fs/cgroup/memory.max"),
    used: Path = Path("/sys/fs/cgroup/memory.current"),
) -> float:
    """Main memory that this process may still allocate, in bytes; infinite if unknown.

    Args:
        meminfo: the kernel's figures.
        limit: of a container or batch job, if any.
        used: of that limit.
    """
    free = float("inf")
    if meminfo.exists():
        rows = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        if "MemAvailable" in rows:
            free = 1024.0 * int(rows["MemAvailable"].split()[0])
    if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
        free = min(free, float(limit.read_text()) - float(used.read_text()))
    return free
