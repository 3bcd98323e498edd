"""Load published or trained weights into a network, and report every one of them.

A weight that fits nowhere, or has another shape, is refused unless the transfer names it: the fc8 of an ImageNet net
has no place in an FCN, and the FCN's score layers have no source. Nothing is copied before everything fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from segbench.errors import SegbenchError
from segbench.models.fcn import FCN
from segbench.models.published.caffemodel import Blob, read_caffemodel
from segbench.models.published.plan import LoadReport, Plan, Rules, describe
from segbench.models.published.sets import WEIGHT_SETS, Input, WeightSet
from segbench.models.published.state_dict import read_state_dict
from segbench.models.streams import Stream
from segbench.models.unet_vgg16 import UNetVGG16

__all__ = ["WEIGHT_SETS", "LoadReport", "Published", "WeightSet", "load", "load_own", "transfer"]


@runtime_checkable
class Published(Protocol):
    """A network that reads its published weights itself, from a file or by its package.

    Attributes:
        unplaced: patterns of the source's layers that it leaves out.
        drawn: patterns of its layers that a source may lack, such as those of the scores.
    """

    unplaced: tuple[str, ...]
    drawn: tuple[str, ...]

    @classmethod
    def expects(cls, arguments: Mapping[str, Any]) -> Input:
        """The input that the weights were trained on, by the network's arguments; downloads nothing."""
        ...

    def published_weights(self, path: Path | None) -> Mapping[str, Tensor]:
        """The weights by this network's names.

        Args:
            path: a file or folder; None: those that its argument `pretrained` names, from where its package has them.
        """
        ...


def load_own(model: Published, path: Path | None, leave: Sequence[str] = ()) -> LoadReport:
    """Fill a network that reads its published weights itself.

    A first layer of one channel gets the sum of three filters, a fourth channel their mean.

    Args:
        model: the network.
        path: a file or folder, or None, as in `Published.published_weights`.
        leave: as in `load`.

    Raises:
        SegbenchError: weights that cannot be read, or do not fit.
    """
    assert isinstance(model, nn.Module)
    pretrained = str(getattr(model, "pretrained", None))
    source = pretrained if path is None else str(path)
    plan = Plan(model, source, Rules(model.unplaced, model.drawn, leave, extend=True, grey=True))
    # A package may build another network to read them into: what is drawn for it changes nothing here.
    with torch.random.fork_rng(devices=[]):
        entries = model.published_weights(path)
    for name, value in entries.items():
        plan.put(name, value)
    return plan.carry_out()


def load(
    model: nn.Module,
    weight_set: str,
    path: str | Path,
    *,
    stream: str | None = None,
    channel_order: str | None = None,
    leave: Sequence[str] = (),
) -> LoadReport:
    """Fill a network from a published file.

    An ImageNet net goes into every stream, its fully connected layers reshaped to convolutions; a stream's fourth
    channel gets the mean of the three filters (release, `nyud-fcn32s-color-d/solve.py`). A `UNetVGG16` takes only the
    convolutions, and for grey images the sum of the three first filters.

    Args:
        model: an `FCN`, `UNet` or `UNetVGG16` of the set's architecture.
        weight_set: a name of `WEIGHT_SETS`.
        path: the file.
        stream: fill only the stream of this modality (late fusion starts from trained single-modality nets).
        channel_order: of the network's colour images, `RGB` or `BGR`. If the set was trained on the other, the filters
            of the first layer are reversed, which gives the same function. None: the set's order.
        leave: patterns of layers neither taken from the file nor required in it, e.g. `score_fr` for other classes.

    Raises:
        SegbenchError: an unknown set, another architecture, a damaged file, or weights that do not fit.
    """
    chosen = WEIGHT_SETS.get(weight_set)
    if chosen is None:
        raise SegbenchError(f"unknown weights {weight_set!r}", f"one of {', '.join(WEIGHT_SETS)}", "choose one of them")
    only = _stream_of(model, stream)
    of_imagenet = chosen.kind == "ImageNet"
    built = model.backbone.name if of_imagenet and isinstance(model, FCN | UNetVGG16) else describe(model)
    if built != chosen.architecture:
        raise SegbenchError(
            f"weights {chosen.name} for {built}",
            f"a network of {chosen.architecture}",
            "build that one; a trained FCN goes into a finer one by segbench.models.published.load.transfer",
        )
    of_unet = isinstance(model, UNetVGG16)
    grey = isinstance(model, UNetVGG16) and model.streams[0].channels == 1
    flip = _must_flip(chosen, channel_order) and not grey
    rules = Rules(
        unplaced=(*chosen.left_over, *UNetVGG16.unplaced) if of_unet else chosen.left_over,
        drawn=UNetVGG16.drawn if of_unet else chosen.drawn,
        leave=leave,
        fully_connected=chosen.fully_connected,
        extend=of_imagenet,
        flip=flip,
        grey=grey,
    )
    plan = Plan(model, f"{chosen.name} ({path})", rules, only)
    into: Sequence[Stream | None] = plan.streams if of_imagenet and only is None else (only,)
    for name, value in _read(chosen, Path(path)).items():
        plan.put(name, value, into)
    if not of_imagenet:
        # Only the scales distinguish an at-once net from a staged one.
        scales = [name for name in plan.computed if name.startswith("scale_")]
        plan.problems += [f"no {name}" for name in scales if name not in plan.checked]
    inputs = {modality: str(expected) for modality, expected in chosen.inputs.items()}
    if grey:
        inputs["rgb"] += "; its first filters were summed to take grey"
    if flip:
        inputs["rgb"] += f"; its first filters were reversed to take {channel_order}"
    return plan.carry_out(inputs, chosen.deviation)


