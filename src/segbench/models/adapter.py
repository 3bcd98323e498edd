"""What the networks of other packages have in common here: inputs by modality, outputs by head, sizes, weights.

Packages are imported when a network is built, so that configs are read, listed and checked without them. Building never
asks for weights; `published_weights` does, which is called once, before a training.

Shape letters: B batch, C channels, K classes, H and W the image.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from segbench.errors import SegbenchError, check
from segbench.models.published.sets import IMAGENET, Input
from segbench.models.streams import heads, inputs_by_stream, streams
from segbench.models.wrapped import Wrapped

Counts = int | Mapping[str, int]
"""A number, or numbers by modality or head."""


def package(module: str, extra: str) -> Any:
    """A package that an extra brings.

    Args:
        module: its name in Python.
        extra: the extra.

    Raises:
        SegbenchError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise SegbenchError(
            f"{error.name} is not installed (model._target_ is of segbench.models, and builds a network of it)",
            f"the package {module}",
            f"pip install 'segbench[{extra}]'",
        ) from error


@contextmanager
def told(what: str, expected: str, action: str) -> Iterator[None]:
    """Whatever a package raises, in three parts.

    Args:
        what: was asked of it.
        expected: instead.
        action: to do.
    """
    try:
        yield
    except SegbenchError:
        raise
    except Exception as error:
        # Of any kind: unknown names are a KeyError here and a RuntimeError there, a hub has errors of its own.
        if "torchvision::" in str(error):
            raise
        text = " ".join(str(error).split())[:300]
        raise SegbenchError(f"{what}: {type(error).__name__}: {text}", expected, action) from error


@contextmanager
def fetching(source: str) -> Iterator[None]:
    """Where a package reads weights, from a hub or from a file.

    Args:
        source: of the weights.

    Raises:
        SegbenchError: they cannot be had.
    """
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    # It logs every further try; one error says it all.
    hub.setLevel(logging.CRITICAL)
    try:
        with told(
            f"the weights {source} cannot be fetched or read",
            "a name or a file that the package knows, and for a name a hub that can be reached or a cache that has it",
            "without a network set weights.path=FILE (and model.pretrained=null, which alone draws all weights)",
        ):
            yield
    finally:
        hub.setLevel(level)


def totals(in_channels: Counts, num_classes: Counts) -> tuple[int, int]:
    """C of all modalities together, and K of all heads together.

    Raises:
        SegbenchError: a count below 1.
    """
    (stream,) = streams(in_channels, "early", "")
    return stream.channels, sum(head.classes for head in heads(num_classes).values())


class Adapter(Wrapped):
    """A network of another package: modalities are concatenated, and its scores divided among the heads.

    Args:
        network: takes C channels, gives K scores, as `totals` counts them.
        in_channels: C of the image, or C by modality.
        num_classes: K, or K by head.
        pretrained: the package's name of the weights that a training starts from; None: all are drawn.
        step: sides are multiples of this many pixels.
        context: by which tiles of large images overlap; such networks look at more, or at everything.

    Attributes:
        pretrained: as given.
        streams: one.
        remark: what a training should know of the network; may be empty.
    """

    unplaced: tuple[str, ...] = ()
    """Patterns of layers in files of weights that are left out."""
    drawn: tuple[str, ...] = ()
    """Patterns of the network's layers that such files may lack."""
    remark = ""
    packages: tuple[str, ...] = ()
    """Those whose versions decide what is built; a run records them."""

    def __init__(
        self,
        network: nn.Module,
        in_channels: Counts,
        num_classes: Counts,
        pretrained: str | None,
        step: int,
        context: int,
    ) -> None:
        check("model.step", step, step >= 1, "a positive number of pixels", 32)
        check("model.context", context, context >= 0, "a number of pixels", 128)
        super().__init__(network, step, context)
        self.pretrained, self.heads = pretrained, heads(num_classes)
        encoder = getattr(network, "encoder", network)
        meets = next((module for module in encoder.modules() if isinstance(module, nn.Conv2d)), None)
        first = next((name for name, module in self.named_modules() if module is meets), "")
        self.streams = tuple(replace(each, first=first) for each in streams(in_channels, "early", first))

    @classmethod
    def expects(cls, arguments: Mapping[str, Any]) -> Input:
        """The input that its weights were trained on: `mean` and `std` of the arguments, else those of ImageNet."""
        mean, std = (arguments.get(key) for key in ("mean", "std"))
        return Input("RGB", 1, tuple(mean or IMAGENET.mean), tuple(std or IMAGENET.std))

    @classmethod
    def settled(cls, arguments: Mapping[str, Any], path: str | None) -> dict[str, Any]:
        """The arguments with what only the package, its hub or the file knows, for the record of a run.

        Args:
            arguments: of the config.
            path: of the weights, which then come from no hub.

        Raises:
            SegbenchError: the package is missing, or its hub cannot be reached.
        """
        return dict(arguments)

    def scores(self, image_BCHW: Tensor) -> Tensor:
        """Scores BKHW of all heads together."""
        scores: Tensor = self.network(image_BCHW)
        return scores

    def forward(self, image: Tensor | Mapping[str, Tensor]) -> Tensor | dict[str, Tensor]:
        """Class scores of every pixel.

        Args:
            image: image_BCHW float, or one by modality, all of one size.

        Returns:
            logits_BKHW, or one by head where `num_classes` is by head.

        Raises:
            SegbenchError: a missing modality, or wrong channels.
        """
        (image_BCHW,) = inputs_by_stream(image, self.streams)
        parts = torch.split(self.scores(image_BCHW), [head.classes for head in self.heads.values()], dim=1)
        logits = dict(zip(self.heads, parts, strict=True))
        return logits[""] if "" in logits else logits


def below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of a part of a network by the network's names."""
    return {f"{prefix}.{name}": value for name, value in state.items()}


def mean_and_std(found: Mapping[str, Any]) -> dict[str, list[float]]:
    """The arguments `mean` and `std` of what a package says of its weights."""

    def floats(values: Sequence[float]) -> list[float]:
        return [float(value) for value in values]

    return {key: floats(found[key]) for key in ("mean", "std")}
