"""FCN-8s at the size of the paper's timings (500x500, batch 1): bf16 and channels_last against plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from segbench.inference.casts import kept_casts
from segbench.models.fcn import FCN, fcn8s
from speed.timing import Benches, Row, best_of
from speed.unet import has_bfloat16, layout, training_stepper

SIDE = 500
CLASSES = 21
SPEED_UP = 1.6
"""The target of both figures on processors with bfloat16; elsewhere, not to be slower."""


def _net(fast: bool) -> FCN:
    model = fcn8s(CLASSES)
    if not fast:
        # Plain PyTorch has no `MatrixConv2d`.
        model.fc6 = nn.Conv2d(512, 4096, 7)
    for name, parameter in model.named_parameters():
        # Score layers start at zero, and would propagate only zeros.
        if name.startswith("score") and parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.01)
    return model.to(memory_format=layout(fast))  # type: ignore[call-overload, no-any-return]


def _row(what: str, ours: float, plain: float) -> Row:
    target = SPEED_UP if has_bfloat16() else 1.0
    threads = torch.get_num_threads()
    return Row(
        name=f"FCN-8s, {what}, {SIDE}x{SIDE}, batch 1, bf16 + channels_last",
        seconds=ours,
        reference="plain fp32 contiguous",
        reference_seconds=plain,
        target=f"at least {target} times",
        met=plain / ours >= target,
        note=f"{threads} thread{'s'[: threads > 1]}, {'with' if has_bfloat16() else 'without'} bf16 in hardware",
    )


def training_step() -> list[Row]:
    """One step as released: summed loss, SGD with momentum 0.99, dropout."""
    image_BCHW = torch.randn(1, 3, SIDE, SIDE)
    target_BHW = torch.randint(0, CLASSES, (1, SIDE, SIDE))

    def stepper(fast: bool) -> Callable[[], None]:
        model = _net(fast).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-14, momentum=0.99, weight_decay=5e-4)
        return training_stepper(model, optimizer, image_BCHW, target_BHW, "sum", fast)

    ours, plain = best_of(stepper(fast=True), stepper(fast=False))
    return [_row("training step", ours, plain)]


def inference() -> list[Row]:
    """The scores of one image of many: weights are cast once for all."""
    image_BCHW = torch.randn(1, 3, SIDE, SIDE)

    def predictor(fast: bool) -> Callable[[], None]:
        model = _net(fast).eval()
        given = image_BCHW.to(memory_format=layout(fast))

        def predict() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=fast):
                model(given)

        return predict

    with torch.no_grad(), kept_casts("cpu"):
        ours, plain = best_of(predictor(fast=True), predictor(fast=False))
    return [_row("inference", ours, plain)]


BENCHES: Benches = {
    "fcn_training_step": training_step,
    "fcn_inference": inference,
}
