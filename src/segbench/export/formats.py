"""The files: ONNX, and the archive of torch.export."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from segbench.errors import SegbenchError
from segbench.export.description import KEY
from segbench.export.network import quiet

Images = Mapping[str, NDArray[np.float32]]
"""BCHW by modality, normalised."""

Scores = dict[str, NDArray[np.float32]]
"""BKhw by head."""


class Format(Protocol):
    """How a file is written, and run without the network that it came from.

    Attributes:
        suffix: of its files.
        packages: that it needs beyond segbench's own; the extra `export` has them.
    """

    suffix: str
    packages: tuple[str, ...]

    def write(self, program: ExportedProgram, description: Mapping[str, Any], path: Path) -> None:
        """Write the file; `description` is that of `segbench.export.description`."""

    def open(self, path: Path) -> Callable[[Images], Scores]:
        """Read the file, and run it on a CPU."""


class Onnx:
    """One `.onnx` file, weights included; its inputs are named after the modalities, its outputs after the heads."""

    suffix: str = ".onnx"
    packages: tuple[str, ...] = ("onnx", "onnxscript", "onnxruntime")

    def write(self, program: ExportedProgram, description: Mapping[str, Any], path: Path) -> None:
        """As `Format.write`; the description is the metadata property `segbench`."""
        inputs, outputs = ([each["name"] for each in description[key]] for key in ("inputs", "outputs"))
        with quiet():
            made = torch.onnx.export(
                program, (), dynamo=True, input_names=inputs, output_names=outputs, verbose=False, external_data=False
            )
        assert made is not None
        _name_sides(made.model.graph.inputs, "", description)
        _name_sides(made.model.graph.outputs, "output_" if description["geometry"]["margin"] else "", description)
        made.model.metadata_props[KEY] = json.dumps(description)
        made.save(path, external_data=False)

    def open(self, path: Path) -> Callable[[Images], Scores]:
        """As `Format.open`, by onnxruntime."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return lambda images: dict(zip(names, session.run(names, dict(images)), strict=True))


def _name_sides(values: Iterable[Any], prefix: str, description: Mapping[str, Any]) -> None:
    # The exporter names them by formulas of its symbols.
    for value in values:
        value.shape[0] = "batch"
        if description["size"] is None:
            value.shape[2], value.shape[3] = (
                f"{prefix}{side}{_constraint(description)}" for side in ("height", "width")
            )


def _constraint(description: Mapping[str, Any]) -> str:
    """What a free side must be, as a part of its name, as ONNX has no other place for it."""
    step, offset = (description["geometry"][key] for key in ("step", "offset"))
    if description["any_sides"] or step == 1:
        return ""
    return f"_multiple_of_{step}" + (f"_plus_{offset}" if offset else "")


class Pt2:
    """The archive of `torch.export.save`: `torch.export.load(FILE).module()` maps images by modality to scores by head.

    The description is its extra file `segbench.json`.
    """

    suffix: str = ".pt2"
    packages: tuple[str, ...] = ()

    def write(self, program: ExportedProgram, description: Mapping[str, Any], path: Path) -> None:
        """As `Format.write`."""
        # In memory first: on a full disk torch's own writer ends the process.
        archive = io.BytesIO()
        with quiet():
            torch.export.save(program, archive, extra_files={f"{KEY}.json": json.dumps(description)})
        path.write_bytes(archive.getbuffer())

    def open(self, path: Path) -> Callable[[Images], Scores]:
        """As `Format.open`, by torch."""
        with quiet():
            module = torch.export.load(path).module()

        def run(images: Images) -> Scores:
            with torch.no_grad():
                scores = module({name: torch.from_numpy(image) for name, image in images.items()})
            return {head: score.numpy() for head, score in scores.items()}

        return run


FORMATS: Mapping[str, Format] = {"onnx": Onnx(), "pt2": Pt2()}


def format_named(name: str) -> Format:
    """The format.

    Raises:
        SegbenchError: an unknown name, or a package that it needs is not installed.
    """
    if name not in FORMATS:
        raise SegbenchError(f"format={name}", f"one of {', '.join(FORMATS)}", "set format=onnx or format=pt2")
    chosen = FORMATS[name]
    if missing := [package for package in chosen.packages if importlib.util.find_spec(package) is None]:
        raise SegbenchError(
            f"format={name} without {', '.join(missing)}",
            "the packages of the extra `export`",
            "pip install 'segbench[export]', or set format=pt2",
        )
    return chosen
