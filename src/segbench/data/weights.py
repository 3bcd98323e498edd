"""The pixel weights of a raw image: instances from its label, and the paper's map over them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segbench.data.cells import connected_cells
from segbench.data.raw import RawImage
from segbench.data.weight_map import Balance, WeightMapCache
from segbench.spec import DatasetSpec


class _Seen(NamedTuple):
    """What an image's weights were computed from, and those."""

    label_HW: NDArray[Any]
    instances_HW: NDArray[np.int32] | None
    weight_HW: NDArray[np.float32]

    def is_of(self, label_HW: NDArray[Any], instances_HW: NDArray[np.int32] | None) -> bool:
        if (self.instances_HW is None) != (instances_HW is None) or not np.array_equal(self.label_HW, label_HW):
            return False
        return instances_HW is None or np.array_equal(self.instances_HW, instances_HW)  # type: ignore[arg-type]


class LossWeights:
    """Pixel weights for the images of a data set (U-Net, section 3).

    Args:
        spec: of the data set; its first head's label is used.
        w0: height of the border term.
        sigma: its width in pixels.
        balance: how classes are balanced, as in `weight_map`.
        folder: where maps are kept between runs; None keeps them in memory.
        cell_class: the class of objects, in data that has them.
    """

    def __init__(
        self,
        spec: DatasetSpec,
        w0: float = 10.0,
        sigma: float = 5.0,
        balance: Balance = "image",
        folder: str | None = None,
        cell_class: int = 1,
    ) -> None:
        self._head = next(iter(spec.heads))
        self._void = spec.heads[self._head].ignore_index
        self._maps = WeightMapCache(folder, w0, sigma, balance)
        self._cell_class, self._core_class = cell_class, spec.heads[self._head].core_class
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    def instances(self, raw: RawImage) -> NDArray[np.int32]:
        """The image's objects where its label is cell or core; if the image has none, the label's connected cells.

        Objects may touch; the label separates them, by background or a class between them, and there the border term
        applies.
        """
        return self._cells(raw.labels[self._head], raw.instances)

    def _cells(self, label_HW: NDArray[Any], instances_HW: NDArray[np.int32] | None) -> NDArray[np.int32]:
        if instances_HW is None:
            return connected_cells(label_HW, ignore_index=self._void)
        inside_HW = label_HW == self._cell_class
        if self._core_class is not None:
            inside_HW |= label_HW == self._core_class
        return np.where(inside_HW, instances_HW, 0).astype(np.int32, copy=False)

    def __call__(self, raw: RawImage) -> NDArray[np.float32]:
        """HW float32, read-only, computed once for the same label."""
        # To compare an image's label with its last one takes a hundredth of finding the cells and their map again.
        label_HW = raw.labels[self._head]
        seen = self._seen.pop(raw.id, None)
        if seen is None or not seen.is_of(label_HW, raw.instances):
            weight_HW = self._maps(self.instances(raw), label_HW == self._void)
            seen = _Seen(label_HW.copy(), None if raw.instances is None else raw.instances.copy(), weight_HW)
        self._seen[raw.id] = seen
        if len(self._seen) > self._maps.in_memory:
            self._seen.popitem(last=False)
        return seen.weight_HW

    def of_warped(self, labels: Mapping[str, NDArray[Any]], instances: NDArray[np.int32] | None) -> NDArray[np.float32]:
        """HW float32 of a tile that is seen once: not cached."""
        label_HW = labels[self._head]
        return self._maps.compute(self._cells(label_HW, instances), label_HW == self._void)
