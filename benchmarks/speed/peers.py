"""Our networks beside those of others in one run: training step, inference and large images.

MONAI's are measured where it is installed: `pip install -r benchmarks/peers.txt`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from segbench.inference.casts import kept_casts
from segbench.inference.stream import predict_image
from segbench.models.fcn import fcn8s
from segbench.models.unet import UNet
from speed.fcn import CLASSES
from speed.fcn import SIDE as FCN_SIDE
from speed.peer_networks import WIDTHS, PaddedFCN8s, PaddedUNet
from speed.timing import Benches, Row, best_of
from speed.unet import has_bfloat16, layout, training_stepper

SIDE, LARGE, TILE = 572, (2048, 4096), 512
REPEATS = 3
"""Of each way; a step of the slowest takes many seconds."""


@cache
def _monai() -> Any | None:
    if importlib.util.find_spec("monai"):
        return importlib.import_module("monai")
    print("MONAI is not installed, its rows are left out: pip install -r benchmarks/peers.txt", flush=True)
    return None


def _unets() -> dict[str, Callable[[], nn.Module]]:
    """Other U-Nets by name, each with the published widths."""
    others: dict[str, Callable[[], nn.Module]] = {"padded U-Net with batch norm, plain": lambda: PaddedUNet(1, 2)}
    if _monai() is not None:
        from monai.networks.nets import BasicUNet

        others["MONAI BasicUNet"] = lambda: BasicUNet(2, 1, 2, features=(*WIDTHS, WIDTHS[0]))
    return others


def _rows(what: str, named: list[str], best: list[float], targets: dict[str, float]) -> Iterator[Row]:
    note = f"{torch.get_num_threads()} threads, {'with' if has_bfloat16() else 'without'} bf16 in hardware"
    for name, seconds in zip(named, best[1:], strict=True):
        goal = targets.get(name.split(" ")[0], 1.0) if has_bfloat16() else 1.0
        yield Row(what, best[0], name, seconds, f"at least {goal} times", seconds / best[0] >= goal, note)


def _stepper(model: nn.Module, image_BCHW: torch.Tensor, side: int, classes: int, fast: bool) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-10, momentum=0.99)
    target_BHW = torch.randint(0, classes, (1, side, side))
    return training_stepper(model.train(), optimizer, image_BCHW, target_BHW, "mean", fast)


def _predictor(model: nn.Module, image_BCHW: torch.Tensor, fast: bool) -> Callable[[], None]:
    model = model.eval().to(memory_format=layout(fast))  # type: ignore[call-overload]
    given = image_BCHW.to(memory_format=layout(fast))

    def predict() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            model(given)

    return predict


def unet_step() -> Iterator[Row]:
    """A training step of the published U-Net on 572x572 in bf16, beside its own layers in plain fp32 and others'."""
    image_BCHW = torch.rand(1, 1, SIDE, SIDE)
    ways = {"its layers, plain fp32": _stepper(UNet(), image_BCHW, 388, 2, fast=False)}
    ways |= {name: _stepper(make(), image_BCHW, SIDE, 2, fast=False) for name, make in _unets().items()}
    best = best_of(_stepper(UNet(), image_BCHW, 388, 2, fast=True), *ways.values(), repeats=REPEATS)
    yield from _rows("published U-Net, training step, 572", list(ways), best, {"its": 2.3, "MONAI": 5.0})


def unet_inference() -> Iterator[Row]:
    """One image of 572x572 of many through the same networks: weights are cast once for all."""
    image_BCHW = torch.rand(1, 1, SIDE, SIDE)
    ways = {"its layers, plain fp32": _predictor(UNet(), image_BCHW, fast=False)}
    ways |= {name: _predictor(make(), image_BCHW, fast=False) for name, make in _unets().items()}
    with torch.no_grad(), kept_casts("cpu"):
        best = best_of(_predictor(UNet(), image_BCHW, fast=True), *ways.values(), repeats=REPEATS)
    yield from _rows("published U-Net, inference, 572", list(ways), best, {"its": 2.8, "MONAI": 5.5})


def fcn() -> Iterator[Row]:
    """FCN-8s, training step and inference on 500x500, beside the released layout in plain fp32."""
    image_BCHW = torch.randn(1, 3, FCN_SIDE, FCN_SIDE)
    name = "pad 100, crop, plain"

    def step(model: nn.Module, fast: bool) -> Callable[[], None]:
        return _stepper(model, image_BCHW, FCN_SIDE, CLASSES, fast)

    def predict(model: nn.Module, fast: bool) -> Callable[[], None]:
        return _predictor(model, image_BCHW, fast)

    for what, make, goal in (("training step", step, 3.3), ("inference", predict, 3.9)):
        with torch.set_grad_enabled(make is step), kept_casts("cpu") if make is predict else nullcontext():
            best = best_of(make(fcn8s(CLASSES), True), make(PaddedFCN8s(CLASSES), False), repeats=REPEATS)
        yield from _rows(f"FCN-8s, {what}, 500", [name], best, {"pad": goal})


def sliding_window() -> Iterator[Row]:
    """Large images through one padded U-Net of width 16: ours, exact, beside MONAI's blended windows."""
    if _monai() is None:
        return
    from monai.inferers import sliding_window_inference

    model = UNet(width=16, padding="same").eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(way: Callable[[], object]) -> Callable[[], None]:
        def timed() -> None:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
                way()

        return timed

    name = f"MONAI sliding window of {TILE}, a quarter overlap"
    for side in LARGE:
        image_CHW = torch.rand(1, side, side)
        ours = run(partial(predict_image, model, {"em": image_CHW}, ["semantic"], channels_last=True))
        theirs = run(partial(sliding_window_inference, image_CHW[None], TILE, 1, model, overlap=0.25))
        best = best_of(ours, theirs, repeats=REPEATS)
        yield from _rows(f"padded U-Net of width 16, {side}x{side}", [name], best, {})


BENCHES: Benches = {
    "peers_unet_step": unet_step,
    "peers_unet_inference": unet_inference,
    "peers_fcn": fcn,
    "peers_sliding_window": sliding_window,
}
