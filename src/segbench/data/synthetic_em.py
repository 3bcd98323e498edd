"""Drawn EM slices as a data set: the built-in default, which needs no download.

The difficulty was fixed before any network was trained on it: over eight slices the best single threshold of the raw
image reaches a mean IU between 0.50 and 0.75 (0.62 by default; 0.59 on the real ISBI 2012 training stack), because
organelles and smears are as dark as membranes and oblique membranes nearly as light as cytoplasm. Anything above that
is learned.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segbench.data.drawn_em.parameters import DEFAULT_PARAMETERS, SMALLEST_SIDE, EMParameters
from segbench.data.drawn_em.slices import draw_slice
from segbench.data.raw import RawImage, Source
from segbench.errors import SegbenchError
from segbench.spec import DatasetSpec, HeadSpec, ModalitySpec

SPLIT_STARTS = {"train": 0, "val": 1_000_000, "test": 2_000_000}
"""The index of each split's first slice, far apart so that splits never overlap."""

_CACHE_BYTES = 512 * 2**20
"""Drawn slices that a split keeps in a process; any others are drawn again at every read."""


class DrawnSlices(Source):
    """A run of slices, each drawn when it is first read.

    Args:
        split: the prefix of the ids.
        start: index of the first slice.
        count: the number of slices.
        height: this and the following as in `SyntheticEM`.
    """

    def __init__(
        self, split: str, start: int, count: int, height: int, width: int, seed: int, parameters: EMParameters
    ) -> None:
        self._start, self._height, self._width = start, height, width
        self._seed, self._parameters = seed, parameters
        self._drawn: dict[int, tuple[NDArray[np.uint8], NDArray[np.int32]]] = {}
        self.ids = tuple(f"{split}-{number:04d}" for number in range(count))

    def read(self, index: int) -> RawImage:
        """The slice at `index`: image `em`, label `semantic` (0 = membrane, 1 = cell) and the cells as instances.

        The arrays are copies.

        Raises:
            IndexError: no such slice.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"slice {index} of {len(self)}")
        drawn = self._drawn.get(index)
        if drawn is None:
            drawn = draw_slice(self._seed, self._start + index, self._height, self._width, self._parameters)
            if (len(self._drawn) + 1) * sum(array.nbytes for array in drawn) <= _CACHE_BYTES:
                self._drawn[index] = drawn
        image_HW, instances_HW = drawn
        labels = {"semantic": (instances_HW > 0).astype(np.uint8)}
        return RawImage({"em": image_HW.copy()}, labels, self.ids[index], instances_HW.copy())


class SyntheticEM:
    """Drawn slices in three disjoint splits.

    Args:
        train: number of training slices.
        val: of slices for selection.
        test: of slices that are reported.
        height: H of a slice in pixels, at least 16.
        width: W of a slice in pixels, at least 16.
        seed: of the drawing, 0 or more; not the run's seed, so that runs of different seeds see the same data.
        parameters: the slices' appearance.

    Raises:
        SegbenchError: a side below 16 pixels, a negative count or seed.
    """

    def __init__(
        self,
        train: int = 24,
        val: int = 4,
        test: int = 8,
        height: int = 256,
        width: int = 256,
        seed: int = 0,
        parameters: EMParameters = DEFAULT_PARAMETERS,
    ) -> None:
        sides = {"height": height, "width": width}
        counts = {"train": train, "val": val, "test": test}
        for key, value, smallest, reason in (
            *((key, value, SMALLEST_SIDE, "pixels, enough for a cell") for key, value in sides.items()),
            *((key, value, 0, "slices") for key, value in counts.items()),
            ("seed", seed, 0, "as a seed"),
        ):
            if value < smallest:
                raise SegbenchError(f"data.{key}={value}", f"{smallest} or more {reason}", f"raise data.{key}")
        self._seed, self._size = seed, (height, width)
        self._splits = {
            name: DrawnSlices(name, SPLIT_STARTS[name], count, height, width, seed, parameters)
            for name, count in counts.items()
        }

    @property
    def spec(self) -> DatasetSpec:
        """One grey modality, one head of two classes."""
        parts = ", ".join(f"{name} {len(source)}" for name, source in self._splits.items())
        return DatasetSpec(
            name="synthetic_em",
            # Mean and deviation of 100 slices of 256 x 256 drawn by default, in grey levels.
            modalities={"em": ModalitySpec(1, (121.0,), (41.0,), "grey level, 0 to 255")},
            heads={"semantic": HeadSpec(("membrane", "cell"), ((0, 0, 0), (255, 255, 255)))},
            citation="drawn by segbench; no image of anyone's is used",
            licence="MIT, as segbench",
            protocol=f"drawn {self._size[0]} x {self._size[1]} pixels, seed {self._seed}: {parts}; no paper's data",
        )

    def split(self, name: str) -> DrawnSlices | None:
        """`train`, `val` or `test`; None for `predict`, as every drawn slice has a label.

        Raises:
            SegbenchError: any other name.
        """
        if name == "predict":
            return None
        if name not in self._splits:
            raise SegbenchError(f"no split {name!r} in synthetic_em", "train, val or test", "choose one with split=")
        return self._splits[name]
