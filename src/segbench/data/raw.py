"""What a data set gives: images and labels as they are on disk, read one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from segbench.spec import DatasetSpec


@dataclass(frozen=True)
class RawImage:
    """One image with its labels, in raw units.

    Attributes:
        images: HW or HWC by modality, in the unit that its `ModalitySpec` names.
        labels: HW uint8 by head; empty where there is no label.
        id: the image's name in its data set.
        instances: HW int32 object ids, 0 = none, where the data set has them.
        references: further object ids by name (gold truth beside silver), for evaluation alone; 0 everywhere where
            this image has none.
    """

    images: Mapping[str, NDArray[np.generic]]
    labels: Mapping[str, NDArray[np.uint8]]
    id: str
    instances: NDArray[np.int32] | None = None
    references: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)


class Source(Protocol):
    """One split of a data set.

    Attributes:
        ids: the images' names, in the order of their indices.
    """

    ids: tuple[str, ...]

    def __len__(self) -> int:
        """The number of images."""
        ...

    def read(self, index: int) -> RawImage:
        """The image at `index`, 0 <= index < len."""
        ...


class DataSet(Protocol):
    """A data set: what it is, and its splits `train`, `val`, `test`, `predict` (those that its protocol has)."""

    @property
    def spec(self) -> DatasetSpec:
        """Modalities, heads, citation, licence, protocol."""
        ...

    def split(self, name: str) -> Source | None:
        """The split, or None where the protocol has none of that name."""
        ...
