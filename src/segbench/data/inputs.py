"""Images as published weights expect them, where those were trained on another scale than the data set's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from segbench.data.raw import DataSet, Source
from segbench.models.weight_sets import Input
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


def rescaled(dataset: DataSet, inputs: Mapping[str, Input]) -> DataSet:
    """The data set, normalised as the weights expect it where they divide by a deviation.

    Weights that only subtract a mean take the data set's: the FCN authors trained on VOC's and NYUDv2's own means from
    nets that knew another, and a difference of a grey level or two is learned. A scale of 1 in place of 255 is not.

    Args:
        dataset: gives colours as R, G, B from 0 to 255.
        inputs: of a weight set, by modality.
    """
    spec = dataset.spec
    modalities = dict(spec.modalities)
    for name, expected in inputs.items():
        if name in modalities and set(expected.std) != {1.0}:
            mean, std = expected.in_grey_levels("RGB")
            modalities[name] = replace(modalities[name], mean=mean, std=std)
    return dataset if modalities == dict(spec.modalities) else Rescaled(dataset, replace(spec, modalities=modalities))
