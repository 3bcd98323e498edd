"""Networks of segmentation_models_pytorch: any architecture and encoder by name (`pip install 'segbench[smp]'`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from segbench.models.adapter import Adapter, Counts, below, fetching, mean_and_std, package, told, totals
from segbench.models.published.state_dict import read_state_dict


def _smp() -> Any:
    return package("segmentation_models_pytorch", "smp")


class SMP(Adapter):
    """An encoder and a decoder of segmentation_models_pytorch.

    Args:
        in_channels: C of the image, or C by modality.
        num_classes: K, or K by head.
        architecture: `Unet`, `UnetPlusPlus`, `MAnet`, `Linknet`, `FPN`, `PSPNet`, `PAN`, `DeepLabV3`, `DeepLabV3Plus`,
            `UPerNet`, `Segformer`, `DPT`, in any case.
        encoder: its name there, e.g. `resnet34`, `mit_b0`; `tu-NAME` for one of timm.
        pretrained: the encoder's weights by their name there, mostly `imagenet`; of `tu-NAME` any name.
        options: further arguments of the architecture, e.g. `{decoder_channels: [64, 32, 16], encoder_depth: 3}`.
        mean: that the weights expect, RGB from 0 to 1; None: ImageNet's. A training fills it in.
        std: likewise.
        step: sides are multiples of it; None: as the encoder says.
        context: by which tiles of large images overlap.

    Raises:
        SegbenchError: the package is missing, or refuses the arguments.
    """

    unplaced = ("network.encoder.fc", "network.encoder.last_linear", "network.encoder.classifier*")
    drawn = ("network.decoder*", "network.segmentation_head*", "network.classification_head*")
    packages = ("segmentation_models_pytorch", "timm")

    def __init__(
        self,
        in_channels: Counts = 3,
        num_classes: Counts = 2,
        architecture: str = "Unet",
        encoder: str = "resnet34",
        pretrained: str | None = None,
        options: dict[str, Any] | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        step: int | None = None,
        context: int = 128,
    ) -> None:
        smp = _smp()
        channels, classes = totals(in_channels, num_classes)
        known = ", ".join(sorted(smp.MODEL_ARCHITECTURES_MAPPING))
        with told(
            f"model.architecture={architecture} model.encoder={encoder}",
            f"an architecture ({known}), an encoder of it, and options that both take",
            "correct model.architecture, model.encoder or model.options",
        ):
            network = smp.create_model(architecture, encoder, None, channels, classes, **(options or {}))
        super().__init__(
            network, in_channels, num_classes, pretrained, step or int(network.encoder.output_stride), context
        )
        self.encoder, self.options = encoder, options or {}

    @classmethod
    def settled(cls, arguments: Mapping[str, Any], path: str | None) -> dict[str, Any]:
        """The arguments with the mean and deviation of the encoder's weights."""
        smp, filled, pretrained = _smp(), dict(arguments), arguments.get("pretrained")
        if pretrained is not None and path is None and arguments.get("mean") is None:
            with fetching(str(pretrained)):
                filled |= mean_and_std(smp.encoders.get_preprocessing_params(str(arguments["encoder"]), pretrained))
        return filled

    def scores(self, image_BCHW: Tensor) -> Tensor:
        """Scores BKHW; the labels of an option `aux_params` are left out."""
        output = self.network(image_BCHW)
        scores: Tensor = output[0] if isinstance(output, tuple) else output
        return scores

    def published_weights(self, path: Path | None) -> dict[str, Tensor]:
        """The encoder's weights, or those of a whole network, by this network's names.

        Args:
            path: a state dict of the whole network or of the encoder, for `tu-NAME` timm's file; None: from the hub.

        Raises:
            SegbenchError: they cannot be fetched or read.
        """
        timm = self.encoder.startswith("tu-")
        if path is not None:
            entries = read_state_dict(path)
            if any(name.startswith("encoder.") for name in entries):
                return below("network", entries)
            if not timm:
                return below("network.encoder", entries)
        given: dict[str, Any] = {"in_channels": self.streams[0].channels, "weights": True if timm else self.pretrained}
        given |= {
            name.removeprefix("encoder_"): value for name, value in self.options.items() if name.startswith("encoder_")
        }
        given |= {} if path is None else {"pretrained_cfg_overlay": {"file": str(path)}}
        with fetching(str(path or self.pretrained)):
            encoder = _smp().encoders.get_encoder(self.encoder, **given)
        return below("network.encoder", encoder.state_dict())
