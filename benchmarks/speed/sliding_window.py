"""A slice of 512x512 pixels through the sliding-window network, in both ways, and through U-Net."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import nn

from segbench.inference.stream import predict_image
from segbench.models.sliding_window import SlidingWindow
from segbench.models.unet import UNet
from speed.timing import Benches, Row, best_of
from speed.unet import has_bfloat16

SIDE = 512
"""Of a slice of ISBI EM."""
_WINDOWS = 64
"""Pixels along each axis of the part that goes window by window; a slice has 64 times as many."""


def multiplications(model: nn.Module, side: int) -> int:
    """Multiplications of the convolutions for an input of this side; nothing is computed."""
    total = 0

    def count(layer: nn.Module, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> None:
        nonlocal total
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        # Each input pixel of an up-convolution meets every tap, each output pixel of a convolution does.
        pixels = given[0] if isinstance(layer, nn.ConvTranspose2d) else made
        total += weight.numel() * math.prod(pixels.shape[2:])

    model = model.to("meta").eval()
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    model(torch.empty(1, 1, side, side, device="meta"))
    for hook in hooks:
        hook.remove()
    return total


def counted() -> dict[str, int]:
    """Multiplications for a slice, by the way it is predicted."""
    network, unet = SlidingWindow(), UNet()
    return {
        "a window at every pixel": SIDE**2 * multiplications(network, network.field),
        "at once": multiplications(network, network.geometry.input_for(SIDE)),
        "U-Net": multiplications(unet, unet.geometry.input_for(SIDE)),
    }


def _predicting(model: nn.Module, side: int, tile: int | None = None) -> Callable[[], None]:
    model = model.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    image = {"em": torch.randn(1, side, side)}

    def predict() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
            predict_image(model, image, ["semantic"], tile=tile, channels_last=True)

    return predict


def sliding_window_slice() -> list[Row]:
    """A slice through the sliding-window network: a window at every pixel, at once, and U-Net beside it."""
    at_once, unet = best_of(_predicting(SlidingWindow(), SIDE), _predicting(UNet(), SIDE), repeats=3)
    windows = _predicting(SlidingWindow(), _WINDOWS, tile=1)
    began = time.perf_counter()
    windows()
    every = (time.perf_counter() - began) * (SIDE / _WINDOWS) ** 2
    operations = counted()
    ratio = operations["a window at every pixel"] / operations["at once"]
    return [
        Row(
            *("sliding window, a slice at once", at_once, "a window at every pixel", every, "100 times as fast"),
            every / at_once > 100,
            f"{ratio:.0f} times fewer multiplications; the reference is {_WINDOWS}x{_WINDOWS} pixels, extrapolated",
        ),
        Row(
            *("U-Net, a slice", unet, "sliding window, at once", at_once, "reported"),
            True,
            f"{operations['U-Net'] / operations['at once']:.1f} times the multiplications",
        ),
    ]


BENCHES: Benches = {"sliding_window_slice": sliding_window_slice}
