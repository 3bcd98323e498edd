"""Overrides that name another class: its arguments need no plus sign, and what the replaced one took is left out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from segbench.config.flat import changed
from segbench.config.grammar import spread
from segbench.config.packaged import conf_root, read_yaml
from segbench.config.record import LOADER_KEYS, Augment, InitialWeights, Loss, Scheduler, Trainer
from segbench.config.trust import is_trusted, own
from segbench.errors import SegbenchError, say

AXES = (
    *("data", "augment", "model", "loss", "optimizer", "scheduler", "decoding"),
    *("trainer", "callbacks", "logger", "metrics"),
)
"""The parts of the config that name classes."""
_SEVERAL = ("callbacks", "logger", "metrics")
"""Those that hold several, each under a name."""
TRAINER = (
    *("barebones", "deterministic", "detect_anomaly", "devices", "enable_autolog_hparams", "enable_checkpointing"),
    *("enable_model_summary", "enable_progress_bar", "fast_dev_run", "gradient_clip_algorithm", "gradient_clip_val"),
    *("inference_mode", "limit_predict_batches", "limit_test_batches", "limit_train_batches", "limit_val_batches"),
    *("max_epochs", "max_time", "min_epochs", "min_steps", "model_registry", "num_sanity_val_steps", "overfit_batches"),
    *("plugins", "profiler", "reload_dataloaders_every_n_epochs", "accelerator", "accumulate_grad_batches"),
    *("benchmark", "check_val_every_n_epoch", "default_root_dir", "log_every_n_steps", "max_steps", "num_nodes"),
    *("precision", "strategy", "sync_batchnorm", "val_check_interval"),
)
"""The arguments of `lightning.Trainer` that a config may set; the others (`callbacks`, `logger` ...) are axes."""
APART: Mapping[str, frozenset[str]] = {
    "data": frozenset(LOADER_KEYS),
    "augment": Augment.apart,
    "loss": Loss.apart,
    "scheduler": Scheduler.apart,
    "trainer": Trainer.apart,
    "optimizer": frozenset(("bias_lr_factor", "bias_weight_decay", "bias_layers")),
}
"""Keys beside a class's arguments that hold for any class."""


def opened(overrides: Sequence[str]) -> list[str]:
    """Overrides as Hydra takes them: keys that a class of the user's own takes, or the Trainer, need no plus sign.

    Neither do those of `weights`, which is null unless an experiment starts from some.

    Raises:
        SegbenchError: a class for an axis of several that are named.
    """
    targets = _targets(overrides)
    for axis, target in targets:
        if axis in _SEVERAL:
            raise SegbenchError(
                f"{axis}._target_={target}",
                f"a name for it: {axis} holds several",
                f"write {axis}.NAME._target_={target}, with its arguments as {axis}.NAME.ARGUMENT=VALUE",
            )
    above = [each for each, _ in targets]
    return [f"++{each}" if _is_open(each.partition("=")[0], above) else each for each in overrides]


def _is_open(key: str, targets: Sequence[str]) -> bool:
    above, _, last = key.rpartition(".")
    if above == "weights":
        return last in InitialWeights.model_fields
    if key.partition(".")[0] not in AXES or "@" in key:
        return False
    if above == "trainer":
        return last in TRAINER and last not in _trainers_own()
    return last == "_target_" or (bool(above) and key in targets) or any(key.startswith(f"{each}.") for each in targets)


@cache
def _trainers_own() -> frozenset[str]:
    """The Trainer's arguments that its packaged config has."""
    return frozenset(read_yaml(conf_root() / "trainer" / "_base.yaml"))


def _targets(overrides: Sequence[str]) -> list[tuple[str, str]]:
    pairs = (each.lstrip("+").partition("=") for override in overrides for each in spread(override))
    return [(key.removesuffix("._target_"), value.strip("'\"")) for key, _, value in pairs if key.endswith("._target_")]


def without_leftovers(tree: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A config without the arguments that came with a class which the command line replaced.

    Args:
        tree: nested, plain containers.
        overrides: the command line's; what they name stays, and is refused later if nothing takes it.
    """
    given = [each.lstrip("+~").partition("=")[0] for override in overrides for each in spread(override)]
    config = dict(tree)
    for above, target in _targets(overrides):
        node: Any = config
        for name in above.split("."):
            node = node.get(name) if isinstance(node, Mapping) else None
        if not isinstance(node, Mapping) or node.get("_target_") != target:
            continue
        left = [name for name in _not_taken(target, node, above) if f"{above}.{name}" not in given]
        if left:
            _tell(f"{', '.join(f'{above}.{name}' for name in left)} left out: {target} does not take them")
            config = changed(config, {above: {name: value for name, value in node.items() if name not in left}})
    return config


def _not_taken(target: str, node: Mapping[str, Any], above: str) -> list[str]:
    from segbench.config.instances import located
    from segbench.config.signatures import hints_of

    with own(node):
        # One that a command read from a file names is not imported here.
        if not is_trusted(target):
            return []
        hints, takes_any = hints_of(located(target, above))
    apart = APART.get(above, frozenset())
    return [] if takes_any else [name for name in node if name not in hints and name not in apart and name[:1] != "_"]


@cache
def _tell(sentence: str) -> None:
    # Once a process: the jobs of a sweep are composed one by one.
    say(sentence, file=sys.stderr)
