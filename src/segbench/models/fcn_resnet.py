"""FCN on a dilated ResNet, with torchvision's layout and names: what most toolboxes mean by `fcn_resnet50`.

The idea is that of Long, Shelhamer and Darrell (arXiv:1411.4038), without skips; the trunk is ResNet's at an eighth of
the image.

Shape letters: B batch, C channels, K classes, H and W the image, h and w a feature map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import interpolate

from segbench.errors import check
from segbench.models.layers import scaled
from segbench.models.published.sets import IMAGENET, Input
from segbench.models.published.state_dict import read_state_dict
from segbench.models.resnet import BLOCKS, STRIDE, ResNet
from segbench.models.streams import heads, inputs_by_stream, streams
from segbench.spec import TileGeometry


class FCNResNet(nn.Module):
    """ResNet at an eighth of the image, a 3x3 convolution to a quarter of the channels, scores, bilinear to the image.

    32,957,013 (depth 50) and 51,949,141 (101) parameters at 21 classes and 3 channels. torchvision's second classifier
    on the third stage, which only its training uses, is left out.

    Args:
        in_channels: C of the image, or C by modality; several are concatenated.
        num_classes: K, or K by head.
        depth: 50 or 101.
        width: fraction of each layer's channels to build, for tests and small data.
        dropout: probability before the scores.

    Attributes:
        architecture: `fcn_resnet50` or `fcn_resnet101`.
        geometry: sides are multiples of 8, and kept; the network itself takes any.
        streams: one.

    Raises:
        SegbenchError: an argument out of range.
    """

    first = "backbone.conv1"
    unplaced = ("backbone.fc", "aux_classifier.*")
    """Layers of torchvision's files that are left out."""
    drawn = ("classifier*",)
    """Layers that a classification net's file lacks."""

    def __init__(
        self,
        in_channels: int | Mapping[str, int] = 3,
        num_classes: int | Mapping[str, int] = 21,
        depth: int = 50,
        width: float = 1.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check("model.depth", depth, depth in BLOCKS, " or ".join(map(str, BLOCKS)), 50)
        check("model.width", width, 0 < width <= 1, "a fraction above 0, at most 1", 1.0)
        check("model.dropout", dropout, 0 <= dropout < 1, "a probability from 0 to below 1", 0.1)
        self.architecture = f"fcn_resnet{depth}"
        self.streams = tuple(replace(each, first=self.first) for each in streams(in_channels, "early", self.first))
        self.heads = heads(num_classes)
        self.backbone = ResNet(depth, self.streams[0].channels, width)
        inner = scaled(self.backbone.channels, 1 / 4)
        for head in self.heads.values():
            classifier = nn.Sequential(
                nn.Conv2d(self.backbone.channels, inner, 3, padding=1, bias=False),
                nn.BatchNorm2d(inner),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Conv2d(inner, head.classes, 1),
            )
            self.add_module(f"classifier{head.suffix}", classifier)
        # The classifier's 3x3 window, and up to one and a half cells of its map between which pixels are interpolated.
        self.geometry = TileGeometry(step=STRIDE, context=self.backbone.context + 3 * STRIDE)

    @classmethod
    def expects(cls, arguments: Mapping[str, Any]) -> Input:
        """The input that torchvision's weights expect, whatever the arguments."""
        return IMAGENET

    def published_weights(self, path: Path) -> dict[str, Tensor]:
        """A file of torchvision by this network's names: its FCN of this depth, or its classification net.

        Args:
            path: the file.

        Raises:
            SegbenchError: it cannot be read.
        """
        entries = read_state_dict(path)
        return {f"backbone.{name}": value for name, value in entries.items()} if "conv1.weight" in entries else entries

    def forward(self, image: Tensor | Mapping[str, Tensor]) -> Tensor | dict[str, Tensor]:
        """Class scores of every pixel.

        Args:
            image: image_BCHW float, or one by modality, all of one size; any H, W >= 1.

        Returns:
            logits_BKHW, or one by head where `num_classes` is by head.

        Raises:
            SegbenchError: a missing modality, or wrong channels.
        """
        (image_BCHW,) = inputs_by_stream(image, self.streams)
        features_BChw = self.backbone(image_BCHW)
        logits = {
            name: interpolate(
                self.get_submodule(f"classifier{head.suffix}")(features_BChw),
                image_BCHW.shape[-2:],
                mode="bilinear",
                align_corners=False,
            )
            for name, head in self.heads.items()
        }
        return logits[""] if "" in logits else logits
