"""Inputs and outputs of an FCN: streams of modalities, heads of classes, and their released suffixes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from segbench.errors import SegbenchError, check

Fusion = Literal["early", "late"]

# Of several heads (SIFT Flow) or streams (NYUDv2); others are suffixed by their own name.
HEAD_SUFFIXES = {"semantic": "_sem", "geometric": "_geo"}
STREAM_SUFFIXES = {"rgb": "color", "hha": "hha"}


@dataclass(frozen=True)
class Stream:
    """A copy of the backbone and its input.

    Attributes:
        suffix: of its layers' names; empty where there is one stream.
        modalities: concatenated in this order; empty where the network takes a bare tensor.
        channels: C, of all its modalities together.
        first: the layer that sees the image, without the suffix.
    """

    suffix: str
    modalities: tuple[str, ...]
    channels: int
    first: str


@dataclass(frozen=True)
class Head:
    """A labelling of the pixels.

    Attributes:
        suffix: of its layers' names; empty where there is one head.
        classes: K.
    """

    suffix: str
    classes: int


def heads(num_classes: int | Mapping[str, int]) -> dict[str, Head]:
    """The heads by name; the name is empty if K is a bare number.

    Raises:
        SegbenchError: a head without classes, or no head.
    """
    classes = _by_name("num_classes", num_classes, "head", 21)
    several = len(classes) > 1
    return {
        name: Head(HEAD_SUFFIXES.get(name, f"_{name}") if several else "", count) for name, count in classes.items()
    }


def streams(in_channels: int | Mapping[str, int], fusion: Fusion, first: str) -> tuple[Stream, ...]:
    """The streams: one, or with late fusion one per modality.

    Args:
        in_channels: C, or C by modality.
        fusion: of several modalities.
        first: the backbone's first layer. With four channels (BGR and depth) it is called `first` + `_bgrd`, as in
            the release: its filters are not those of a colour image.

    Raises:
        SegbenchError: a modality without channels, or no modality.
    """
    channels = _by_name("in_channels", in_channels, "modality", 3)

    def stream(modalities: tuple[str, ...], suffix: str) -> Stream:
        total = sum(channels[modality] for modality in modalities)
        named = modalities if modalities != ("",) else ()
        return Stream(suffix, named, total, f"{first}_bgrd" if total == 4 else first)

    if fusion == "early" or len(channels) == 1:
        return (stream(tuple(channels), ""),)
    return tuple(stream((modality,), STREAM_SUFFIXES.get(modality, modality)) for modality in channels)


def _by_name(key: str, given: int | Mapping[str, int], kind: str, usual: int) -> dict[str, int]:
    counts = {"": given} if isinstance(given, int) else dict(given)
    check(f"model.{key}", counts, bool(counts), f"a number, or numbers by {kind}", usual)
    for name, count in counts.items():
        check(f"model.{key}{f' of {name}' if name else ''}", count, count >= 1, "at least 1", usual)
    return counts


def inputs_by_stream(image: Tensor | Mapping[str, Tensor], into: Sequence[Stream]) -> list[Tensor]:
    """The input of each stream.

    Args:
        image: image_BCHW, or one by modality.
        into: the streams.

    Returns:
        BCHW by stream, all of one H and W.

    Raises:
        SegbenchError: a missing modality, wrong channels, or modalities of different size.
    """
    wanted = [modality for stream in into for modality in stream.modalities]
    if isinstance(image, Tensor):
        if len(wanted) > 1:
            raise SegbenchError("one tensor as input", f"images of {', '.join(wanted)}", "pass a mapping by modality")
        given = [[image]]
    else:
        if missing := [modality for modality in wanted if modality not in image]:
            raise SegbenchError(
                f"no image of {', '.join(missing)}; there are {', '.join(image) or 'none'}",
                f"images of {', '.join(wanted)}",
                "choose data with these modalities, or a model without them",
            )
        given = [[image[m] for m in stream.modalities] or list(image.values()) for stream in into]
        sizes = [tuple(x_BCHW.shape[-2:]) for images in given for x_BCHW in images]
        if any(size != sizes[0] for size in sizes):
            found = " and ".join(f"{h}x{w}" for h, w in sorted(set(sizes)))
            raise SegbenchError(f"modalities of {found} pixels", "one size", "resize them to one another")
    inputs = [images[0] if len(images) == 1 else torch.cat(images, dim=1) for images in given]
    for stream, x_BCHW in zip(into, inputs, strict=True):
        if x_BCHW.ndim != 4 or x_BCHW.shape[1] != stream.channels:
            what = f" of {', '.join(stream.modalities)}" if stream.modalities else ""
            raise SegbenchError(
                f"an image{what} of shape {tuple(x_BCHW.shape)}",
                f"(B, {stream.channels}, H, W)",
                "pass such an image, or build the model with other in_channels",
            )
    return inputs
