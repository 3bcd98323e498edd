"""Semantic segmentation networks of transformers (`pip install 'segbench[hf]'`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segbench.errors import SegbenchError
from segbench.models.adapter import Adapter, Counts, below, fetching, mean_and_std, package, told, totals

_NOT_OF_A_NETWORK = ("model_type", "architectures", "transformers_version", "dtype", "torch_dtype", "num_channels")
"""Entries of a config that are of a file, or of the data."""
_OF_LABELS = ("id2label", "label2id", "num_labels")
MASKS = ("mask2former", "maskformer")
"""Architectures that give masks with classes. Of the others of their kind OneFormer asks for a text too, and DETR, EoMT
and their like have not been tried."""
_WITHOUT = {"upernet": {"use_auxiliary_head": False}, "beit": {"use_auxiliary_head": False}}
_WITHOUT["data2vec-vision"] = _WITHOUT["beit"]
"""Second heads that only a loss of transformers would train."""


def _transformers() -> Any:
    return package("transformers", "hf")


class HF(Adapter):
    """A network of transformers' auto classes for semantic or universal segmentation.

    Scores that are smaller than the image are scaled up bilinearly, as SegFormer's paper does (arXiv:2105.15203,
    section 3.2). Those that give masks with classes (MaskFormer, Mask2Former; arXiv:2107.06278, section 3.4) score a
    pixel's classes by the sum over queries of class probability times mask probability. The loss gets its logarithm, so
    they are trained pixel by pixel, without their matching of masks.

    Args:
        in_channels: C of the image, or C by modality.
        num_classes: K, or K by head.
        architecture: the type of the config there: `segformer`, `upernet`, `mask2former`, `dpt`, `beit` ...
        options: entries of that config, e.g. `{depths: [2, 2, 2, 2]}`; those of `pretrained` if there are none, which a
            training fills in.
        pretrained: a name on the hub, e.g. `nvidia/mit-b0`.
        mean: that the weights expect, RGB from 0 to 1; None: ImageNet's. A training fills it in.
        std: likewise.
        step: sides are multiples of it.
        context: by which tiles of large images overlap.

    Raises:
        SegbenchError: the package is missing, or refuses the arguments.
    """

    unplaced = ("network.auxiliary_head*",)
    drawn = ("*",)
    packages = ("transformers",)

    def __init__(
        self,
        in_channels: Counts = 3,
        num_classes: Counts = 2,
        architecture: str = "segformer",
        options: dict[str, Any] | None = None,
        pretrained: str | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        step: int = 32,
        context: int = 128,
    ) -> None:
        channels, classes = totals(in_channels, num_classes)
        with told(
            f"model.architecture={architecture} model.options={options or {}}",
            f"an architecture ({', '.join(_auto_classes())}), and entries of its config",
            "correct model.architecture or model.options",
        ):
            network = _auto_classes()[architecture].from_config(_config(architecture, options, channels, classes))
        super().__init__(network, in_channels, num_classes, pretrained, step, context)
        self.gives_masks = architecture in MASKS
        if self.gives_masks:
            self.remark = f"{architecture} is trained pixel by pixel here, not by its paper's loss of matched masks"

    @classmethod
    def settled(cls, arguments: Mapping[str, Any], path: str | None) -> dict[str, Any]:
        """The arguments with the config, mean and deviation of the weights."""
        transformers, filled, source = _transformers(), dict(arguments), path or arguments.get("pretrained")
        if source is None or arguments.get("options"):
            return filled
        with fetching(str(source)):
            found = transformers.AutoConfig.from_pretrained(str(source)).to_dict()
            try:
                processor = transformers.AutoImageProcessor.from_pretrained(str(source), use_fast=False)
                filled |= mean_and_std({"mean": processor.image_mean, "std": processor.image_std})
            except (OSError, ValueError):
                # A folder of weights alone has no settings of images: those of ImageNet hold.
                pass
        kept = {key: value for key, value in found.items() if key not in (*_NOT_OF_A_NETWORK, *_OF_LABELS)}
        return filled | {"architecture": found["model_type"], "options": _plain(kept)}

    def scores(self, image_BCHW: Tensor) -> Tensor:
        """Scores BKHW."""
        output = self.network(image_BCHW)
        if self.gives_masks:
            # The last class of a query is "none".
            classes_BQK = output.class_queries_logits.softmax(-1)[..., :-1]
            masks_BQhw = _upsampled(output.masks_queries_logits, image_BCHW).sigmoid()
            return torch.einsum("bqk,bqhw->bkhw", classes_BQK, masks_BQhw).float().clamp_min(1e-6).log()
        return _upsampled(output.logits, image_BCHW)

    def published_weights(self, path: Path | None) -> dict[str, Tensor]:
        """The weights by this network's names, without scores of other classes.

        Args:
            path: a folder that `save_pretrained` wrote, or a clone of the hub's; None: from the hub.

        Raises:
            SegbenchError: they cannot be fetched or read, or are of another network.
        """
        source = str(path or self.pretrained)
        own: Any = self.network
        with fetching(source):
            network, info = type(own).from_pretrained(source, output_loading_info=True)
        missing, ours, theirs = set(info["missing_keys"]), own.config.num_labels, network.config.num_labels
        entries = below("network", {k: v for k, v in network.state_dict().items() if k not in missing})
        if not entries:
            raise SegbenchError(
                f"{source} has no weights of {type(network).__name__}",
                "weights of this architecture",
                "correct model.architecture, or use other weights",
            )
        mine = self.state_dict()

        def of_other_classes(name: str, value: Tensor) -> bool:
            # Those of masks have one class more.
            heights = {(theirs, ours), (theirs + 1, ours + 1)}
            return ours != theirs and name in mine and (value.shape[:1] + mine[name].shape[:1]) in heights

        return {name: value for name, value in entries.items() if not of_other_classes(name, value)}


def _auto_classes() -> dict[str, Any]:
    """The class that builds each architecture."""
    transformers = _transformers()
    auto = package("transformers.models.auto.modeling_auto", "hf")
    semantic = dict.fromkeys(
        auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES, transformers.AutoModelForSemanticSegmentation
    )
    return semantic | dict.fromkeys(MASKS, transformers.AutoModelForUniversalSegmentation)


def _config(architecture: str, given: Mapping[str, Any] | None, channels: int, classes: int) -> Any:
    entries = _WITHOUT.get(architecture, {}) | dict(given or {})
    built = _transformers().AutoConfig.for_model(architecture, **entries, num_labels=classes)
    for part in (built, getattr(built, "backbone_config", built)):
        if hasattr(part, "num_channels"):
            part.num_channels = channels
    return built


def _upsampled(maps_BNhw: Tensor, image_BCHW: Tensor) -> Tensor:
    return interpolate(maps_BNhw, image_BCHW.shape[-2:], mode="bilinear", align_corners=False)


def _plain(value: Any) -> Any:
    """JSON's values, as a config holds them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items() if key not in ("id2label", "label2id")}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
