"""The published weights that the networks take: their source, the input they expect, how their layers map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from segbench.models.vgg16 import STAGES


@dataclass(frozen=True)
class Input:
    """The input of one modality that a weight set expects: `(value - mean) / std`, channels in `order`.

    Attributes:
        order: of the channels, one letter each: `BGR`, `RGB`, `HHA`.
        scale: the value of white, 255 or 1.
        mean: one per channel, in `order`.
        std: likewise.
    """

    order: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def in_grey_levels(self, order: str | None = None) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(mean, std) for values from 0 to 255 with channels in `order` (`RGB` or `BGR`; its own if None)."""
        # HHA names two channels H, and has no other order.
        order = order or self.order
        places = range(len(order)) if order == self.order else [self.order.index(channel) for channel in order]
        factor = 255 / self.scale
        mean, std = (tuple(values[place] * factor for place in places) for values in (self.mean, self.std))
        return mean, std

    def __str__(self) -> str:
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"{self.order} from 0 to {self.scale:g}, less {mean}" + (
            "" if set(self.std) == {1.0} else f", over {std}"
        )


@dataclass(frozen=True)
class WeightSet:
    """A file of published weights.

    Attributes:
        name: its published name.
        url: of the file, or of its archive.
        page: its description.
        architecture: the backbone (`vgg16`, `alexnet`, `googlenet`) of an ImageNet net, whose layers go into every
            stream; else the architecture (`fcn8s`, `unet phseg_v5`) that it fills completely.
        inputs: what it expects, by modality; empty if not published.
        fully_connected: layers that become convolutions, their rows reshaped to (C, h, w).
        left_over: patterns of its layers that no FCN has.
        drawn: patterns of the network's layers that it does not fill.
        renamed: the network's layer by the file's, where more than '-' and '_' differ.
        deviation: how a run with it deviates from the papers.
    """

    name: str
    url: str
    page: str
    architecture: str
    inputs: Mapping[str, Input]
    kind: Literal["ImageNet", "whole"] = "whole"
    format: Literal["caffemodel", "torch"] = "caffemodel"
    fully_connected: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()
    renamed: Mapping[str, str] | None = None
    deviation: str = ""


