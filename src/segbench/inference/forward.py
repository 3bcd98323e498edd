"""Forward passes of tiles and of strips of rows, refused where memory cannot hold them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segbench.errors import SegbenchError, memory_ran_out
from segbench.inference.casts import kept_casts
from segbench.inference.memory import extrapolated_bytes, free_bytes, least_bytes_per_pixel
from segbench.inference.outputs import as_heads
from segbench.inference.rowwise import NotRowwise, RowwiseForward
from segbench.inference.symmetries import Symmetry
from segbench.inference.windows import ReadableImage
from segbench.spec import TileGeometry

WHOLE_PIXELS = 2**21
"""Without `tile=`, an image whose network input has at most this many pixels is predicted in one piece."""


class TilePredictor:
    """Probabilities of tiles of one size, averaged over symmetries."""

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
        self.dtype = torch.float32 if parameter is None else parameter.dtype
        self.device_type = "cpu" if self.device is None else self.device.type
        self.on_gpu = self.device_type != "cpu"
        self._weighed: set[tuple[int, ...]] = set()

    @torch.no_grad()
    def __call__(self, tiles: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
        """KHW float32 by head of each tile, CHW by modality; one forward a symmetry."""
        tiles = [{name: image_CHW.to(self.device, self.dtype) for name, image_CHW in tile.items()} for tile in tiles]
        height, width = next(iter(tiles[0].values())).shape[-2:]
        given = (int(height), int(width))
        self.refuse_too_large(lambda: tiles[0], given, len(tiles))
        expected = tuple(side - 2 * self.geometry.margin for side in given)
        mean: dict[str, Tensor] = {}
        try:
            for symmetry in self.transforms:
                with kept_casts(self.device_type):
                    output = self.model(self._input(tiles, symmetry))
                for head, logits_BKHW in as_heads(output, self.heads, given).items():
                    probabilities_BKHW = symmetry.undo(logits_BKHW.float().softmax(dim=1))
                    if tuple(probabilities_BKHW.shape[-2:]) != expected:
                        raise SegbenchError(
                            f"the network makes {tuple(probabilities_BKHW.shape[-2:])} of {given} pixels",
                            f"{expected}, as its geometry says",
                            "correct the model's attribute geometry (segbench.spec.TileGeometry)",
                        )
                    mean[head] = mean[head].add_(probabilities_BKHW) if head in mean else probabilities_BKHW
        except (MemoryError, RuntimeError) as error:
            if not memory_ran_out(error):
                raise
            raise self._no_memory(given, len(tiles), "its memory ran out") from error
        for sum_BKHW in mean.values():
            sum_BKHW.div_(len(self.transforms))
        return [{head: mean_BKHW[place] for head, mean_BKHW in mean.items()} for place in range(len(tiles))]

    def forward_rowwise(self, sides: tuple[int, int]) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
        """The forward pass of an image of these sides in strips, CHW by modality: rows of logits KHW by head."""
        expected = tuple(side - 2 * self.geometry.margin for side in sides)
        forward = RowwiseForward(self.model, sides[0])

        def heads(output: Any) -> dict[str, Tensor]:
            by_head = as_heads(output, self.heads, sides)
            if any(tuple(logits_BKHW.shape[-2:]) != expected for logits_BKHW in by_head.values()):
                raise NotRowwise("an output that contradicts the geometry")
            return by_head

        @torch.no_grad()
        def strip(images: Mapping[str, Tensor]) -> dict[str, Tensor]:
            batch = {
                name: image_CHW[None].to(self.device, self.dtype).contiguous(memory_format=self.memory_format)
                for name, image_CHW in images.items()
            }
            return {head: logits_BKHW[0] for head, logits_BKHW in forward(batch, heads).items()}

        return strip

    def _input(self, tiles: Sequence[Mapping[str, Tensor]], symmetry: Symmetry) -> Tensor | dict[str, Tensor]:
        batch = {
            name: symmetry.apply(torch.stack([tile[name] for tile in tiles])).contiguous(
                memory_format=self.memory_format
            )
            for name in tiles[0]
        }
        return next(iter(batch.values())) if len(batch) == 1 else batch

    def probe(
        self, part: Callable[[], Mapping[str, Tensor | NDArray[Any]]]
    ) -> Callable[[int], Tensor | dict[str, Tensor]]:
        """Makes an empty input of a given side."""
        channels = {name: len(part_CHW) for name, part_CHW in part().items()}

        def probe(side: int) -> Tensor | dict[str, Tensor]:
            corner = {
                name: torch.zeros(C, side, side, device=self.device, dtype=self.dtype) for name, C in channels.items()
            }
            return self._input([corner], self.transforms[0])

        return probe

    def refuse_too_large(
        self, part: Callable[[], Mapping[str, Tensor | NDArray[Any]]], sides: tuple[int, int], count: int = 1
    ) -> None:
        """Refuse what main memory cannot hold: allocation would succeed and the system kill the process.

        Args:
            part: gives a part of the image, CHW by modality.
            sides: H and W of a tile.
            count: tiles predicted together.
        """
        height, width = sides
        if self.on_gpu or count * height * width <= WHOLE_PIXELS or (count, height, width) in self._weighed:
            return
        self._weighed.add((count, height, width))
        probe = self.probe(part)
        if self.geometry == TileGeometry():
            needed = extrapolated_bytes(self.model, probe, height, width)
        else:
            needed = least_bytes_per_pixel(self.model, probe(self.geometry.input_for(1))) * height * width
        needed *= count
        if needed > (free := free_bytes()):
            raise self._no_memory(sides, count, f"{needed / 2**30:.1f} GiB needed at least, {free / 2**30:.1f} free")

    def _no_memory(self, sides: tuple[int, int], count: int, how: str) -> SegbenchError:
        half = max(self.geometry.step, (min(sides) - 2 * self.geometry.context) // 2)
        if count > 1:
            action = f"set a smaller batch_size=, say {count // 2}"
        elif self.geometry == TileGeometry():
            action = (
                "cut or shrink the image: this network takes it whole; or predict it with overlap=0.25, approximately"
            )
        else:
            action = f"set a smaller tile=, say tile={half}"
        size = f"{sides[0]} x {sides[1]} pixels"
        tiles = f"{count} tiles of {size} do" if count > 1 else f"a tile of {size} does"
        return SegbenchError(
            f"{tiles} not fit into memory: {how}", "room for the feature maps of all that is predicted together", action
        )


def geometry_of(model: nn.Module) -> TileGeometry:
    """The input sizes of a model, or of a wrapper's `module`; without `geometry`, any, with an output of that size."""
    for candidate in (model, getattr(model, "module", None)):
        geometry = getattr(candidate, "geometry", None)
        if isinstance(geometry, TileGeometry):
            return geometry
    return TileGeometry()


def is_large(geometry: TileGeometry, image: ReadableImage) -> bool:
    """Whether it is cut without being asked."""
    if geometry == TileGeometry() or min(image.size) < 1:
        return False
    return math.prod(geometry.input_for(side) for side in image.size) > WHOLE_PIXELS
