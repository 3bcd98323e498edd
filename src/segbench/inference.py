"""Prediction of images of any size: overlap tiles with mirrored context (U-Net paper, section 2 and figure 2).

There is one path: tiles are read, predicted and yielded one at a time (`predict_windows`); `predict_image` collects
them. One tile is one forward, so no result depends on how many images or tiles travel together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segbench.errors import SegbenchError
from segbench.spec import TileGeometry
from segbench.symmetries import Symmetry, symmetries
from segbench.tile_memory import free_bytes, least_bytes_per_pixel
from segbench.tiling import Span, mirrored, plan

Read = Callable[[int, int, int, int], Mapping[str, Tensor | NDArray[Any]]]
"""`read(y0, y1, x0, x1)`: rows y0 to y1 and columns x0 to x1 (exclusive) of each modality, CHW, normalised."""

WHOLE_PIXELS = 2**21
"""Without `tile=`, an image whose network input has at most this many pixels goes through in one piece."""

DEFAULT_TILE = 1024
"""The output side for larger ones: the context then costs 40 % of the published U-Net's work."""


def predict_image(
    model: nn.Module,
    images: Mapping[str, Tensor],
    heads: Sequence[str],
    *,
    tile: int | None = None,
    tta: str = "none",
    channels_last: bool = False,
) -> dict[str, Tensor]:
    """Class probabilities of every pixel of an image.

    Args:
        model: in eval mode; takes BCHW, or a mapping of them where there are several modalities.
        images: CHW float32 by modality, all of one size, normalised.
        heads: the names of the model's heads.
        tile: the largest output side of a tile in pixels; without it the image goes through in one piece up to
            `WHOLE_PIXELS`, in tiles of `DEFAULT_TILE` beyond. The result does not depend on it, see `tiling.plan`.
        tta: the symmetries averaged over, `none`, `rot4` or `d4`, see `symmetries`.
        channels_last: hand the network its input in this memory format.

    Returns:
        KHW float32 by head, summing to 1 over K, on the model's device.

    Raises:
        SegbenchError: as `predict_windows`.
    """
    height, width = next(iter(images.values())).shape[-2:]

    def read(y0: int, y1: int, x0: int, x1: int) -> Mapping[str, Tensor]:
        return {name: image_CHW[:, y0:y1, x0:x1] for name, image_CHW in images.items()}

    windows = predict_windows(model, read, (height, width), heads, tile=tile, tta=tta, channels_last=channels_last)
    whole: dict[str, Tensor] = {}
    for y, x, window in windows:
        for head, probabilities_Khw in window.items():
            if head not in whole:
                whole[head] = probabilities_Khw.new_empty(probabilities_Khw.shape[0], height, width)
            h, w = probabilities_Khw.shape[-2:]
            whole[head][:, y : y + h, x : x + w] = probabilities_Khw
    return whole


def predict_windows(
    model: nn.Module,
    read: Read,
    size: tuple[int, int],
    heads: Sequence[str],
    *,
    tile: int | None = None,
    tta: str = "none",
    channels_last: bool = False,
) -> Iterator[tuple[int, int, dict[str, Tensor]]]:
    """Class probabilities window by window: memory is bounded by the tile, not by the image.

    Runs under `torch.inference_mode()` and under whatever autocast the caller has set; softmax is taken in float32.

    Args:
        model: as in `predict_image`.
        read: gives a part of the image; never asked for more than a tile with its context.
        size: (H, W) of the image.
        heads: the names of the model's heads.
        tile: as in `predict_image`.
        tta: as in `predict_image`.
        channels_last: as in `predict_image`.

    Returns:
        An iterator of (y, x, {head: Khw float32}), y and x being the window's upper left pixel; the windows cover each
        pixel once, row by row.

    Raises:
        SegbenchError: the model is in training mode; tta or tile is wrong; memory does not suffice for a tile; and,
            while iterating, an output that contradicts the model's heads or geometry.
    """
    if model.training:
        raise SegbenchError("prediction by a model in training mode", "eval mode", "call model.eval() before")
    height, width = size
    if height < 1 or width < 1:
        raise SegbenchError(f"an image of {height} x {width} pixels", "at least one pixel", "check the image file")
    geometry = geometry_of(model)
    if tile is None and geometry != TileGeometry():
        pixels = geometry.input_for(height) * geometry.input_for(width)
        tile = DEFAULT_TILE if pixels > WHOLE_PIXELS else None
    tiles = [(row, column) for row in plan(height, geometry, tile) for column in plan(width, geometry, tile)]
    predictor = _TilePredictor(model, tuple(heads), geometry, symmetries(tta), channels_last)
    return _windows(predictor, read, size, tiles)


def _windows(
    predictor: _TilePredictor, read: Read, size: tuple[int, int], tiles: Sequence[tuple[Span, Span]]
) -> Iterator[tuple[int, int, dict[str, Tensor]]]:
    margin = predictor.geometry.margin
    for position, (row, column) in enumerate(tiles):
        images = _read_mirrored(read, row, column, size)
        if position == 0:
            predictor.refuse_too_large(images)
        maps = predictor(images)
        yield (
            row.start,
            column.start,
            {head: maps_KHW[:, row.answer(margin), column.answer(margin)] for head, maps_KHW in maps.items()},
        )


