"""The published U-Net: the speed of a training step, and the memory of a large image.

`python -m speed.unet` predicts only the large image and prints its time and peak memory as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from segbench.inference.stream import predict_image
from segbench.models.unet import UNet
from speed.timing import Benches, Row, best_of

_HERE = Path(__file__).resolve().parents[1]
LARGE = 8192
"""Side of the large image in pixels."""

MEMORY_LIMIT = 4 * 2**30
"""The most memory in bytes for predicting it, everything included."""


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself (AVX512-BF16, or AMX)."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def layout(fast: bool) -> torch.memory_format:
    """The memory format of ours, or of plain PyTorch."""
    return torch.channels_last if fast else torch.contiguous_format


def training_stepper(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    image_BCHW: torch.Tensor,
    target_BHW: torch.Tensor,
    reduction: str,
    fast: bool,
) -> Callable[[], None]:
    """One step of a network with cross-entropy: in bf16 and channels_last if `fast`, else plain."""
    model.to(memory_format=layout(fast))  # type: ignore[call-overload]
    given = image_BCHW.to(memory_format=layout(fast))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            loss = cross_entropy(model(given), target_BHW, reduction=reduction)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return step


def training_step() -> list[Row]:
    """One step of the published net (572x572, batch 1, SGD 0.99): bf16 and channels_last against plain PyTorch."""
    image_BCHW = torch.rand(1, 1, 572, 572)
    target_BHW = torch.randint(0, 2, (1, 388, 388))

    def stepper(fast: bool) -> Callable[[], None]:
        model = UNet()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.99)
        return training_stepper(model, optimizer, image_BCHW, target_BHW, "mean", fast)

    ours, plain = best_of(stepper(fast=True), stepper(fast=False))
    target = 1.7 if has_bfloat16() else 1.0
    return [
        Row(
            "published U-Net, training step, 572, bf16 + channels_last",
            ours,
            "plain fp32 contiguous",
            plain,
            f"at least {target} times",
            plain / ours >= target,
            f"{torch.get_num_threads()} threads, {'with' if has_bfloat16() else 'without'} bf16 in hardware",
        )
    ]


def large_in_memory() -> list[Row]:
    """Peak memory of a process that predicts a large image from memory into memory, with a U-Net of width 16."""
    command = [sys.executable, "-m", "speed.unet"]
    measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=_HERE).stdout)
    gib = measured["peak_bytes"] / 2**30
    return [
        Row(
            f"U-Net of width 16, {LARGE} x {LARGE} image",
            measured["seconds"],
            "",
            None,
            f"under {MEMORY_LIMIT / 2**30:.0f} GiB resident",
            measured["peak_bytes"] < MEMORY_LIMIT,
            f"peak {gib:.2f} GiB, image and result included",
        )
    ]


def peak_bytes() -> int:
    """Peak memory of this process so far."""
    # Not getrusage: through fork and exec, its maximum starts at the parent's.
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(rows["VmHWM"].split()[0])


def _predict_large_image() -> dict[str, float]:
    model = UNet(width=16).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = {"em": torch.rand(1, LARGE, LARGE)}
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
        predict_image(model, images, ["semantic"], channels_last=True)
    return {"seconds": time.perf_counter() - start, "peak_bytes": peak_bytes()}


BENCHES: Benches = {
    "unet_training_step": training_step,
    "large_in_memory": large_in_memory,
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(_predict_large_image()))
