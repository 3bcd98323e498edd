"""Initial weights: published ones, or those of a trained run; what was loaded is always logged."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from segbench.config.record import InitialWeights
from segbench.errors import SegbenchError
from segbench.models.published.load import WEIGHT_SETS, LoadReport, Published, load, load_own, transfer
from segbench.runs.directory import Run
from segbench.training.checkpoint import network_weights, read_checkpoint


def initialise(
    model: nn.Module,
    weights: InitialWeights | None,
    init_from: str | Mapping[str, str] | None = None,
    modalities: Collection[str] = ("rgb",),
    intended: str | None = None,
) -> list[str]:
    """Fill a freshly built network from published weights or trained runs.

    Args:
        model: the network.
        weights: published ones; of a network that reads its own (`Published`), the file alone, or nothing where its
            argument `pretrained` names them.
        init_from: a run directory, or one per modality (late fusion starts from trained single-modality nets). A run to
            start from has its weights already: `weights` are then what that run began with, and are read for
            other modalities only.
        modalities: of the data. Colours come as RGB here, so sets that were trained on BGR get their first filters
            reversed for colours; HHA stays as it is.
        intended: the weights that the paper started from.

    Returns:
        reports for the log on what was loaded, drawn and left over, and on deviations from the paper's initial weights.

    Raises:
        SegbenchError: weights that do not fit, an unknown set, no such file or run.
    """
    reports: list[LoadReport | str] = []
    runs: dict[str | None, str] = {}
    if init_from is not None:
        runs.update({None: init_from} if isinstance(init_from, str) else dict(init_from.items()))
    covered = None in runs or (bool(runs) and set(runs) >= set(modalities))
    published = weights is not None or getattr(model, "pretrained", None) is not None
    if published and not covered:
        reports.append(_published(model, weights or InitialWeights(), modalities))
    for stream, directory in runs.items():
        reports.append(transfer(model, _trained(directory), stream=stream, source=str(directory)))
    if not published and not covered:
        drawn = ", ".join(modality for modality in modalities if runs and modality not in runs)
        reports.append(f"weights: all drawn{drawn and f' for {drawn}'}")
    begun = None if weights is None else weights.name
    if intended is not None and begun != intended:
        reports.append(f"deviation: starts from {begun or 'drawn weights'}, the paper's network from {intended}")
    return [str(report) for report in reports]


def _published(model: nn.Module, weights: InitialWeights, modalities: Collection[str]) -> LoadReport:
    name, path = weights.name, weights.path
    if isinstance(model, Published) and name is None and (path or getattr(model, "pretrained", None)):
        return load_own(model, None if path is None else Path(path), tuple(weights.leave))
    if name is None or path is None:
        missing = [key for key, value in (("name", name), ("path", path)) if value is None]
        raise SegbenchError(
            f"weights without {' and '.join(missing)}",
            "the weight set's name and the file",
            "set weights.name=VGG_ILSVRC_16_layers weights.path=FILE, or weights=null to draw all weights",
        )
    known = WEIGHT_SETS.get(name)
    if known is not None and not Path(path).is_file():
        raise SegbenchError(
            f"no file {path} (weights.path), from which the network starts",
            f"{name}, published at {known.url}",
            "download it there and set weights.path=FILE; weights=null draws all weights, a deviation from the paper",
        )
    if known is not None and known.kind != "ImageNet" and known.inputs and set(known.inputs) != set(modalities):
        raise SegbenchError(
            f"weights {name} for images of {', '.join(modalities)}",
            f"images of {', '.join(known.inputs)}, which these weights were trained on",
            "choose data with these modalities, or other weights",
        )
    # Colours under any name; HHA and depth are not colours.
    colours = set(modalities) - {"hha", "depth"}
    order = "RGB" if known is not None and "rgb" in known.inputs and colours else None
    return load(model, name, Path(path), channel_order=order, leave=tuple(weights.leave))


def _trained(directory: str) -> Mapping[str, Any]:
    return network_weights(read_checkpoint(Run.open(directory).checkpoint()))
