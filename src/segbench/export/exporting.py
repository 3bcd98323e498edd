"""A run's network as one file, checked against the run's own output."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from segbench.config.requests import ExportRequest
from segbench.config.trust import names_in, refuse_untrusted, trusting
from segbench.errors import SegbenchError, say
from segbench.runtime.files import partial_name
from segbench.runtime.frameworks import import_frameworks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from segbench.config.record import Config
    from segbench.export.formats import Format
    from segbench.export.network import AnySides, ByName
    from segbench.spec import DatasetSpec, TileGeometry


SIDES = ((1, 1), (33, 70), (97, 64))
"""Heights and widths of output that a file with free sides is checked at, each brought to the next valid one."""


def export(given: ExportRequest) -> Path:
    """Write `run`'s network to a file, and keep it if its scores are the network's.

    Args:
        given: what is asked for.

    Returns:
        the file.

    Raises:
        SegbenchError: an unknown format, a missing package, a run without a checkpoint, an existing
            output, a network that cannot be exported, or a file that does not compute what the network does.
    """
    import_frameworks()
    from segbench.experiment.build import build_dataset_spec, build_model
    from segbench.experiment.ensemble import joined, left_out, members_of
    from segbench.export.description import describe
    from segbench.export.formats import format_named
    from segbench.export.network import AnySides, ByName, first_line, takes_any_sides, trace
    from segbench.inference.forward import geometry_of
    from segbench.runs.directory import Run, not_writable
    from segbench.spec import TileGeometry
    from segbench.training.checkpoint import load_weights

    chosen = format_named(str(given.format))
    run = Run.open(given.run)
    checkpoint = run.checkpoint(given.checkpoint)
    output = run.path / f"model{chosen.suffix}" if given.output is None else Path(given.output)
    _check_output(output, chosen)
    config, spec = run.config(), build_dataset_spec(run)
    with trusting(names_in(given.trust)):
        refuse_untrusted(config.tree["model"])
        model = build_model(config.model, spec)
        members = members_of(given.ensemble, checkpoint, spec)
    step = load_weights(model, checkpoint)
    model = joined(model, spec, members)
    geometry = geometry_of(model)
    size = _fixed(given.size, geometry)
    # Dropout off and float32, whatever the run was trained in.
    by_name = ByName(model, spec).eval().float()
    network: ByName | AnySides = by_name
    inside = geometry
    if size is None and takes_any_sides(geometry):
        network, inside = AnySides(by_name, geometry.step), TileGeometry()
    say(f"{checkpoint} of step {step}: {type(model).__name__}", file=sys.stderr)
    for sentence in (*(f"beside it {each.checkpoint}" for each in members), *left_out(members, config)):
        say(sentence, file=sys.stderr)
    for sentence in (
        *(_sides(geometry, size, inside is not geometry), _precision(str(config.trainer.precision))),
        *_left_out(config),
    ):
        say(sentence, file=sys.stderr)
    example = next(_images(spec, inside, size, SIDES[1:]))
    program = trace(network, example, inside, size)
    description = describe(config, spec, geometry, checkpoint.stem, step, size, inside is not geometry)
    if members:
        description["ensemble"] = [
            {"name": each.config.name, "model": each.config.model.target, "checkpoint": each.checkpoint.stem}
            for each in members
        ]
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        # In a folder of its own beside it.
        folder = partial_name(output)
        folder.mkdir()
        try:
            partial = folder / output.name
            chosen.write(program, description, partial)
            _check(chosen, partial, network, _images(spec, inside, size, SIDES), float(given.tolerance))
            os.replace(partial, output)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except SegbenchError:
        raise
    except OSError as error:
        raise not_writable(output, error) from error
    except Exception as error:
        raise SegbenchError(
            f"{type(model).__name__} cannot be written as {given.format}: {first_line(error)}",
            "a network of operations that the format and its runtime support, as all of segbench's own are",
            ("" if size is not None else "fix the sides, e.g. size=[512,512]; or ")
            + "set another format=, or change the model",
        ) from error
    return output


def _sides(geometry: TileGeometry, size: tuple[int, int] | None, padded: bool) -> str:
    """Which sides the file takes, and what comes out, as a sentence."""
    if size is not None:
        taken = f"{size[0]} x {size[1]} pixels only (size=)"
    elif padded:
        taken = f"any, from 1 pixel; the graph mirrors them up to multiples of {geometry.step}, and cuts the scores"
    elif geometry.step == 1 and geometry.offset == 0:
        taken = "any"
    else:
        least = geometry.offset + geometry.step * geometry.minimum
        taken = f"from {least} in steps of {geometry.step}"
    smaller = f"; scores are of {2 * geometry.margin} pixels less" if geometry.margin else ""
    return f"height and width: {taken}{smaller}"


def _precision(precision: str) -> str:
    told = "precision: the file computes in float32"
    if precision in ("32-true", "64-true"):
        return told
    return f"{told}; segbench predict computes in {precision}, as the run, and may differ in the last digits"


def _left_out(config: Config) -> list[str]:
    """What the run does with the network's probabilities that the file does not, as a sentence."""
    keys = ("tta", "input_scale", "calibration", "median", "contours")
    asked = [f"{key}={value}" for key in keys if (value := getattr(config, key)) not in (None, "none")]
    return [f"the file is the network alone; segbench predict goes on with {', '.join(asked)}"] if asked else []


