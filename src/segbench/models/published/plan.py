"""Where each weight of a source goes in a network: all are placed before the first is copied."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import Tensor, nn

from segbench.errors import SegbenchError
from segbench.models.fcn import FCN
from segbench.models.published.caffemodel import Blob
from segbench.models.streams import Stream
from segbench.models.unet import UNet
from segbench.models.unet_vgg16 import UNetVGG16

SHARED = ("upscore*", "scale_*")
"""Layers that all streams of an FCN share."""


@dataclass(frozen=True)
class LoadReport:
    """What happened to every weight; `str(report)` is for the log.

    Attributes:
        source: the file or other origin of the weights.
        loaded: entries of the network's state dict that were set.
        drawn: those that keep the network's initial values: drawn, zero or bilinear.
        left_over: entries of the source without a place.
        checked: entries of the source that equal what the network computes (fixed upsampling, scales).
        inputs: what the weights expect of an image, by modality, as text.
        deviation: how the weights deviate from the papers' protocol.
    """

    source: str
    loaded: tuple[str, ...]
    drawn: tuple[str, ...]
    left_over: tuple[str, ...]
    checked: tuple[str, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    deviation: str = ""

    def __str__(self) -> str:
        lines = [f"weights of {self.source}: {len(self.loaded)} loaded"]
        for what, names in (("drawn", self.drawn), ("left over", self.left_over), ("as computed", self.checked)):
            lines += [f"  {what}: {', '.join(names)}"] if names else []
        lines += [f"  expects {modality}: {text}" for modality, text in self.inputs.items()]
        return "\n".join([*lines, *([f"  deviation: {self.deviation}"] if self.deviation else [])])


@dataclass(frozen=True)
class Rules:
    """What a transfer may do beyond copying equal shapes to equal names.

    Attributes:
        unplaced: patterns of the source's layers that may have no place.
        drawn: patterns of the network's layers that need no source.
        leave: patterns of layers, on either side, that the user wants to leave; each must match one.
        fully_connected: layers whose (O, I) rows become kernels (O, C, h, w).
        extend: a first layer of four channels takes a kernel of three, with their mean as the fourth.
        flip: a first layer for colours takes its first three channels in reverse.
        grey: a first layer of one channel takes the sum of the three, as for grey on all three channels.
    """

    unplaced: Sequence[str] = ()
    drawn: Sequence[str] = ()
    leave: Sequence[str] = ()
    fully_connected: Sequence[str] = ()
    extend: bool = False
    flip: bool = False
    grey: bool = False


class Plan:
    """Assign each entry of a source to entries of a network's state dict; `carry_out` copies, or refuses them all.

    Args:
        model: the network.
        source: the source as text.
        rules: of the transfer.
        only: the only stream to fill, or None.
    """

    def __init__(self, model: nn.Module, source: str, rules: Rules, only: Stream | None = None) -> None:
        self.source, self.rules, self.only = source, rules, only
        self.described = describe(model)
        self.state: dict[str, Tensor] = model.state_dict()
        self.streams: Sequence[Stream] = getattr(model, "streams", ())
        self.first = model.backbone.first if isinstance(model, FCN | UNetVGG16) else ""
        self.computed = model.computed_blobs() if isinstance(model, FCN) else {}
        self.assigned: dict[str, Callable[[], Tensor]] = {}
        self.checked: dict[str, None] = {}
        self.left_over: dict[str, None] = {}
        self.problems: list[str] = []
        self.unused = set(rules.leave)

    def put(self, name: str, value: Tensor | Blob, into: Sequence[Stream | None] = (None,)) -> None:
        """Find the place of an entry.

        Args:
            name: `layer.weight` or `layer.bias`.
            value: its values.
            into: the streams it goes into; None where its name includes the stream.
        """
        layer, _, blob = name.rpartition(".")
        if self._is_left(layer):
            self.left_over[name] = None
            return
        for stream in into:
            target = f"{self._placed(layer, stream)}.{blob}"
            if target in self.state:
                self._assign(name, target, value)
            elif target in self.computed:
                self._compare(target, value)
            elif _matches(layer, self.rules.unplaced):
                self.left_over[name] = None
            else:
                self.problems.append(f"{name} has no place")

    def _placed(self, layer: str, stream: Stream | None) -> str:
        if stream is None or _matches(layer, SHARED):
            return layer
        return (stream.first if layer == self.first else layer) + stream.suffix

    def _assign(self, name: str, target: str, value: Tensor | Blob) -> None:
        shape = tuple(self.state[target].shape)
        meets = next((stream for stream in self.streams if target == f"{stream.first}{stream.suffix}.weight"), None)
        colours = meets is not None and tuple(value.shape[1:2]) == (3,)
        extend = self.rules.extend and colours and shape[1] == 4
        flip = self.rules.flip and meets is not None and "hha" not in meets.modalities
        grey = self.rules.grey and colours and shape[1] == 1
        wanted = (shape[0], 3, *shape[2:]) if extend or grey else shape
        fitted = _fit(value, wanted, name.rpartition(".")[0] in self.rules.fully_connected)
        if fitted is None:
            self.problems.append(f"{name} is {_by(value.shape)}, {target} {_by(shape)}")
        elif target in self.assigned:
            self.problems.append(f"{target} is given twice")
        elif not _is_finite(fitted):
            self.problems.append(f"{name} holds NaN or infinite values")
        else:
            self.assigned[target] = lambda: _first_layer(torch.as_tensor(_writeable(fitted)), extend, flip, grey)

    def _compare(self, target: str, value: Tensor | Blob) -> None:
        expected = self.computed[target]()
        fitted = _fit(value, tuple(expected.shape), fully_connected=False)
        given = None if fitted is None else torch.as_tensor(_writeable(fitted)).cpu().float()
        if given is not None and torch.allclose(given, expected, rtol=0, atol=1e-5):
            self.checked[target] = None
            return
        instead = (
            "build the network with upsampling=learnable"
            if target.startswith("up")
            else "it belongs to another network"
        )
        self.problems.append(f"{target} differs from what this network computes ({instead})")

    def _is_left(self, layer: str) -> bool:
        matching = {pattern for pattern in self.rules.leave if fnmatchcase(layer, pattern)}
        self.unused -= matching
        return bool(matching)

    def carry_out(self, inputs: Mapping[str, str] | None = None, deviation: str = "") -> LoadReport:
        """Copy everything.

        Args:
            inputs: for the report.
            deviation: for the report.

        Raises:
            SegbenchError: an entry has no place or another shape, or the network has one without a source.
        """
        drawn = []
        others = tuple(s.suffix for s in self.streams if self.only is not None and s != self.only)
        for name in self.state:
            layer = name.rpartition(".")[0]
            if name in self.assigned or (others and layer.endswith(others)):
                continue
            if not (self._is_left(layer) or _matches(layer, self.rules.drawn)):
                self.problems.append(f"nothing for {name}")
            drawn.append(name)
        self.problems += [f"no layer {pattern} to leave" for pattern in sorted(self.unused)]
        if self.problems:
            more = f"; and {len(self.problems) - 4} more" if len(self.problems) > 4 else ""
            raise SegbenchError(
                f"{self.source}: {'; '.join(self.problems[:4])}{more}",
                f"weights of this {self.described}",
                "use another file, build its network, or name the layers to leave (weights.leave=[...])",
            )
        with torch.no_grad():
            for target, value in self.assigned.items():
                self.state[target].copy_(value())
        return LoadReport(
            self.source,
            tuple(self.assigned),
            tuple(drawn),
            tuple(self.left_over),
            tuple(self.checked),
            inputs or {},
            deviation,
        )


def describe(model: nn.Module) -> str:
    """The network's architecture, as `WeightSet.architecture` names it."""
    if isinstance(model, UNet):
        return f"unet {'phseg_v5' if model.relu_after_up else 'paper'}"
    if isinstance(model, UNetVGG16):
        return "unet_vgg16"
    return str(getattr(model, "architecture", type(model).__name__))


