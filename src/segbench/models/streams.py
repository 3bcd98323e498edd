"""What goes into an FCN and comes out of it: streams of modalities, heads of classes, and their authors' suffixes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from segbench.errors import SegbenchError
from segbench.models.checks import check

Fusion = Literal["early", "late"]

# Where there are several heads (SIFT Flow) or streams (NYUDv2); others get their own name.
HEAD_SUFFIXES = {"semantic": "_sem", "geometric": "_geo"}
STREAM_SUFFIXES = {"rgb": "color", "hha": "hha"}


@dataclass(frozen=True)
class Stream:
    """A copy of the backbone and what it sees.

    Attributes:
        suffix: of its layers' names; empty where there is one stream.
        modalities: concatenated in this order; empty where the network takes a bare tensor.
        channels: C, of all its modalities together.
        first: the name of the layer that meets the image, without the suffix.
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
    """The heads by name; the name is empty where K is a bare number.

    Raises:
        SegbenchError: a head without classes, or no head.
    """
    classes = {"": num_classes} if isinstance(num_classes, int) else dict(num_classes)
    check("num_classes", classes, bool(classes), "a number, or numbers by head", 21)
    for name, count in classes.items():
        check(f"num_classes{f' of {name}' if name else ''}", count, count >= 1, "at least 1", 21)
    several = len(classes) > 1
    return {
        name: Head(HEAD_SUFFIXES.get(name, f"_{name}") if several else "", count) for name, count in classes.items()
    }


def streams(in_channels: int | Mapping[str, int], fusion: Fusion, first: str) -> tuple[Stream, ...]:
    """The streams: one, or one a modality under late fusion.

    Args:
        in_channels: C, or C by modality.
        fusion: of several modalities.
        first: the backbone's first layer. A stream of four channels (BGR and depth) calls it `first` + `_bgrd`, as the
            release does: its filters are not those of a colour image.

    Raises:
        SegbenchError: a modality without channels, or no modality.
    """
    channels = {"": in_channels} if isinstance(in_channels, int) else dict(in_channels)
    check("in_channels", channels, bool(channels), "a number, or numbers by modality", 3)
    for name, count in channels.items():
        check(f"in_channels{f' of {name}' if name else ''}", count, count >= 1, "at least 1", 3)

    def stream(modalities: tuple[str, ...], suffix: str) -> Stream:
        total = sum(channels[modality] for modality in modalities)
        named = modalities if modalities != ("",) else ()
        return Stream(suffix, named, total, f"{first}_bgrd" if total == 4 else first)

    if fusion == "early" or len(channels) == 1:
        return (stream(tuple(channels), ""),)
    return tuple(stream((modality,), STREAM_SUFFIXES.get(modality, modality)) for modality in channels)


def inputs_by_stream(image: Tensor | Mapping[str, Tensor], into: Sequence[Stream]) -> list[Tensor]:
    """What each stream sees.

    Args:
        image: image_BCHW, or one by modality.
        into: the streams.

    Returns:
        BCHW by stream, all of one H and W.

    Raises:
        SegbenchError: a missing modality, another number of channels, or modalities of different size.
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
