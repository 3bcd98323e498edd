"""Fully convolutional networks (Long, Shelhamer and Darrell: CVPR 2015, arXiv:1411.4038; PAMI 2016, arXiv:1605.06211).

Modules have the names of the released layers, so that weights map one to one.

Shape letters: B batch, C channels, K classes, H and W the image, h and w a feature map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from segbench.errors import SegbenchError, check, check_one_of
from segbench.models.alexnet import ALEXNET
from segbench.models.backbone import Backbone, Upsampling
from segbench.models.googlenet import GOOGLENET
from segbench.models.layers import FixedUpsampling, LearnableUpsampling, crop
from segbench.models.streams import Fusion, Stream, heads, inputs_by_stream, streams
from segbench.models.vgg16 import AT_ONCE, VGG16

Learning = Literal["fixed", "intermediate", "learnable"]

BACKBONES: dict[str, Backbone] = {backbone.name: backbone for backbone in (VGG16, ALEXNET, GOOGLENET)}


class FCN(nn.Module):
    """A classification net made convolutional; its scores are upsampled to the image, adding those of finer maps.

    FCN-32s upsamples the scores of fc7; FCN-16s doubles them, adds scores of pool4 and upsamples the sum; FCN-8s adds
    scores of pool3 likewise. The image is padded with 100 zeros, and every map is cropped where the released
    Crop layers do, so that the output has the image's size for any H, W >= 1.

    Several modalities are fused early (concatenated into one stream, RGB-D) or late (one stream each, scores
    averaged, RGB-HHA). The release has late fusion at stride 32 only; at finer strides the skips' scores are averaged
    in the same way. A stream of four channels calls its first layer `conv1_1_bgrd`, as the release does.

    Without loaded weights, convolutions are drawn from N(0, 2/N), N the inputs of one neuron, and biases are zero (our
    choice: the papers start from ImageNet weights); score layers start at zero, as in the papers.

    Args:
        backbone: `vgg16`, `alexnet` or `googlenet`.
        stride: of the prediction: 32, and for vgg16 also 16 or 8.
        num_classes: K, or K by head.
        in_channels: C of the image, or C by modality.
        at_once: scale pool4 by 0.01 and pool3 by 0.0001 before they are scored, so that FCN-8s trains in one stage.
        fusion: of several modalities, `early` or `late`.
        upsampling: `fixed` bilinear kernels, as released; `intermediate`: learnable except the last, as in the CVPR
            paper (section 4.3); `learnable`: all.
        width: fraction of each layer's channels to build, for tests and small data.
        dropout: probability after fc6 and fc7 (before the scores of GoogLeNet).

    Attributes:
        architecture: the name of its function, e.g. `fcn8s_at_once`.
        streams: one, or with late fusion one per modality.

    Raises:
        SegbenchError: an argument out of range, an unknown backbone, or a stride that it does not offer.
    """

    def __init__(
        self,
        backbone: str = "vgg16",
        stride: int = 8,
        num_classes: int | Mapping[str, int] = 21,
        in_channels: int | Mapping[str, int] = 3,
        at_once: bool = False,
        fusion: Fusion = "early",
        upsampling: Learning = "fixed",
        width: float = 1.0,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.backbone, self.steps = _decoder(backbone, stride, at_once)
        check_one_of("model.fusion", fusion, ("early", "late"))
        check_one_of("model.upsampling", upsampling, ("fixed", "intermediate", "learnable"))
        check("model.width", width, 0 < width <= 1, "a fraction above 0, at most 1", 1.0)
        check("model.dropout", dropout, 0 <= dropout < 1, "a probability from 0 to below 1", 0.5)
        staged = f"fcn{stride}s{'_at_once' if at_once else ''}"
        self.architecture = staged if backbone == "vgg16" else f"fcn_{backbone}"
        self.heads = heads(num_classes)
        self.streams = streams(in_channels, fusion, self.backbone.first)
        self.dropout = nn.Dropout(dropout)

        for stream in self.streams:
            for name, layer in self.backbone.build(stream.channels, width).items():
                self.add_module(self._name(name, stream), layer)
        scored = {"score_fr": self.backbone.top} | {f"score_{step.skip}": step.skip for step in self.steps if step.skip}
        for head in self.heads.values():
            for name, source in scored.items():
                channels = self.backbone.channels(source, width)
                for stream in self.streams:
                    self.add_module(name + head.suffix + stream.suffix, nn.Conv2d(channels, head.classes, 1))
            for step in self.steps:
                learns = upsampling == "learnable" or (upsampling == "intermediate" and step.skip)
                kind = LearnableUpsampling if learns else FixedUpsampling
                self.add_module(step.name + head.suffix, kind(head.classes, step.kernel, step.stride))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Redraw the convolutions from N(0, 2/N); zero biases and scores; set bilinear kernels."""
        for name, module in self.named_modules():
            if isinstance(module, LearnableUpsampling):
                module.reset_parameters()
            elif isinstance(module, nn.Conv2d):
                nodes = math.prod(module.weight.shape[1:])
                nn.init.normal_(module.weight, std=0.0 if name.startswith("score_") else math.sqrt(2 / nodes))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: Tensor | Mapping[str, Tensor]) -> Tensor | dict[str, Tensor]:
        """Class scores of every pixel.

        Args:
            image: image_BCHW float, or one by modality, all of one size; any H, W >= 1.

        Returns:
            logits_BKHW, or one by head where `num_classes` is by head; with fixed upsampling float32 even in autocast.

        Raises:
            SegbenchError: a missing modality, wrong channels, or modalities of different size.
        """
        inputs = inputs_by_stream(image, self.streams)
        height, width = inputs[0].shape[-2:]
        maps = [
            self.backbone.run(partial(self._layer, stream=stream), image_BCHW, self.dropout)
            for stream, image_BCHW in zip(self.streams, inputs, strict=True)
        ]
        logits = {name: self._decode(head.suffix, maps, height, width) for name, head in self.heads.items()}
        return logits[""] if "" in logits else logits

    def _name(self, layer: str, stream: Stream) -> str:
        return (stream.first if layer == self.backbone.first else layer) + stream.suffix

    def _layer(self, name: str, stream: Stream) -> nn.Module:
        return self.get_submodule(self._name(name, stream))

    def _decode(self, head: str, maps: list[dict[str, Tensor]], height: int, width: int) -> Tensor:
        score = self._score("score_fr" + head, [stream_maps[self.backbone.top] for stream_maps in maps])
        for step in self.steps:
            up: Tensor = self.get_submodule(step.name + head)(score)
            if step.skip is None:
                score = crop(up, step.offset, height, width)
                continue
            skips = [stream_maps[step.skip] for stream_maps in maps]
            if step.skip_scale != 1:
                skips = [skip * step.skip_scale for skip in skips]
            score = up + crop(self._score(f"score_{step.skip}{head}", skips), step.offset, *up.shape[-2:])
        return score

    def _score(self, name: str, maps: list[Tensor]) -> Tensor:
        """The streams' mean scores, BKhw (NYUDv2's Eltwise layer has the coefficients 0.5 and 0.5)."""
        scores = [
            self.get_submodule(name + stream.suffix)(x_BChw) for stream, x_BChw in zip(self.streams, maps, strict=True)
        ]
        return scores[0] if len(scores) == 1 else torch.stack(scores).mean(0)

    def computed_blobs(self) -> dict[str, Callable[[], Tensor]]:
        """What a Caffe net stores and this one computes: fixed kernels (K, K, k, k), the at-once net's scales (C,)."""
        blobs: dict[str, Callable[[], Tensor]] = {
            f"{name}.weight": module.dense_weight
            for name, module in self.named_modules()
            if isinstance(module, FixedUpsampling)
        }
        first_head = next(iter(self.heads.values())).suffix + self.streams[0].suffix
        for step in self.steps:
            if step.skip is not None and step.skip_scale != 1:
                scores: Any = self.get_submodule(f"score_{step.skip}{first_head}")
                blobs[f"scale_{step.skip}.weight"] = partial(torch.full, (scores.in_channels,), step.skip_scale)
        return blobs


