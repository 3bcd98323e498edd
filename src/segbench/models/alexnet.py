"""CaffeNet (AlexNet with pooling before normalisation) made fully convolutional, as in the release's `voc-fcn-alexnet`.

Krizhevsky, Sutskever and Hinton (NIPS 2012) split conv2, conv4 and conv5 over two GPUs, so they are grouped.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from segbench.models.backbone import Backbone, Layer, Upsampling
from segbench.models.layers import MatrixConv2d, lrn, max_pool, scaled

PAD = 100
GROUPS = 2


def build(in_channels: int, width: float) -> dict[str, nn.Module]:
    """The layers by name: five convolutions, and fc6 and fc7 as convolutions of 6x6 and 1x1."""
    c96, c256, c384, c4096 = (scaled(channels, width, GROUPS) for channels in (96, 256, 384, 4096))
    return {
        "conv1": nn.Conv2d(in_channels, c96, 11, stride=4, padding=PAD),
        "conv2": nn.Conv2d(c96, c256, 5, padding=2, groups=GROUPS),
        "conv3": nn.Conv2d(c256, c384, 3, padding=1),
        "conv4": nn.Conv2d(c384, c384, 3, padding=1, groups=GROUPS),
        "conv5": nn.Conv2d(c384, c256, 3, padding=1, groups=GROUPS),
        "fc6": MatrixConv2d(c256, c4096, 6),
        "fc7": nn.Conv2d(c4096, c4096, 1),
    }


def run(layer: Layer, image_BCHW: Tensor, dropout: nn.Module) -> dict[str, Tensor]:
    """fc7, one value for 32 pixels."""
    x = relu(layer("conv1")(image_BCHW), inplace=True)
    x = lrn(max_pool(x, kernel=3, stride=2))
    x = relu(layer("conv2")(x), inplace=True)
    x = lrn(max_pool(x, kernel=3, stride=2))
    for name in ("conv3", "conv4", "conv5"):
        x = relu(layer(name)(x), inplace=True)
    x = max_pool(x, kernel=3, stride=2)
    for name in ("fc6", "fc7"):
        x = dropout(relu(layer(name)(x), inplace=True))
    return {"fc7": x}


def channels(name: str, width: float) -> int:
    """C of a map that is scored."""
    return scaled({"fc7": 4096}[name], width, GROUPS)


# Value i of fc7 is centred on pixel 32 i + 13 of the image, its kernel in upscore on 32 i + 31: hence 18.
ALEXNET = Backbone(
    name="alexnet",
    first="conv1",
    build=build,
    run=run,
    channels=channels,
    top="fc7",
    decoders={32: (Upsampling("upscore", kernel=63, stride=32, offset=18),)},
)
