"""A network as a graph with free batch, height and width, by torch.export."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config

from segbench.errors import SegbenchError
from segbench.inference.outputs import as_heads
from segbench.spec import DatasetSpec, TileGeometry


class ByName(nn.Module):
    """A network between mappings: images BCHW by modality in, class scores BKhw float32 by head out.

    Args:
        model: as a run builds it; it takes a bare tensor where there is one modality.
        spec: names the modalities and heads, in the order of the file's inputs and outputs.
    """

    def __init__(self, model: nn.Module, spec: DatasetSpec) -> None:
        super().__init__()
        self.model = model
        self._heads = tuple(spec.heads)

    def forward(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The scores."""
        only = next(iter(images.values())) if len(images) == 1 else images
        height, width = next(iter(images.values())).shape[-2:]
        return {
            head: scores.float() for head, scores in as_heads(self.model(only), self._heads, (height, width)).items()
        }


class AnySides(nn.Module):
    """A padded network that takes sides of every length: images are continued by mirroring, as `predict` does it.

    Args:
        network: takes sides that are multiples of `step`, and gives as many scores.
        step: of its `TileGeometry`.
    """

    def __init__(self, network: ByName, step: int) -> None:
        super().__init__()
        self.model, self._network, self._step = network.model, network, step

    def forward(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The scores of the images' own pixels."""
        first = next(iter(images.values()))
        height, width = first.shape[-2:]
        ys, xs = (self._mirrored(side, first.device) for side in (height, width))
        whole = {name: image_BCHW.index_select(2, ys).index_select(3, xs) for name, image_BCHW in images.items()}
        return {head: scores[:, :, :height, :width] for head, scores in self._network(whole).items()}

    def _mirrored(self, side: int, device: torch.device) -> Tensor:
        """As `segbench.inference.tiling.mirrored`, up to the next multiple."""
        # As a tensor: the exporter to ONNX has no maximum of symbols.
        period = (2 * torch.arange(side, device=device)[-1:]).clamp(min=1)
        folded = torch.arange((side + self._step - 1) // self._step * self._step, device=device) % period
        return torch.minimum(folded, period - folded)


def takes_any_sides(geometry: TileGeometry) -> bool:
    """Whether a network of this geometry is padded up to its sides within the graph."""
    return geometry.margin == 0 and geometry.offset == 0 and geometry.minimum <= 1 and geometry.step > 1


def trace(
    network: ByName | AnySides, images: Mapping[str, Tensor], geometry: TileGeometry, size: Sequence[int] | None
) -> ExportedProgram:
    """The network's graph.

    Args:
        network: in eval mode, on the CPU.
        images: an example, B = 2 or more.
        geometry: which sides it takes: the graph takes all of these.
        size: H and W where they are fixed; None leaves them free.

    Raises:
        SegbenchError: a network that torch.export cannot follow, or what the network itself refuses.
    """
    dims: dict[int, Dim] = {0: Dim("batch", min=1)}
    if size is None:
        dims |= {2: _side("height", geometry), 3: _side("width", geometry)}
    # Without it, sides whose maps shrink to one pixel are exported as a separate network.
    oblivious = _config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    try:
        with quiet(), torch.no_grad(), oblivious:
            program = torch.export.export(
                network,
                (dict(images),),
                dynamic_shapes=({name: dims for name in images},),
                strict=False,
                # Rounding in pooled sizes is checked when it runs, not proven for all sides.
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except SegbenchError:
        raise
    except Exception as error:
        raise SegbenchError(
            f"torch.export cannot follow {type(network.model).__name__}: {first_line(error)}",
            "a network whose control flow does not depend on its input's values"
            + ("" if size is not None else " or sides, as all of segbench's own"),
            "correct the model" if size is not None else "fix the sides, e.g. size=[512,512]; or correct the model",
        ) from error
    _drop_source(program)
    return program


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _drop_source(program: ExportedProgram) -> None:
    """Drop the lines of source that each operation came from: they name folders of this machine."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)


def _side(name: str, geometry: TileGeometry) -> Dim:
    steps = Dim(name, min=geometry.minimum)
    if geometry.step == 1 and geometry.offset == 0:
        return steps
    sides = geometry.step * steps if geometry.step > 1 else steps
    return sides + geometry.offset if geometry.offset else sides


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Torch's exporters without messages to their own developers."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    # Operators of torchvision, which is not used here.
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # The exporter copies a class whose constructor warns.
            warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
            yield
    finally:
        registration.setLevel(level)