def _decoder(backbone: str, stride: int, at_once: bool) -> tuple[Backbone, tuple[Upsampling, ...]]:
    check_one_of("model.backbone", backbone, tuple(BACKBONES))
    offered = BACKBONES[backbone].decoders
    known = " or ".join(map(str, offered))
    check(
        "model.stride", f"{stride} of {backbone}", stride in offered, f"{known} for this backbone", next(iter(offered))
    )
    if at_once and (backbone, stride) != ("vgg16", 8):
        raise SegbenchError(
            f"model.at_once=true for {backbone} at stride {stride}",
            "vgg16 at stride 8, as released",
            "leave at_once out, or set model.backbone=vgg16 model.stride=8",
        )
    return BACKBONES[backbone], AT_ONCE if at_once else offered[stride]


def fcn32s(num_classes: int | Mapping[str, int] = 21, in_channels: int | Mapping[str, int] = 3, **options: Any) -> FCN:
    """FCN-32s on VGG16: 134,346,581 parameters at 21 classes and 3 channels.

    Args:
        num_classes: K, or K by head.
        in_channels: C, or C by modality.
        options: `fusion`, `upsampling`, `width` and `dropout` of `FCN`.
    """
    return FCN("vgg16", 32, num_classes, in_channels, **options)


def fcn16s(num_classes: int | Mapping[str, int] = 21, in_channels: int | Mapping[str, int] = 3, **options: Any) -> FCN:
    """FCN-16s on VGG16: 134,357,354 parameters at 21 classes and 3 channels; arguments as for `fcn32s`."""
    return FCN("vgg16", 16, num_classes, in_channels, **options)


def fcn8s(num_classes: int | Mapping[str, int] = 21, in_channels: int | Mapping[str, int] = 3, **options: Any) -> FCN:
    """FCN-8s on VGG16: 134,362,751 parameters at 21 classes and 3 channels; arguments as for `fcn32s`."""
    return FCN("vgg16", 8, num_classes, in_channels, **options)


def fcn8s_at_once(
    num_classes: int | Mapping[str, int] = 21, in_channels: int | Mapping[str, int] = 3, **options: Any
) -> FCN:
    """FCN-8s trained in one stage, its skips scaled by 0.01 and 0.0001; arguments as for `fcn32s`."""
    return FCN("vgg16", 8, num_classes, in_channels, at_once=True, **options)


def fcn_alexnet(
    num_classes: int | Mapping[str, int] = 21, in_channels: int | Mapping[str, int] = 3, **options: Any
) -> FCN:
    """FCN-AlexNet on CaffeNet: 56,954,261 parameters at 21 classes and 3 channels; arguments as for `fcn32s`."""
    return FCN("alexnet", 32, num_classes, in_channels, **options)


def fcn_googlenet(
    num_classes: int | Mapping[str, int] = 21,
    in_channels: int | Mapping[str, int] = 3,
    dropout: float = 0.4,
    **options: Any,
) -> FCN:
    """FCN-GoogLeNet, a reconstruction (see `googlenet.py`); BVLC's dropout is 0.4; arguments as for `fcn32s`."""
    return FCN("googlenet", 32, num_classes, in_channels, dropout=dropout, **options)
