"""What each precision means for a network: the type of its weights and inputs, and of autocast."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from segbench.errors import SegbenchError


@dataclass(frozen=True)
class Precision:
    """A precision, as Lightning's trainer computes in it.

    Attributes:
        weights: of the network, and so of its inputs.
        autocast: of single operations; None: all are of the weights' type.
    """

    weights: torch.dtype
    autocast: torch.dtype | None = None


_PRECISIONS = {
    "32-true": Precision(torch.float32),
    "64-true": Precision(torch.float64),
    "bf16-true": Precision(torch.bfloat16),
    "16-true": Precision(torch.float16),
    "bf16-mixed": Precision(torch.float32, torch.bfloat16),
    "16-mixed": Precision(torch.float32, torch.float16),
}
_ALSO = {"32": "32-true", "64": "64-true", "16": "16-mixed", "bf16": "bf16-mixed"}
"""Lightning's short names."""


def precision_named(name: object, device_type: str) -> Precision:
    """The precision of a name.

    Args:
        name: the value of `trainer.precision`; None is `32-true`, as in Lightning.
        device_type: `cpu` or `cuda`; as in Lightning, `16-mixed` is `bf16-mixed` on a CPU.

    Raises:
        SegbenchError: any other name; Lightning's `transformer-engine` has no layers for these networks.
    """
    name = "32-true" if name is None else _ALSO.get(str(name), str(name))
    if name not in _PRECISIONS:
        raise SegbenchError(
            f"trainer.precision={name}",
            f"one of {', '.join([*_PRECISIONS, *_ALSO])}, or auto",
            "correct trainer.precision=, or leave it out",
        )
    return _PRECISIONS["bf16-mixed" if (name, device_type) == ("16-mixed", "cpu") else name]


def round_to_tf32(allowed: bool | str | None) -> None:
    """Set whether GPUs round the factors of float32 products to TF32, in convolutions and matrix products.

    Args:
        allowed: None leaves it as it is: torch's own choice is to round in convolutions. So does `auto`.
    """
    if isinstance(allowed, bool):
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        torch.backends.cudnn.allow_tf32 = allowed


def algorithms(deterministic: bool | str, benchmark: bool | str | None) -> None:
    """Set torch's choice of algorithms as a Trainer does.

    Args:
        deterministic: True refuses operations without a deterministic form, `warn` tells of them.
        benchmark: whether cuDNN measures which is the fastest for each size; None and `auto` leave it as it is.
    """
    torch.use_deterministic_algorithms(bool(deterministic), warn_only=deterministic == "warn")
    if deterministic:
        # cuBLAS asks for it.
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    if isinstance(benchmark, bool):
        torch.backends.cudnn.benchmark = benchmark


@contextlib.contextmanager
def unmeasured() -> Iterator[None]:
    """While it lasts, cuDNN does not measure its algorithms, which takes a second or so for each size."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def tf32_kept() -> Callable[[], None]:
    """A function that sets TF32 back to what it is now."""
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    newer = matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision
    try:
        older = torch.get_float32_matmul_precision(), matmul.allow_tf32, cudnn.allow_tf32
    except RuntimeError:
        # The user has set it by torch's newer names, which the older ones do not read.
        older = None

    def back() -> None:
        if older is not None:
            torch.set_float32_matmul_precision(older[0])
            cudnn.allow_tf32 = older[2]
        for owner, value in zip((matmul, cudnn.conv, cudnn.rnn), newer, strict=True):
            if owner.fp32_precision != value:
                owner.fp32_precision = value

    return back


@contextlib.contextmanager
def computing_in(precision: Precision, network: nn.Module, device_type: str) -> Iterator[None]:
    """The network's weights converted in place, and autocast while the context lasts.

    Args:
        precision: to compute in.
        network: whose inputs `segbench.inference.forward` converts as well.
        device_type: `cpu` or `cuda`.
    """
    network.to(precision.weights)
    with torch.autocast(device_type, precision.autocast, enabled=precision.autocast is not None):
        yield
