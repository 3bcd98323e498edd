"""Images as published weights expect them, where those were trained on another scale than the data set's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from segbench.data.raw import DataSet, Source
from segbench.models.published.sets import Input
from segbench.spec import DatasetSpec


@dataclass(frozen=True)
class Rescaled:
    """A data set under another normalisation.

    Attributes:
        dataset: whose images they are.
        spec: its own but for means and deviations.
    """

    dataset: DataSet
    spec: DatasetSpec

    def split(self, name: str) -> Source | None:
        """As the data set's."""
        return self.dataset.split(name)


IMAGENET_STD = 57.6
"""The deviation of ImageNet's images in grey levels, the mean of its three colours."""


def rescaled(dataset: DataSet, inputs: Mapping[str, Input]) -> DataSet:
    """The data set, normalised on the scale that the weights expect.

    Weights that divide by a deviation bring theirs along. Those that only subtract a mean take the data set's: the FCN
    authors trained on VOC's and NYUDv2's own means from nets that knew another, and a difference of a grey level or two
    is learned. A scale of 1 in place of 255 is not: a data set that divides by its own deviation (EM, cells, one's own
    images) no longer does where its values are grey levels from 0 to 255, and comes out with the deviation of
    ImageNet's images where they are not.

    Args:
        dataset: gives colours as R, G, B from 0 to 255.
        inputs: of a weight set, by modality; other modalities than named take those of `rgb`, where there are any.
    """
    spec = dataset.spec
    modalities = dict(spec.modalities)
    for name, modality in spec.modalities.items():
        expected = inputs.get(name, inputs.get("rgb"))
        if name in inputs and set(inputs[name].std) != {1.0}:
            mean, std = inputs[name].in_grey_levels("RGB")
            modalities[name] = replace(modality, mean=mean, std=std)
        elif expected is not None and set(modality.std) != {1.0}:
            unit = sum(expected.in_grey_levels()[1]) / len(expected.std)
            factor = unit / IMAGENET_STD
            grey_levels = "0 to 255" in modality.unit
            std = (unit,) * modality.channels if grey_levels else tuple(value * factor for value in modality.std)
            modalities[name] = replace(modality, std=std)
    return dataset if modalities == dict(spec.modalities) else Rescaled(dataset, replace(spec, modalities=modalities))
