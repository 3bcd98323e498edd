"""The networks, imported on first use so that naming one does not load the others."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "UNet": "segbench.models.unet",
    "UNetVGG16": "segbench.models.unet_vgg16",
    "SlidingWindow": "segbench.models.sliding_window",
    "SMP": "segbench.models.smp",
    "TimmUNet": "segbench.models.timm_unet",
    "HF": "segbench.models.hf",
    "FCNResNet": "segbench.models.fcn_resnet",
    "FCN": "segbench.models.fcn",
    "fcn32s": "segbench.models.fcn",
    "fcn16s": "segbench.models.fcn",
    "fcn8s": "segbench.models.fcn",
    "fcn8s_at_once": "segbench.models.fcn",
    "fcn_alexnet": "segbench.models.fcn",
    "fcn_googlenet": "segbench.models.fcn",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(_HOME)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
