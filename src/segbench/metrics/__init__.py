"""Metrics as pure functions of arrays, and the measures that the framework accumulates.

The modules load at first use: numba and OpenCV take most of a second. No module bears the name of a function, which it
would hide.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segbench.metrics.confusion import Overlap, confusion_matrix
    from segbench.metrics.measure import Counts, ImageResult, Measure
    from segbench.metrics.pixel import PixelError, pixel_error
    from segbench.metrics.rand import RandError, rand_error
    from segbench.metrics.region_overlap import Contingency, contingency, regions
    from segbench.metrics.threshold_baseline import ThresholdBaseline
    from segbench.metrics.thresholds import THRESHOLDS, WARPING_THRESHOLDS, FScores

_MODULE = {
    "Overlap": "confusion",
    "confusion_matrix": "confusion",
    "Contingency": "region_overlap",
    "contingency": "region_overlap",
    "regions": "region_overlap",
    "Counts": "measure",
    "ImageResult": "measure",
    "Measure": "measure",
    "PixelError": "pixel",
    "pixel_error": "pixel",
    "RandError": "rand",
    "rand_error": "rand",
    "ThresholdBaseline": "threshold_baseline",
    "THRESHOLDS": "thresholds",
    "WARPING_THRESHOLDS": "thresholds",
    "FScores": "thresholds",
}

__all__ = [
    "THRESHOLDS",
    "WARPING_THRESHOLDS",
    "Contingency",
    "Counts",
    "FScores",
    "ImageResult",
    "Measure",
    "Overlap",
    "PixelError",
    "RandError",
    "ThresholdBaseline",
    "confusion_matrix",
    "contingency",
    "pixel_error",
    "rand_error",
    "regions",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE[name]}"), name)
    globals()[name] = value
    return value
