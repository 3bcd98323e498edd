"""The reference networks in the layouts that are widely used, as plain modules."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

WIDTHS = (64, 128, 256, 512, 1024)
"""Channels of the published U-Net's levels."""
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of VGG-16's convolutions, stage by stage."""


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for given in (inputs, outputs):
        layers += [nn.Conv2d(given, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class PaddedUNet(nn.Module):
    """A U-Net whose output is as large as its input: padded convolutions, each normalised, transposed ones upwards.

    Args:
        channels: C of the input.
        classes: K.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(_twice(a, b) for a, b in itertools.pairwise((channels, *WIDTHS)))
        upwards = [*itertools.pairwise(reversed(WIDTHS))]
        self.wider = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in upwards)
        self.up = nn.ModuleList(_twice(a, b) for a, b in upwards)
        self.pool = nn.MaxPool2d(2)
        self.score = nn.Conv2d(WIDTHS[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits BKHW of images BCHW of any sides."""
        kept = []
        for level, layer in enumerate(self.down):
            x = layer(x if level == 0 else self.pool(x))
            kept.append(x)
        for wider, layer, skip in zip(self.wider, self.up, reversed(kept[:-1]), strict=True):
            x = wider(x)
            dy, dx = skip.shape[-2] - x.shape[-2], skip.shape[-1] - x.shape[-1]
            x = layer(torch.cat([skip, pad(x, (dx // 2, dx - dx // 2, dy // 2, dy - dy // 2))], 1))
        logits: Tensor = self.score(x)
        return logits


class PaddedFCN8s(nn.Module):
    """FCN-8s as it was released for Caffe and is written in PyTorch: the image padded by 100, maps cropped to fit.

    Args:
        classes: K.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        stages, inputs = [], 3
        for stage, widths in enumerate(VGG16):
            layers: list[nn.Module] = []
            for place, width in enumerate(widths):
                layers += [nn.Conv2d(inputs, width, 3, padding=1 if stage or place else 100), nn.ReLU(inplace=True)]
                inputs = width
            stages.append(nn.Sequential(*layers, nn.MaxPool2d(2, ceil_mode=True)))
        self.stages = nn.ModuleList(stages)
        fc6 = (nn.Conv2d(512, 4096, 7), nn.ReLU(inplace=True), nn.Dropout2d())
        self.head = nn.Sequential(*fc6, nn.Conv2d(4096, 4096, 1), nn.ReLU(inplace=True), nn.Dropout2d())
        self.score = nn.ModuleDict({name: nn.Conv2d(width, classes, 1) for name, width in SCORED.items()})
        self.twice = nn.ModuleList(nn.ConvTranspose2d(classes, classes, 4, stride=2, bias=False) for _ in range(2))
        self.eight = nn.ConvTranspose2d(classes, classes, 16, stride=8, bias=False)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Logits BKHW."""
        maps, x = [], image_BCHW
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        x = self.twice[0](self.score["fr"](self.head(x)))
        x = self.twice[1](x + _cropped(self.score["pool4"](maps[3]), x, 5))
        x = self.eight(x + _cropped(self.score["pool3"](maps[2]), x, 9))
        return _cropped(x, image_BCHW, 31)


SCORED = {"fr": 4096, "pool4": 512, "pool3": 256}
"""Channels of the maps that are scored."""


def _cropped(x: Tensor, like: Tensor, offset: int) -> Tensor:
    return x[..., offset : offset + like.shape[-2], offset : offset + like.shape[-1]]
