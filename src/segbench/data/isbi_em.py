"""ISBI 2012 EM: serial-section electron microscopy of the Drosophila first instar larva ventral nerve cord."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segbench.data.files.stacks import read_stack
from segbench.data.id_lists import ranges
from segbench.data.raw import RawImage, Source
from segbench.errors import SegbenchError
from segbench.spec import DatasetSpec, HeadSpec, ModalitySpec

SLICES = 30
FOLDS = 5


class Slices(Source):
    """The slices `indices` of a volume, uint8, and of its labels (1 = cell, 0 = membrane), if there are any."""

    def __init__(
        self, volume_NHW: NDArray[np.uint8], labels_NHW: NDArray[np.uint8] | None, indices: list[int], prefix: str
    ) -> None:
        self._volume, self._labels, self._indices = volume_NHW, labels_NHW, indices
        self.ids = tuple(f"{prefix}-{index:02d}" for index in indices)

    def read(self, index: int) -> RawImage:
        """The slice with its label."""
        number = self._indices[index]
        labels = {} if self._labels is None else {"semantic": self._labels[number]}
        return RawImage({"em": self._volume[number]}, labels, self.ids[index])


class IsbiEM:
    """The challenge's official layout: train-volume.tif, train-labels.tif, test-volume.tif in one folder.

    Args:
        root: that folder.
        protocol: `default` = slices 0-20 train, 21-23 val (selection), 24-29 test; `all` = all 30 slices train, and the
            challenge's test volume, which has no public labels, is predicted.
        fold: k in 0 to 4 takes the k-th of five contiguous folds of six slices as test, the first three slices of the
            next fold (cyclically) as val, the other 21 as train; None for `protocol`.

    Raises:
        SegbenchError: a missing or damaged file, one of the wrong shape, labels without two values, an unknown
            protocol.
    """

    def __init__(self, root: str | Path, protocol: str = "default", fold: int | None = None) -> None:
        self._root, self._protocol, self._fold = Path(root), protocol, fold
        if protocol not in ("default", "all"):
            raise SegbenchError(
                f"data.protocol={protocol}", "default or all", "choose one of them, or a fold with data.fold=0..4"
            )
        if fold is not None and (fold not in range(FOLDS) or protocol == "all"):
            raise SegbenchError(
                f"data.fold={fold} with data.protocol={protocol}",
                f"a fold from 0 to {FOLDS - 1} under data.protocol=default",
                "correct data.fold, or leave it out",
            )
        if not self._root.is_dir():
            raise SegbenchError(
                f"no folder {self._root} (data.root)",
                "the folder that contains train-volume.tif, train-labels.tif and test-volume.tif",
                "download them from the ISBI 2012 challenge (registration needed) and set data.root=FOLDER",
            )
        self._volume = _grey(self._root / "train-volume.tif")
        self._labels = self._read_labels()
        # Read now: if it is missing, the run fails before training, not after.
        self._test_volume = _grey(self._root / "test-volume.tif") if protocol == "all" else None
        self._splits = _split(protocol, fold, len(self._volume))

    def _read_labels(self) -> NDArray[np.uint8]:
        path = self._root / "train-labels.tif"
        labels = read_stack(path, "data.root")
        if labels.shape != self._volume.shape:
            raise SegbenchError(
                f"{path} is {labels.shape}, {self._root / 'train-volume.tif'} is {self._volume.shape}",
                "a label page of the same height and width for each image page",
                "use the pair of files of one release",
            )
        values = np.unique(labels)
        if len(values) != 2 or values[0] != 0:
            shown = ", ".join(str(value) for value in values[:8]) + (" ..." if len(values) > 8 else "")
            raise SegbenchError(
                f"{path} has {len(values)} label value{'s' * (len(values) != 1)}: {shown}",
                "two, 0 = membrane and one other (255) = cell",
                "use the challenge's label file, not a rendering or an instance map",
            )
        cells: NDArray[np.uint8] = (labels != 0).astype(np.uint8)
        return cells

    @property
    def spec(self) -> DatasetSpec:
        """One grey modality, one head of two classes."""
        if self._protocol == "all":
            protocol = "all 30 training slices train; the test volume is predicted; no held-out score"
        else:
            which = "default" if self._fold is None else f"fold {self._fold} of {FOLDS}"
            parts = (f"{name} {ranges(indices)}" for name, indices in self._splits.items())
            protocol = f"{which}: {', '.join(parts)}; held-out training data, not the challenge server"
        return DatasetSpec(
            name="isbi_em",
            # Mean and deviation of the 30 training slices, in grey levels.
            modalities={"em": ModalitySpec(1, (126.0,), (44.0,), "grey level, 0 to 255")},
            heads={"semantic": HeadSpec(("membrane", "cell"), ((0, 0, 0), (255, 255, 255)))},
            citation="Cardona et al., PLoS Biology 8(10), 2010; "
            "Arganda-Carreras et al., Frontiers in Neuroanatomy 9, 2015",
            licence="non-commercial research (ISBI 2012 challenge terms)",
            protocol=protocol,
            dependence="slices of one stack",
        )

    def split(self, name: str) -> Slices | None:
        """`train`, `val`, `test` (default and folds) or `train`, `predict` (all)."""
        if name == "predict":
            volume = self._test_volume
            return None if volume is None else Slices(volume, None, list(range(len(volume))), "test")
        indices = self._splits.get(name)
        return None if indices is None else Slices(self._volume, self._labels, indices, "train")


def _grey(path: Path) -> NDArray[np.uint8]:
    volume = read_stack(path, "data.root")
    if volume.dtype != np.uint8 or volume.ndim != 3:
        raise SegbenchError(
            f"{path} is {volume.dtype} of shape {volume.shape}",
            "8-bit grey pages (slices, height, width)",
            "use the challenge's own file",
        )
    grey: NDArray[np.uint8] = volume.astype(np.uint8, copy=False)
    return grey


def _split(protocol: str, fold: int | None, count: int) -> dict[str, list[int]]:
    if protocol == "all":
        return {"train": list(range(count))}
    if count < SLICES:
        raise SegbenchError(
            f"train-volume.tif with {count} slices", f"{SLICES} slices", "use the whole volume, or data.protocol=all"
        )
    if fold is None:
        return {"train": list(range(21)), "val": list(range(21, 24)), "test": list(range(24, SLICES))}
    size = SLICES // FOLDS
    test = list(range(fold * size, (fold + 1) * size))
    start = (fold + 1) % FOLDS * size
    val = list(range(start, start + size // 2))
    return {"train": [i for i in range(SLICES) if i not in test and i not in val], "val": val, "test": test}
