"""SIFT Flow: outdoor scenes with 33 semantic and 3 geometric classes, two labellings of the same pixels."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segbench.data.files.labelled import LabelMap, paired, read_mat, read_rgb
from segbench.data.id_lists import find_release, refuse_shared, select, shipped
from segbench.data.raw import RawImage, Source
from segbench.errors import SegbenchError, as_typed
from segbench.spec import DatasetSpec, HeadSpec, ModalitySpec

SEMANTIC = (
    *("awning", "balcony", "bird", "boat", "bridge", "building", "bus", "car", "cow", "crosswalk", "desert", "door"),
    *("fence", "field", "grass", "moon", "mountain", "person", "plant", "pole", "river", "road", "rock", "sand", "sea"),
    *("sidewalk", "sign", "sky", "staircase", "streetlight", "sun", "tree", "window"),
)
GEOMETRIC = ("sky", "horizontal", "vertical")
"""In the order of data/sift-flow/classes.txt of the FCN authors' release, also that of the outputs."""

SCENES = "spatial_envelope_256x256_static_8outdoorcategories"
IMAGES = f"Images/{SCENES}"
LABELS = {"semantic": f"SemanticLabels/{SCENES}", "geometric": f"GeoLabels/{SCENES}"}

LABEL_MAPS = {
    "semantic": LabelMap(classes=len(SEMANTIC), first=1, void=(0,)),
    "geometric": LabelMap(classes=len(GEOMETRIC), first=1, void=(-1, 0)),
}

# The data set has no palette; these are natural colours.
_SEMANTIC_COLOURS = (
    *((178, 102, 178), (153, 102, 51), (255, 0, 255), (102, 0, 153), (127, 127, 153), (153, 51, 51), (255, 153, 0)),
    *((0, 0, 178), (102, 51, 0), (255, 255, 255), (230, 190, 110), (90, 60, 40), (190, 150, 110), (150, 190, 60)),
    *((60, 170, 60), (220, 220, 170), (110, 120, 100), (230, 30, 60), (0, 120, 60), (160, 160, 170), (60, 130, 190)),
    *((100, 100, 100), (130, 110, 90), (240, 215, 150), (20, 80, 160), (190, 180, 190), (255, 220, 0)),
    *((135, 195, 235), (140, 130, 150), (255, 240, 120), (255, 250, 60), (10, 90, 20), (70, 130, 140)),
)
_GEOMETRIC_COLOURS = ((135, 195, 235), (110, 160, 70), (170, 70, 60))


class SiftFlowImages(Source):
    """The images `ids` with both labellings; `root` contains Images, SemanticLabels and GeoLabels."""

    def __init__(self, root: Path, ids: tuple[str, ...]) -> None:
        self._root, self.ids = root, ids

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
        root: that folder, or its parent.
        hold_out: training images set apart for selection, as split `val`; the papers select on none.
        partial: skip images without files; the run's protocol states how many.

    Raises:
        SegbenchError: missing folders or files.
    """

    def __init__(self, root: str | Path, hold_out: int = 0, partial: bool = False) -> None:
        root = Path(root)
        self._root = find_release(root, IMAGES) or root
        remedy = f"run segbench data prepare sift_flow {as_typed('root', root)}"
        for folder in (IMAGES, *LABELS.values()):
            if not (self._root / folder).is_dir():
                raise SegbenchError(
                    f"no folder {self._root / folder} (data.root)",
                    f"{IMAGES} and {' and '.join(LABELS.values())}",
                    f"{remedy}, or set data.root to it",
                )
        files = [{path.stem for path in (self._root / folder).iterdir()} for folder in (IMAGES, *LABELS.values())]
        lists = {"train": shipped("siftflow_trainval"), "test": shipped("siftflow_test")}
        refuse_shared(lists.items(), "reinstall segbench")
        used, self._counts = select(lists, dict.fromkeys(lists, files), self._root, remedy, partial, hold_out)
        self._splits = {split: SiftFlowImages(self._root, ids) for split, ids in used.items()}

    @cached_property
    def _excluded(self) -> dict[str, tuple[int, ...]]:
        # Found in the labels: no cow, desert or moon is in the official 200 test images.
        test = self._splits["test"]
        if not test:
            return dict.fromkeys(LABELS, ())
        excluded = {}
        for head, mapping in LABEL_MAPS.items():
            seen = {int(value) for index in range(len(test)) for value in np.unique(test.label(head, index))}
            excluded[head] = tuple(sorted(set(range(mapping.classes)) - seen))
        return excluded

    @cached_property
    def spec(self) -> DatasetSpec:
        """One modality `rgb`, two heads; classes that no test image shows are left out of every mean."""
        heads = {
            "semantic": HeadSpec(SEMANTIC, _SEMANTIC_COLOURS, excluded=self._excluded["semantic"]),
            "geometric": HeadSpec(GEOMETRIC, _GEOMETRIC_COLOURS, excluded=self._excluded["geometric"]),
        }
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
            protocol=f"{self._counts}; absent from the test images and in no mean: {', '.join(left_out) or 'none'}",
        )

    def split(self, name: str) -> SiftFlowImages | None:
        """`train`, `test`, and `val` where images are held out."""
        return self._splits.get(name) or None
