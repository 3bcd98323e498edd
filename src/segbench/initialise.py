"""What a network starts from: published weights, or a trained run; said in the log, never silently."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from segbench.checkpoint import network_weights, read_checkpoint
from segbench.errors import SegbenchError
from segbench.models.weights import load, transfer
from segbench.runs import Run


def initialise(model: nn.Module, config: Mapping[str, Any]) -> list[str]:
    """Fill a freshly built network as `config.weights` and `config.init_from` say.

    Args:
        model: the network.
        config: `weights` is null or `{name, path}` with `leave` (layer patterns) beside them; `init_from` is null, a
            run directory, or one a modality (late fusion starts from trained single-modality nets). A run to start from
            has its weights already: `weights` are then what that run began with, and are not read again.

    Returns:
        a report for the log on what was loaded, drawn and left over; where nothing is asked for, that all is drawn.

    Raises:
        SegbenchError: weights that do not fit, an unknown set, no such run.
    """
    reports = []
    source = config.get("init_from")
    if source is None and (weights := config.get("weights")) is not None:
        missing = [key for key in ("name", "path") if weights.get(key) is None]
        if missing:
            raise SegbenchError(
                f"weights without {' and '.join(missing)}",
                "the weight set's name and the file",
                "set weights.name=VGG_ILSVRC_16_layers weights.path=FILE",
            )
        # Colour images come as RGB here; sets that were trained on BGR get their first filters turned round.
        order = "RGB" if weights["name"] != "phseg_v5" else None
        leave = tuple(weights.get("leave") or ())
        reports.append(load(model, weights["name"], weights["path"], channel_order=order, leave=leave))
    if source is not None:
        runs = source if isinstance(source, Mapping) else {None: source}
        for stream, directory in runs.items():
            reports.append(transfer(model, _trained(directory), stream=stream, source=str(directory)))
    return [str(report) for report in reports] or ["weights: all drawn"]


def _trained(directory: str) -> Mapping[str, Any]:
    return network_weights(read_checkpoint(Run.open(directory).checkpoint()))
