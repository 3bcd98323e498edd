"""A U-Net over any encoder of timm (`pip install 'segbench[timm]'`).

Shape letters: B batch, C channels, K classes, H and W the image, h and w a feature map.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from segbench.errors import SegbenchError, check
from segbench.models.adapter import Adapter, Counts, below, fetching, mean_and_std, package, told, totals
from segbench.models.unet import UpPath

ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False})
"""How timm's networks of a fixed size are asked to take any, by the arguments of one or the other."""


def _timm() -> Any:
    return package("timm", "timm")


class UNetOnEncoder(UpPath):
    """U-Net's expanding path over an encoder's maps.

    The map at each power of two is a skip. At sizes that the encoder has no map of (the image's own, and half of it in
    most transformers), two 3x3 convolutions of the image at that size are.

    Args:
        encoder: of timm, with `features_only`.
        channels: C of the image.
        classes: K.
        width: channels of the skips at the image's own size; they double where it halves.
        norm: normalise after 3x3 convolutions.

    Attributes:
        deepest: pixels of the image on a side of the encoder's deepest map's.
    """

    def __init__(self, encoder: Any, channels: int, classes: int, width: int, norm: bool) -> None:
        super().__init__(padding=1, normalised=norm)
        # Of several maps of one size the last.
        maps = {int(side): place for place, side in enumerate(encoder.feature_info.reduction())}
        found = encoder.feature_info.channels()
        self.deepest = max(maps)
        depth = self.deepest.bit_length() - 1
        if odd := [side for side in maps if side & (side - 1)]:
            raise SegbenchError(
                f"an encoder with maps at a {odd[0]}th of the image",
                "maps at powers of two",
                "choose another model.encoder, or its maps by model.options.out_indices",
            )
        self.places = [maps.get(2**level) for level in range(depth + 1)]
        skips = [width * 2**level if place is None else found[place] for level, place in enumerate(self.places)]
        for level in (level for level, place in enumerate(self.places) if place is None):
            self._add_conv3x3(f"d{level}", "a", "b", channels, skips[level])
            self._add_conv3x3(f"d{level}", "b", "c", skips[level], skips[level])
        self._add_levels(skips[-1], skips[:-1])
        self.conv_u0d_score = nn.Conv2d(skips[0], classes, 1)
        self.reset_parameters()
        self.encoder = encoder
        self.last_channel = str(getattr(encoder, "output_fmt", "")).endswith("NHWC")

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Scores BKHW; H and W are multiples of `deepest`."""
        maps = [each.movedim(-1, 1) if self.last_channel else each for each in self.encoder(image_BCHW)]
        skips = []
        for level, place in enumerate(self.places):
            if place is None:
                shrunk = avg_pool2d(image_BCHW, 2**level) if level else image_BCHW
                skips.append(self._two_convs(f"d{level}", "abc", shrunk))
            else:
                skips.append(maps[place])
        scores_BKHW: Tensor = self.conv_u0d_score(self._ascend(skips.pop(), skips))
        return scores_BKHW


class TimmUNet(Adapter):
    """A U-Net over an encoder of timm.

    Args:
        in_channels: C of the image, or C by modality.
        num_classes: K, or K by head.
        encoder: its name in timm, e.g. `resnet34`, `convnext_tiny`, `swin_tiny_patch4_window7_224`.
        pretrained: the tag of its weights there, e.g. `a1_in1k`; `default` for the first.
        options: further arguments of `timm.create_model`, e.g. `{drop_path_rate: 0.1}`.
        width: channels of the skips at the image's own size.
        norm: batch normalisation after the 3x3 convolutions of the way up.
        mean: that the weights expect, RGB from 0 to 1; None: ImageNet's. A training fills it in.
        std: likewise.
        step: sides are multiples of it; None: of the encoder's deepest map.
        context: by which tiles of large images overlap.

    Raises:
        SegbenchError: the package is missing, or refuses the arguments.
    """

    drawn = ("network.conv_*", "network.upconv_*", "network.norm_*")
    packages = ("timm",)

    def __init__(
        self,
        in_channels: Counts = 3,
        num_classes: Counts = 2,
        encoder: str = "resnet34",
        pretrained: str | None = None,
        options: dict[str, Any] | None = None,
        width: int = 32,
        norm: bool = True,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        step: int | None = None,
        context: int = 128,
    ) -> None:
        check("model.width", width, width >= 1, "at least 1", 32)
        channels, classes = totals(in_channels, num_classes)
        with told(
            f"model.encoder={encoder}",
            "an encoder of timm that gives maps (features_only), and options that it takes",
            "timm.list_models() names them; correct model.encoder or model.options",
        ):
            built = _encoder(encoder, channels, options or {})
        network = UNetOnEncoder(built, channels, classes, width, norm)
        super().__init__(network, in_channels, num_classes, pretrained, step or network.deepest, context)
        self.encoder_name, self.options = encoder, options or {}

    @classmethod
    def settled(cls, arguments: Mapping[str, Any], path: str | None) -> dict[str, Any]:
        """The arguments with the mean and deviation of the encoder's weights, which timm knows without a network."""
        timm, filled, pretrained = _timm(), dict(arguments), arguments.get("pretrained")
        if (pretrained is not None or path is not None) and arguments.get("mean") is None:
            settings = timm.get_pretrained_cfg(_tagged(str(arguments["encoder"]), pretrained))
            filled |= mean_and_std(vars(settings)) if settings is not None else {}
        return filled

    def published_weights(self, path: Path | None) -> dict[str, Tensor]:
        """The encoder's weights by this network's names.

        Args:
            path: timm's file, as its hub has it; None: from the hub.

        Raises:
            SegbenchError: they cannot be fetched or read.
        """
        given = {} if path is None else {"pretrained_cfg_overlay": {"file": str(path)}}
        name = _tagged(self.encoder_name, None if path is not None else self.pretrained)
        with fetching(str(path or self.pretrained)):
            encoder = _encoder(name, self.streams[0].channels, self.options | given, pretrained=True)
        return below("network.encoder", encoder.state_dict())


def _tagged(encoder: str, pretrained: str | None) -> str:
    return encoder if pretrained in (None, "default") else f"{encoder}.{pretrained}"


def _encoder(name: str, channels: int, options: Mapping[str, Any], pretrained: bool = False) -> Any:
    timm = _timm()
    given = {"features_only": True, "in_chans": channels, "pretrained": pretrained, **options}
    settings = timm.get_pretrained_cfg(name)
    fixed = settings is not None and settings.fixed_input_size and "img_size" not in options
    for any_size in ANY_SIZE if fixed else ():
        try:
            return timm.create_model(name, **given, **any_size)
        except TypeError:
            # It does not take this argument.
            continue
    return timm.create_model(name, **given)
