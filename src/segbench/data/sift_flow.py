"""SIFT Flow: outdoor scenes with 33 semantic and 3 geometric classes, two labellings of the same pixels."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segbench.data.files.labelled import LabelMap, paired, read_mat, read_rgb
from segbench.data.id_lists import count_of, present, refuse_shared, set_apart, shipped
from segbench.data.raw import RawImage
from segbench.errors import SegbenchError
from segbench.spec import VOID, DatasetSpec, HeadSpec, ModalitySpec

SEMANTIC = (
    *("awning", "balcony", "bird", "boat", "bridge", "building", "bus", "car", "cow", "crosswalk", "desert", "door"),
    *("fence", "field", "grass", "moon", "mountain", "person", "plant", "pole", "river", "road", "rock", "sand", "sea"),
    *("sidewalk", "sign", "sky", "staircase", "streetlight", "sun", "tree", "window"),
)
GEOMETRIC = ("sky", "horizontal", "vertical")
"""In the order of data/sift-flow/classes.txt of the FCN authors' release, which is that of the outputs."""

SCENES = "spatial_envelope_256x256_static_8outdoorcategories"
IMAGES = f"Images/{SCENES}"
LABELS = {"semantic": f"SemanticLabels/{SCENES}", "geometric": f"GeoLabels/{SCENES}"}

LABEL_MAPS = {
    "semantic": LabelMap(classes=len(SEMANTIC), first=1, void=(0,)),
    "geometric": LabelMap(classes=len(GEOMETRIC), first=1, void=(-1, 0)),
}

# The data set has no palette; these are the colours things have.
_SEMANTIC_COLOURS = (
    *((178, 102, 178), (153, 102, 51), (255, 0, 255), (102, 0, 153), (127, 127, 153), (153, 51, 51), (255, 153, 0)),
    *((0, 0, 178), (102, 51, 0), (255, 255, 255), (230, 190, 110), (90, 60, 40), (190, 150, 110), (150, 190, 60)),
    *((60, 170, 60), (220, 220, 170), (110, 120, 100), (230, 30, 60), (0, 120, 60), (160, 160, 170), (60, 130, 190)),
    *((100, 100, 100), (130, 110, 90), (240, 215, 150), (20, 80, 160), (190, 180, 190), (255, 220, 0)),
    *((135, 195, 235), (140, 130, 150), (255, 240, 120), (255, 250, 60), (10, 90, 20), (70, 130, 140)),
)
_GEOMETRIC_COLOURS = ((135, 195, 235), (110, 160, 70), (170, 70, 60))


class SiftFlowImages:
    """Some images with both labellings.

    Args:
        root: holds Images, SemanticLabels and GeoLabels.
        ids: the images' names.
    """

    def __init__(self, root: Path, ids: tuple[str, ...]) -> None:
        self._root, self.ids = root, ids

    def __len__(self) -> int:
        return len(self.ids)

    def label(self, head: str, index: int) -> NDArray[np.uint8]:
        """HW uint8 classes of `semantic` (0-32) or `geometric` (0-2), 255 void."""
        name = self.ids[index]
        path = self._root / LABELS[head] / f"{name}.mat"
        return LABEL_MAPS[head](read_mat(path, name, "S"), path, name)

    def read(self, index: int) -> RawImage:
        """Image `rgb` (HW3 uint8 in the order R, G, B) and both labels."""
        name = self.ids[index]
        image_HW3 = read_rgb(self._root / IMAGES / f"{name}.jpg", name)
        return paired({"rgb": image_HW3}, {head: self.label(head, index) for head in LABELS}, name)


class SiftFlow:
    """The archive's layout: Images, SemanticLabels and GeoLabels, each with the folder of the eight categories.

    The FCN authors' lists leave out highway_bost181 and street_urb506, which have no annotation: 2,486 training images
    and 200 test images of the 2,688.

    Args:
        root: that folder, or one above it.
        hold_out: training images set apart for selection, as split `val`; the papers select on none.
        partial: take the images that are there and leave out the others; the run's protocol tells how many.

    Raises:
        SegbenchError: missing folders or files.
    """

    def __init__(self, root: str | Path, hold_out: int = 0, partial: bool = False) -> None:
        root = Path(root)
        inside = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        self._root = next((folder for folder in (root, *inside) if (folder / IMAGES).is_dir()), root)
        remedy = f"run segbench data prepare sift_flow root={root}"
        for folder in (IMAGES, *LABELS.values()):
            if not (self._root / folder).is_dir():
                raise SegbenchError(
                    f"no folder {self._root / folder} (data.root)",
                    f"{IMAGES} and {' and '.join(LABELS.values())}",
                    f"{remedy}, or set data.root to it",
                )
        have = [{path.stem for path in (self._root / folder).iterdir()} for folder in (IMAGES, *LABELS.values())]
        lists = {"train": shipped("siftflow_trainval"), "test": shipped("siftflow_test")}
        refuse_shared(lists["train"], lists["test"], ("the training list", "the test list"), "install segbench again")
        used = {}
        for split, ids in lists.items():
            lacking = [name for name in ids if any(name not in files for files in have)]
            used[split] = present(ids, lacking, f"{split} in {self._root}", partial, remedy)
        self._said = ", ".join(f"{split} {count_of(used[split], ids)}" for split, ids in lists.items())
        used["train"], apart = set_apart(used["train"], hold_out)
        if apart:
            used["val"] = apart
            self._said += f", {len(apart)} of train held out for selection"
        self._splits = {split: SiftFlowImages(self._root, ids) for split, ids in used.items()}

    @cached_property
    def _excluded(self) -> dict[str, tuple[int, ...]]:
        # Read off the labels: of the official 200 test images cow, desert and moon are missing.
        test = self._splits["test"]
        if not test:
            return dict.fromkeys(LABELS, ())
        seen = {
            head: {int(value) for index in range(len(test)) for value in np.unique(test.label(head, index))}
            for head in LABELS
        }
        counts = {"semantic": len(SEMANTIC), "geometric": len(GEOMETRIC)}
        return {head: tuple(sorted(set(range(counts[head])) - values - {VOID})) for head, values in seen.items()}

    @cached_property
    def spec(self) -> DatasetSpec:
        """One modality `rgb`, two heads; classes that no test image shows enter no mean."""
        heads = {
            "semantic": HeadSpec(SEMANTIC, _SEMANTIC_COLOURS),
            "geometric": HeadSpec(GEOMETRIC, _GEOMETRIC_COLOURS),
        }
        heads = {name: replace(head, excluded=self._excluded[name]) for name, head in heads.items()}
        left_out = [head.class_names[index] for head in heads.values() for index in head.excluded]
        return DatasetSpec(
            name="sift_flow",
            # BGR (114.578, 115.294, 108.353) in siftflow_layers.py of the authors' release.
            modalities={
                "rgb": ModalitySpec(3, (108.353, 115.294, 114.578), (1.0, 1.0, 1.0), "R, G, B, 0 to 255"),
            },
            heads=heads,
            citation="Liu, Yuen, Torralba, PAMI 33(12), 2011; Tighe, Lazebnik, ECCV 2010 (geometric labels)",
            licence="research use (LabelMe and SIFT Flow)",
            protocol=f"{self._said}; absent from the test images and in no mean: {', '.join(left_out) or 'none'}",
        )

    def split(self, name: str) -> SiftFlowImages | None:
        """`train`, `test`, and `val` where images are held out."""
        return self._splits.get(name) or None
