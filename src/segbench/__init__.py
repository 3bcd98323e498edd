"""segbench: experiments in semantic segmentation, from a config to a number that can be defended.

`compose`, `train`, `evaluate`, `load`, `compare` and `build` are the commands as functions; importing the package alone
loads none of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segbench.api import build, compose, load
    from segbench.experiment.predictor import Prediction, Predictor

__version__ = "0.2.0"
__all__ = ["Prediction", "Predictor", "__version__", "build", "compare", "compose", "evaluate", "load", "train"]

_CALLABLE = ("compare", "evaluate", "train")
"""Modules of these names can be called, as they are entry points (`python -m segbench.train`) or packages too."""
_MADE = ("Prediction", "Predictor")
"""What `load` gives, and what that gives."""


def __getattr__(name: str) -> Any:
    if name in _CALLABLE:
        return importlib.import_module(f"segbench.{name}")
    if name in __all__:
        # The first import of this refuses a torchvision that is broken.
        api = importlib.import_module("segbench.api")
        made = importlib.import_module("segbench.experiment.predictor") if name in _MADE else api
        return getattr(made, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