def _read_mirrored(read: Read, row: Span, column: Span, size: tuple[int, int]) -> dict[str, Tensor]:
    ys = mirrored(row.read_from, row.read_from + row.read_size, size[0])
    xs = mirrored(column.read_from, column.read_from + column.read_size, size[1])
    y0, x0 = int(ys.min()), int(xs.min())
    part = read(y0, int(ys.max()) + 1, x0, int(xs.max()) + 1)

    def continued(part_CHW: Tensor | NDArray[Any]) -> Tensor:
        image_CHW = torch.as_tensor(part_CHW)
        for dim, indices in ((-2, ys - y0), (-1, xs - x0)):
            if not np.array_equal(indices, np.arange(image_CHW.shape[dim])):
                image_CHW = image_CHW.index_select(dim, torch.from_numpy(indices).to(image_CHW.device))
        return image_CHW

    return {name: continued(part_CHW) for name, part_CHW in part.items()}


class _TilePredictor:
    """Probabilities of one tile, averaged over symmetries."""

    def __init__(
        self,
        model: nn.Module,
        heads: tuple[str, ...],
        geometry: TileGeometry,
        transforms: Sequence[Symmetry],
        channels_last: bool,
    ) -> None:
        self.model, self.heads, self.geometry, self.transforms = model, heads, geometry, transforms
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        parameter = next(model.parameters(), None)
        self.device = None if parameter is None else parameter.device

    @torch.inference_mode()
    def __call__(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """KHW float32 by head of a tile, CHW by modality; one forward a symmetry."""
        images = {name: image_CHW.to(device=self.device) for name, image_CHW in images.items()}
        given = tuple(next(iter(images.values())).shape[-2:])
        expected = tuple(side - 2 * self.geometry.margin for side in given)
        mean: dict[str, Tensor] = {}
        try:
            for symmetry in self.transforms:
                for head, logits_BKHW in as_heads(self.model(self._input(images, symmetry)), self.heads).items():
                    probabilities_KHW = symmetry.undo(logits_BKHW[0].float().softmax(dim=0))
                    if tuple(probabilities_KHW.shape[-2:]) != expected:
                        raise SegbenchError(
                            f"the network makes {tuple(probabilities_KHW.shape[-2:])} of {given} pixels",
                            f"{expected}, as its geometry says",
                            "correct the model's attribute geometry (segbench.spec.TileGeometry)",
                        )
                    mean[head] = mean[head].add_(probabilities_KHW) if head in mean else probabilities_KHW
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            raise self._no_memory(images, "its memory ran out") from error
        return {head: sum_KHW.div_(len(self.transforms)) for head, sum_KHW in mean.items()}

    def _input(self, images: Mapping[str, Tensor], symmetry: Symmetry) -> Tensor | dict[str, Tensor]:
        batch = {
            name: symmetry.apply(image_CHW.to(device=self.device))[None].contiguous(memory_format=self.memory_format)
            for name, image_CHW in images.items()
        }
        return next(iter(batch.values())) if len(batch) == 1 else batch

    def refuse_too_large(self, images: Mapping[str, Tensor]) -> None:
        """Refuse a tile that main memory cannot hold, where allocation succeeds and the system ends the process."""
        sides = next(iter(images.values())).shape[-2:]
        on_cpu = self.device is None or self.device.type == "cpu"
        if not on_cpu or sides.numel() <= WHOLE_PIXELS or self.geometry == TileGeometry():
            return
        probe_side = self.geometry.input_for(1)
        corner = {name: image_CHW[:, :probe_side, :probe_side] for name, image_CHW in images.items()}
        needed = least_bytes_per_pixel(self.model, self._input(corner, self.transforms[0])) * sides.numel()
        if needed > (free := free_bytes()):
            raise self._no_memory(images, f"{needed / 2**30:.1f} GiB needed at least, {free / 2**30:.1f} free")

    def _no_memory(self, images: Mapping[str, Tensor], how: str) -> SegbenchError:
        height, width = next(iter(images.values())).shape[-2:]
        half = max(self.geometry.step, (min(height, width) - 2 * self.geometry.context) // 2)
        tiles = self.geometry != TileGeometry()
        return SegbenchError(
            f"a tile of {height} x {width} pixels does not fit into memory: {how}",
            "room for the feature maps of one tile",
            f"set a smaller tile=, say tile={half}"
            if tiles
            else "use a smaller image, or more memory: no tile= for it",
        )


def as_heads(output: Tensor | Mapping[str, Tensor], heads: Sequence[str]) -> dict[str, Tensor]:
    """A model's output by head.

    Args:
        output: a tensor, of a model with one head, or a mapping with one tensor a head.
        heads: the names expected.

    Raises:
        SegbenchError: a tensor for several heads, or a mapping that lacks one.
    """
    if isinstance(output, Tensor):
        if len(heads) == 1:
            return {heads[0]: output}
        found = "one tensor"
    else:
        if all(head in output for head in heads):
            return {head: output[head] for head in heads}
        found = f"outputs for {', '.join(output) or 'no head'}"
    raise SegbenchError(
        f"the model gives {found}",
        f"one output for each head of the data set: {', '.join(heads)}",
        "choose a model with these heads (model=...), or data with the model's",
    )


def geometry_of(model: nn.Module) -> TileGeometry:
    """The input sizes a model takes, also inside a wrapper's `module`; any, and as large an output, if it says none."""
    for candidate in (model, getattr(model, "module", None)):
        geometry = getattr(candidate, "geometry", None)
        if isinstance(geometry, TileGeometry):
            return geometry
    return TileGeometry()


def _is_out_of_memory(error: Exception) -> bool:
    # The CPU's allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)