def _check_output(output: Path, chosen: Format) -> None:
    if output.exists():
        raise SegbenchError(f"{output} exists already", "a new file", "choose another output=, or remove it")
    if output.suffix != chosen.suffix:
        raise SegbenchError(
            f"output={output}", f"a file {chosen.suffix}", f"set output={output.with_suffix(chosen.suffix)}"
        )


def _fixed(size: object, geometry: TileGeometry) -> tuple[int, int] | None:
    if size is None:
        return None
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size)):
        raise SegbenchError(f"size={size}", "[H, W] in pixels, or null", "set size=[512,512]")
    height, width = size
    for side in (height, width):
        geometry.output_size(side, "size")
    return height, width


def _images(
    spec: DatasetSpec, geometry: TileGeometry, size: tuple[int, int] | None, outputs: Sequence[tuple[int, int]]
) -> Iterator[dict[str, Tensor]]:
    """Batches of noise as wide as the modalities' values, of the fixed size, or by the sides of the output."""
    import torch

    generator = torch.Generator().manual_seed(0)
    for batch, sides in enumerate(outputs, 1):
        height, width = size or (geometry.input_for(side) for side in sides)
        images = {}
        for name, modality in spec.modalities.items():
            shape = (batch + 1, modality.channels, height, width)
            images[name] = torch.randn(shape, generator=generator)
            if "0 to 255" in modality.unit:
                mean_C11, std_C11 = (torch.tensor(x)[:, None, None] for x in (modality.mean, modality.std))
                images[name] = (255 * torch.rand(shape, generator=generator) - mean_C11) / std_C11
        yield images


def _check(
    chosen: Format, path: Path, network: ByName | AnySides, batches: Iterator[dict[str, Tensor]], tolerance: float
) -> None:
    import numpy as np
    import torch

    run = chosen.open(path)
    for images in batches:
        with torch.no_grad():
            expected = {head: scores.numpy() for head, scores in network(images).items()}
        found = run({name: image.numpy() for name, image in images.items()})
        for head, scores_BKhw in expected.items():
            batch, _, height, width = next(iter(images.values())).shape
            where = f"{head}, {batch} images of {height} x {width}"
            if found[head].shape != scores_BKhw.shape:
                raise _differs(where, f"of shape {found[head].shape} for {scores_BKhw.shape}")
            largest = float(np.abs(scores_BKhw).max())
            difference = float(np.abs(found[head] - scores_BKhw).max())
            line = f"{where}: maximum difference {difference:.1e} at scores up to {largest:.3g}"
            say(line, file=sys.stderr)
            # Negated, so that NaN fails.
            if not difference <= tolerance * max(1.0, largest):
                raise _differs(where, f"off by up to {difference:.1e} at scores up to {largest:.3g}")


def _differs(where: str, how: str) -> SegbenchError:
    return SegbenchError(
        f"the exported file's scores ({where}) are {how}",
        "those of the run's network, within tolerance",
        "raise tolerance= if that is accurate enough, or set another format=; no file is kept",
    )
