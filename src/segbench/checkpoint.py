"""Reading checkpoints: plain containers and tensors, never code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segbench.errors import SegbenchError


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, plain containers and tensors only.

    Raises:
        SegbenchError: the file is damaged.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SegbenchError(
            f"{path} cannot be read: {error}", "a whole checkpoint of segbench", "use another with checkpoint=best|last"
        ) from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "global_step"} <= checkpoint.keys():
        raise SegbenchError(
            f"{path} holds no state_dict with its global_step", "a checkpoint of segbench", "use a run's own checkpoint"
        )
    return checkpoint


def network_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The network's state dict in a checkpoint, the averaged weights where it has them."""
    if checkpoint.get("averaged_model"):
        return dict(checkpoint["averaged_model"])
    state: Mapping[str, Tensor] = checkpoint["state_dict"]
    return {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}


def load_weights(model: nn.Module, path: Path) -> int:
    """Fill a network from a checkpoint, with the averaged weights where it has them.

    Returns:
        the step at which it was written.

    Raises:
        SegbenchError: the file is damaged, or of another network.
    """
    checkpoint = read_checkpoint(path)
    weights = network_weights(checkpoint)
    expected = model.state_dict()
    differing = [
        name
        for name in sorted(expected.keys() | weights.keys())
        if name not in weights or name not in expected or weights[name].shape != expected[name].shape
    ]
    if differing:
        raise SegbenchError(
            f"{path}: {len(differing)} weights do not fit the network, first {', '.join(differing[:4])}",
            "a checkpoint of the same model config",
            "use the checkpoint's own run: run=RUN",
        )
    model.load_state_dict(weights)
    return int(checkpoint["global_step"])