IMAGENET = Input("RGB", 1, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""What most classification nets trained with torch expect."""

# Mean images in grey levels. The FCN authors subtract that of ILSVRC, which is CaffeNet's, under all their VOC nets.
_ILSVRC = Input("BGR", 255, (104.00699, 116.66877, 122.67892))
_NYUD_COLOR = Input("BGR", 255, (116.190, 97.203, 92.318))
_NYUD_HHA = Input("HHA", 255, (132.431, 94.076, 118.477))
_SIFT_FLOW = Input("BGR", 255, (114.578, 115.294, 108.353))
_CONTEXT = Input("BGR", 255, (104.007, 116.669, 122.679))

_SCORES = ("score_*", "upscore*")
_CAFFE_ZOO = "https://github.com/BVLC/caffe/tree/master/models"
_BERKELEY = "http://dl.caffe.berkeleyvision.org"
_FCN = "https://github.com/shelhamer/fcn.berkeleyvision.org/tree/master"

# torchvision numbers the layers of VGG16: 13 convolutions among `features`, then fc6 and fc7.
_NUMBERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_CONVOLUTIONS = (name for names, _, _ in STAGES for name in names)
_TORCHVISION = {f"features.{number}": name for number, name in zip(_NUMBERS, _CONVOLUTIONS, strict=True)} | {
    "classifier.0": "fc6",
    "classifier.3": "fc7",
}


def _released(name: str, architecture: str, folder: str, **inputs: Input) -> WeightSet:
    return WeightSet(name, f"{_BERKELEY}/{name}.caffemodel", f"{_FCN}/{folder}", architecture, inputs)


WEIGHT_SETS: Mapping[str, WeightSet] = {
    weight_set.name: weight_set
    for weight_set in (
        WeightSet(
            "VGG_ILSVRC_16_layers",
            "http://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe/VGG_ILSVRC_16_layers.caffemodel",
            "https://www.robots.ox.ac.uk/~vgg/research/very_deep/",
            "vgg16",
            {"rgb": Input("BGR", 255, (103.939, 116.779, 123.68))},
            "ImageNet",
            fully_connected=("fc6", "fc7"),
            left_over=("fc8",),
            drawn=_SCORES,
        ),
        WeightSet(
            "bvlc_reference_caffenet",
            f"{_BERKELEY}/bvlc_reference_caffenet.caffemodel",
            f"{_CAFFE_ZOO}/bvlc_reference_caffenet",
            "alexnet",
            {"rgb": _ILSVRC},
            "ImageNet",
            fully_connected=("fc6", "fc7"),
            left_over=("fc8",),
            drawn=_SCORES,
        ),
        WeightSet(
            "bvlc_googlenet",
            f"{_BERKELEY}/bvlc_googlenet.caffemodel",
            f"{_CAFFE_ZOO}/bvlc_googlenet",
            "googlenet",
            {"rgb": Input("BGR", 255, (104.0, 117.0, 123.0))},
            "ImageNet",
            left_over=("loss1/*", "loss2/*", "loss3/*"),
            drawn=_SCORES,
        ),
        WeightSet(
            "torchvision-vgg16",
            "https://download.pytorch.org/models/vgg16-397923af.pth",
            "https://pytorch.org/vision/stable/models/generated/torchvision.models.vgg16.html",
            "vgg16",
            {"rgb": IMAGENET},
            "ImageNet",
            "torch",
            fully_connected=("fc6", "fc7"),
            left_over=("classifier.6",),
            drawn=_SCORES,
            renamed=_TORCHVISION,
            deviation="VGG16 of torchvision, not of the papers: other weights, RGB from 0 to 1, divided by a deviation;"
            " FCNs from it were published with 0.59 to 0.62 on seg11valid, where the authors' have 0.636 to 0.655",
        ),
        _released("fcn32s-heavy-pascal", "fcn32s", "voc-fcn32s", rgb=_ILSVRC),
        _released("fcn16s-heavy-pascal", "fcn16s", "voc-fcn16s", rgb=_ILSVRC),
        _released("fcn8s-heavy-pascal", "fcn8s", "voc-fcn8s", rgb=_ILSVRC),
        _released("fcn8s-atonce-pascal", "fcn8s_at_once", "voc-fcn8s-atonce", rgb=_ILSVRC),
        _released("fcn-alexnet-pascal", "fcn_alexnet", "voc-fcn-alexnet", rgb=_ILSVRC),
        _released("nyud-fcn32s-color-heavy", "fcn32s", "nyud-fcn32s-color", rgb=_NYUD_COLOR),
        _released("nyud-fcn32s-hha-heavy", "fcn32s", "nyud-fcn32s-hha", hha=_NYUD_HHA),
        _released("nyud-fcn32s-color-hha-heavy", "fcn32s", "nyud-fcn32s-color-hha", rgb=_NYUD_COLOR, hha=_NYUD_HHA),
        _released("siftflow-fcn32s-heavy", "fcn32s", "siftflow-fcn32s", rgb=_SIFT_FLOW),
        _released("siftflow-fcn16s-heavy", "fcn16s", "siftflow-fcn16s", rgb=_SIFT_FLOW),
        _released("siftflow-fcn8s-heavy", "fcn8s", "siftflow-fcn8s", rgb=_SIFT_FLOW),
        _released("pascalcontext-fcn32s-heavy", "fcn32s", "pascalcontext-fcn32s", rgb=_CONTEXT),
        _released("pascalcontext-fcn16s-heavy", "fcn16s", "pascalcontext-fcn16s", rgb=_CONTEXT),
        _released("pascalcontext-fcn8s-heavy", "fcn8s", "pascalcontext-fcn8s", rgb=_CONTEXT),
        WeightSet(
            "phseg_v5",
            "https://lmb.informatik.uni-freiburg.de/people/ronneber/u-net/u-net-release-2015-10-02.tar.gz",
            "https://lmb.informatik.uni-freiburg.de/people/ronneber/u-net/",
            "unet phseg_v5",
            {},
            deviation="the release's image normalisation is not known: find out before scoring these weights",
        ),
    )
}
"""By name: three ImageNet nets of the papers and torchvision's, the FCN authors' fourteen, the U-Net authors' one."""
