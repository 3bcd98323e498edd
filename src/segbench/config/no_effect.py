"""Settings that change no score, each with its reason. Every other setting counts: new keys and users' own do too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

_ROUNDING = "the same sums in another order: scores differ by rounding at most"
_RECORD = "records or shows what happens"
_PLACE = "where the same files lie"

NO_EFFECT: Mapping[str, str] = {
    "name": "names the directory of a run",
    "seed": "draws one of many runs of a setting; runs of several seeds are averaged",
    "resume": "names the run that is continued",
    "from_environment": "names the variables behind other keys, whose values stand there",
    "from_packages": "names the packages that gave options, whose settings stand there",
    "trust": "names code that may be used, and uses none",
    "paper": "what a run is compared with",
    "logger": _RECORD,
    "optimized_metric": "the score by which a sweep compares its jobs",
    "threads": _ROUNDING,
    "task.channels_last": _ROUNDING,
    "task.compile": _ROUNDING,
    "runtime": "how long processes wait for each other; a run that ends by it reports nothing",
    "optimizer.fused": _ROUNDING,
    "trainer.deterministic": _ROUNDING,
    "trainer.benchmark": _ROUNDING,
    "data.num_workers": "samples are a function of seed, epoch and index, whoever loads them",
    "data.eval_batch_size": "images are predicted one by one, whatever batch they come in",
    "data.root": _PLACE,
    "weights.path": _PLACE,
    "loss.*weight_map.folder": _PLACE,
    "callbacks.checkpoint.every_n_train_steps": "how often a run can be resumed; nothing that is reported",
    "callbacks.checkpoint.every_n_minutes": "how often a run can be resumed; nothing that is reported",
    "trainer.default_root_dir": _PLACE,
    "trainer.log_every_n_steps": _RECORD,
    "trainer.enable_progress_bar": _RECORD,
    "trainer.enable_model_summary": _RECORD,
    "trainer.profiler": _RECORD,
    "trainer.detect_anomaly": "stops a run, and changes none that is not stopped",
    "trainer.num_sanity_val_steps": "a validation before training, whose scores are not kept",
}
"""Reasons by key or pattern; all keys below one are meant as well."""
_RECORDERS: Mapping[str, str] = {
    "segbench.training.callbacks.progress.RunProgress": _RECORD,
    "segbench.training.callbacks.curves.Curves": _RECORD,
    "segbench.training.callbacks.pictures.Panels": _RECORD,
    "segbench.training.callbacks.pictures.Inspect": _RECORD,
    "segbench.training.callbacks.energy.Energy": _RECORD,
    "segbench.training.callbacks.extremes.Extremes": _RECORD,
    "segbench.training.callbacks.guard.FiniteLoss": "stops a run, and changes none that is not stopped",
}
"""Reasons by callback class, whatever its key: another class under the same key may do anything."""
_AS_BEFORE = re.compile(
    r"tta_scales|input_scale|calibration|median|contours|data\.balance|data\.draw|data\.core|"
    r"(metrics\..*\.)?decoding\.core_class|loss\.(.*\.)?class_weights|augment\.pick"
)
"""Keys that older runs lack; null is what those did. A pick is a name of the transforms beside it."""
_TABLE = re.compile("|".join(re.escape(key).replace(r"\*", ".*") for key in NO_EFFECT))


_KNOWN_PACKAGES = ("segbench.", "lightning.", "torch.", "albumentations.")


def is_without_effect(key: str, settings: Mapping[str, Any]) -> bool:
    """Whether a setting changes no score.

    Args:
        key: dotted.
        settings: the flat view that it is from, which names the classes. What a class of others does is not known.
    """
    if _AS_BEFORE.fullmatch(key):
        return settings[key] is None or key == "augment.pick"
    if key == "trainer.allow_tf32":
        # A CPU has no TF32, and `auto` is told as what became of it.
        return settings.get("trainer.accelerator") not in ("gpu", "cuda") or settings[key] == "auto"
    if not key.startswith("callbacks."):
        return _in_table(key) and not _below_others(key, settings)
    name = ".".join(key.split(".")[:2])
    absent = key == name and settings[key] is None
    return absent or settings.get(f"{name}._target_") in _RECORDERS or _in_table(key)


def _below_others(key: str, settings: Mapping[str, Any]) -> bool:
    ends = (at for at, sign in enumerate(key) if sign == ".")
    classes = (settings.get(f"{key[:end]}._target_") for end in ends)
    return any(name is not None and not str(name).startswith(_KNOWN_PACKAGES) for name in classes)


@cache
def _in_table(key: str) -> bool:
    return any(_TABLE.fullmatch(key[:end]) for end in [*(at for at, sign in enumerate(key) if sign == "."), len(key)])


def counting(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that may change a score, of a flat view."""
    return {key: value for key, value in settings.items() if not is_without_effect(key, settings)}