def _matches(layer: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(layer, pattern) for pattern in patterns)


def _fit(value: Tensor | Blob, shape: tuple[int, ...], fully_connected: bool) -> Tensor | Blob | None:
    """The value in the shape, or None; drops Caffe's leading ones, and turns rows into kernels where allowed."""
    given = tuple(value.shape)
    if given == shape:
        return value
    bare = given[next((axis for axis, side in enumerate(given) if side != 1), len(given) - 1) :]
    rows = (*shape[:1], math.prod(shape[1:]))
    if (len(shape) == 1 and bare == shape) or (fully_connected and bare == rows):
        return value.reshape(shape)
    return None


def _first_layer(kernel_OChw: Tensor, extend: bool, flip: bool, grey: bool) -> Tensor:
    if grey:
        return kernel_OChw.sum(dim=1, keepdim=True)
    if flip:
        kernel_OChw = torch.cat([kernel_OChw[:, :3].flip(1), kernel_OChw[:, 3:]], dim=1)
    if extend:
        kernel_OChw = torch.cat([kernel_OChw, kernel_OChw.mean(dim=1, keepdim=True)], dim=1)
    return kernel_OChw


def _writeable(value: Tensor | Blob) -> Tensor | Blob:
    # torch shares an array's memory, and warns if it is read-only.
    return value if isinstance(value, Tensor) else np.array(value, dtype=value.dtype.newbyteorder("="))


def _is_finite(value: Tensor | Blob) -> bool:
    return bool(torch.isfinite(value).all() if isinstance(value, Tensor) else np.isfinite(value).all())


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "one number"
