"""segbench: experiments in semantic segmentation, from a config to a number that can be defended.

`compose`, `train`, `evaluate`, `load`, `compare` and `build` are the commands as functions; importing the package alone
loads none of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segbench.api import Prediction, Predictor, build, compose, load

__version__ = "0.1.0"
__all__ = ["Prediction", "Predictor", "__version__", "build", "compare", "compose", "evaluate", "load", "train"]

_CALLABLE = ("compare", "evaluate", "train")
"""Modules of these names can be called, as they are entry points (`python -m segbench.train`) or packages too."""


def __getattr__(name: str) -> Any:
    if name in _CALLABLE:
        return importlib.import_module(f"segbench.{name}")
    if name in __all__:
        return getattr(importlib.import_module("segbench.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
