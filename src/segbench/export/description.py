"""What a user of an exported file must know: how images become inputs, and what the outputs are."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from segbench import __version__
from segbench.config.record import Config
from segbench.prediction.coding import Coder
from segbench.spec import DatasetSpec, ModalitySpec, TileGeometry

KEY = "segbench"
"""The key of the description, a JSON document: in an ONNX file's metadata, and as `segbench.json` in a pt2 archive."""

SCHEMA = 1


def describe(
    config: Config,
    spec: DatasetSpec,
    geometry: TileGeometry,
    checkpoint: str,
    step: int,
    size: Sequence[int] | None,
    padded: bool = False,
) -> dict[str, Any]:
    """The description that goes into the file.

    Args:
        config: of the run.
        spec: of its data set.
        geometry: which sides the network takes, and those of its output.
        checkpoint: `best` or `last`.
        step: at which it was written.
        size: H and W, where they are fixed.
        padded: whether the graph brings images to valid sides itself.

    Returns:
        plain containers: `inputs` and `outputs` in the order of the file's, `geometry`, and whose network it is. An
        input is `(value - mean) / std`, BCHW float32; an output is class scores before softmax, BKhw float32, with
        h = H - 2 margin, and `masks` says by which value `segbench predict` writes each class.
    """
    return {
        "schema": SCHEMA,
        "segbench": __version__,
        "run": {"name": config.name, "model": config.model.target, "checkpoint": checkpoint, "step": step},
        "dataset": {"name": spec.name, "citation": spec.citation, "licence": spec.licence},
        "inputs": [
            {"name": name, **dataclasses.asdict(modality), "channel_order": channel_order(name, modality)}
            for name, modality in spec.modalities.items()
        ],
        "outputs": [
            {
                "name": name,
                "values": "class scores before softmax",
                "class_names": list(head.class_names),
                "palette": [list(colour) for colour in head.palette],
                "ignore_index": head.ignore_index,
                "masks": Coder(head, own=True).table(),
            }
            for name, head in spec.heads.items()
        ],
        "geometry": dataclasses.asdict(geometry),
        "size": None if size is None else list(size),
        "any_sides": padded or geometry == TileGeometry(context=geometry.context),
        "border": "images are continued by mirroring at their border pixels, by margin and up to a valid side",
    }


def channel_order(name: str, modality: ModalitySpec) -> str:
    """The order of a modality's channels; colours are R, G, B wherever they come from."""
    if name == "hha":
        return "HHA"
    return {1: "grey", 3: "RGB", 4: "RGBA"}.get(modality.channels, "as in the image files")