def transfer(
    model: nn.Module,
    state_dict: Mapping[str, Tensor],
    *,
    stream: str | None = None,
    leave: Sequence[str] = (),
    source: str = "a state dict",
) -> LoadReport:
    """Fill a network from a trained one's state dict: 16s from 32s, 8s from 16s, late fusion from single streams.

    The skips' score layers start at zero, so the finer net starts as the coarser one; upsampling layers that the source
    lacks start bilinear, and those that the network lacks are left over.

    Args:
        model: to be filled.
        state_dict: of a coarser or equal network, by the same names (also pytorch-fcn's, whose dense upsampling layers
            are compared with the computed ones).
        stream: fill only the stream of this modality, from a network with one stream.
        leave: as in `load`.
        source: for the report, e.g. the run.

    Raises:
        SegbenchError: weights that do not fit.
    """
    only = _stream_of(model, stream)
    plan = Plan(model, source, Rules(("upscore*",), ("score_pool*", "upscore*"), leave), only)
    for name, value in state_dict.items():
        plan.put(name, value, (only,))
    return plan.carry_out()


def _stream_of(model: nn.Module, modality: str | None) -> Stream | None:
    if modality is None:
        return None
    streams = model.streams if isinstance(model, FCN) and len(model.streams) > 1 else ()
    for stream in streams:
        if modality in stream.modalities:
            return stream
    known = ", ".join(m for s in streams for m in s.modalities) or "none: the network has one stream"
    raise SegbenchError(f"stream={modality}", f"one of {known}", "leave stream out, or build with fusion=late")


def _must_flip(chosen: WeightSet, channel_order: str | None) -> bool:
    colour = chosen.inputs.get("rgb")
    if channel_order is None or (colour is not None and channel_order == colour.order):
        return False
    if colour is None or sorted(channel_order) != sorted(colour.order):
        raise SegbenchError(
            f"channel_order={channel_order} for {chosen.name}",
            "RGB or BGR, of weights for colour images",
            "leave channel_order out",
        )
    return True


def _read(chosen: WeightSet, path: Path) -> dict[str, Tensor | Blob]:
    """The file's entries under the network's layer names."""
    if chosen.format == "torch":
        entries: dict[str, Tensor | Blob] = dict(read_state_dict(path))
    else:
        entries = {}
        for layer, blobs in read_caffemodel(path).items():
            # Scale has only a weight; more than two blobs (batch normalisation) do not occur in these nets.
            names = ["weight", "bias", *(f"blob{index}" for index in range(2, len(blobs)))]
            entries |= {f"{layer}.{name}": blob for name, blob in zip(names, blobs, strict=False)}
    renamed = chosen.renamed or {}
    parts = [name.rpartition(".") for name in entries]
    # Module names cannot hold U-Net's '-'.
    names = [f"{renamed.get(layer, layer)}.{blob}".replace("-", "_") for layer, _, blob in parts]
    return dict(zip(names, entries.values(), strict=True))
