"""Images as published weights expect them, if those were trained on another scale than the data set's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from segbench.data.raw import DataSet, Source
from segbench.models.published.sets import Input
from segbench.spec import DatasetSpec


@dataclass(frozen=True)
class Rescaled:
    """A data set with another normalisation: its own spec except for means and deviations."""

    dataset: DataSet
    spec: DatasetSpec

    def split(self, name: str) -> Source | None:
        """The data set's, with these means where an image has no data."""
        source = self.dataset.split(name)
        fill = getattr(source, "filled_with", None)
        return source if fill is None else cast(Source, fill(self.spec.modalities))


def colours_as(expected: Input, spec: DatasetSpec) -> dict[str, Input]:
    """What `rescaled` takes for weights that are of no named set: every colour image as they expect it, exactly.

    Colours are three channels of grey levels, whatever their modality is called, except HHA; anything else is only
    brought to the scale.

    Args:
        expected: by the weights.
        spec: of the data set.
    """
    colours = {
        name: expected
        for name, modality in spec.modalities.items()
        if modality.channels == 3 and "0 to 255" in modality.unit and name != "hha"
    }
    return {"rgb": expected} | colours


IMAGENET_STD = 57.6
"""Standard deviation of ImageNet's images in grey levels, averaged over the three colours."""


def rescaled(dataset: DataSet, inputs: Mapping[str, Input]) -> DataSet:
    """The data set, normalised to the scale that the weights expect.

    Weights trained with division by a deviation bring their own mean and deviation. Those that only subtract a mean use
    the data set's: the FCN authors started from nets with another mean and trained on VOC's and NYUDv2's own, and a
    difference of one or two grey levels is learned. A scale of 1 instead of 255 is not: a data set that divides by its
    own deviation (EM, cells, image folders) no longer does if its values are grey levels from 0 to 255; otherwise it is
    scaled to the deviation of ImageNet's images.

    Args:
        dataset: its colours are R, G, B from 0 to 255.
        inputs: of a weight set, by modality; modalities that it does not name use those of `rgb`, if there are any.
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
