"""Metrics as pure functions of arrays, and the measures that the framework accumulates.

Modules load at first use: numba and OpenCV take most of a second. No module has the name of a function, which it would
hide.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segbench.metrics.boundary import BoundaryF1, boundary_f1
    from segbench.metrics.challenge import ChallengeScores, challenge_scores
    from segbench.metrics.confusion import Overlap, confusion_matrix
    from segbench.metrics.decoding import Decoding, decode_instances
    from segbench.metrics.error_picture import overlay
    from segbench.metrics.information import VInfo, VInfoScores, v_info
    from segbench.metrics.instances import InstanceOverlap, Seg, seg
    from segbench.metrics.measure import Counts, ImageResult, Measure
    from segbench.metrics.pixel import PixelError, pixel_error
    from segbench.metrics.rand import RandError, rand_error
    from segbench.metrics.region_overlap import Contingency, contingency
    from segbench.metrics.region_runs import regions
    from segbench.metrics.splits_and_merges import WarpingError, WarpingScores, warping_error
    from segbench.metrics.thinned_rand import VRand, VRandScores, v_rand
    from segbench.metrics.thinning import thin
    from segbench.metrics.threshold_baseline import ThresholdBaseline
    from segbench.metrics.thresholds import THRESHOLDS, WARPING_THRESHOLDS, FScores
    from segbench.metrics.warping import Warped, warp

_NAMES = {
    "boundary": "BoundaryF1 boundary_f1",
    "challenge": "ChallengeScores challenge_scores",
    "confusion": "Overlap confusion_matrix",
    "decoding": "Decoding decode_instances",
    "error_picture": "overlay",
    "information": "VInfo VInfoScores v_info",
    "instances": "InstanceOverlap Seg seg",
    "measure": "Counts ImageResult Measure",
    "pixel": "PixelError pixel_error",
    "rand": "RandError rand_error",
    "region_overlap": "Contingency contingency",
    "region_runs": "regions",
    "splits_and_merges": "WarpingError WarpingScores warping_error",
    "thinned_rand": "VRand VRandScores v_rand",
    "thinning": "thin",
    "threshold_baseline": "ThresholdBaseline",
    "thresholds": "THRESHOLDS WARPING_THRESHOLDS FScores",
    "warping": "Warped warp",
}
_MODULE = {name: module for module, names in _NAMES.items() for name in names.split()}

# fmt: off
__all__ = [
    "THRESHOLDS", "WARPING_THRESHOLDS", "BoundaryF1", "ChallengeScores", "Contingency", "Counts", "Decoding",
    "FScores", "ImageResult", "InstanceOverlap", "Measure", "Overlap", "PixelError", "RandError", "Seg",
    "ThresholdBaseline", "VInfo", "VInfoScores", "VRand", "VRandScores", "Warped", "WarpingError", "WarpingScores",
    "boundary_f1", "challenge_scores", "confusion_matrix", "contingency", "decode_instances", "overlay",
    "pixel_error", "rand_error", "regions", "seg", "thin", "v_info", "v_rand", "warp", "warping_error",
]
# fmt: on


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE[name]}"), name)
    globals()[name] = value
    return value
