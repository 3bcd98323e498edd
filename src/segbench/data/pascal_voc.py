"""PASCAL VOC 2011 and 2012 segmentation with the Semantic Boundaries Dataset (SBD), by the FCN papers' protocols."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segbench.data.files.labelled import LabelMap, paired, read_indices, read_mat, read_rgb
from segbench.data.id_lists import refuse_shared, select
from segbench.data.raw import RawImage, Source
from segbench.data.voc_files import PREPARE, TRAINAUG, TRAINAUG_IMAGES, VocFiles
from segbench.errors import SegbenchError, as_typed
from segbench.spec import DatasetSpec, HeadSpec, ModalitySpec

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)

PROTOCOLS = {
    "seg11valid": ("sbd_train", "seg11valid"),
    "voc2011": ("voc2011_train", "voc2011_val"),
    "voc2012": ("voc2012_train", "voc2012_val"),
    "sbd_noval": ("sbd_train_noval", "voc2012_val"),
    "trainaug": (TRAINAUG, "voc2012_val"),
}
"""Training and test list. seg11valid: FCN, CVPR 2015, section 5, and the authors' release; voc2011: table 1 there;
voc2012: the development kit; sbd_noval: SBD train without VOC 2012 val; trainaug: SBD and
VOC 2012 train without VOC 2012 val, on which DeepLab and its successors train."""

SERVER_PATH = "results/VOC{year}/Segmentation/{competition}_test_cls/{id}.png"
"""Where the VOC server expects a palette PNG in an archive. competition: comp5 trained on VOC alone, comp6 also on
other data such as SBD (VOC 2012 development kit, section 9.1)."""


def voc_palette(count: int = len(CLASSES)) -> tuple[tuple[int, int, int], ...]:
    """The official colours: the bits of the id, three at a time, fill R, G and B from the highest bit down.

    >>> voc_palette()[15]
    (192, 128, 128)
    """

    def channel(index: int, first: int) -> int:
        return sum(((index >> (3 * place + first)) & 1) << (7 - place) for place in range(8))

    return tuple((channel(index, 0), channel(index, 1), channel(index, 2)) for index in range(count))


_TO_CLASSES = LabelMap(classes=len(CLASSES))


class VocImages(Source):
    """Some images with their labels.

    Args:
        ids: their names.
        images: JPEG by id.
        labels: palette PNG or SBD .mat by id; None for prediction.
    """

    def __init__(
        self, ids: tuple[str, ...], images: Mapping[str, Path], labels: Mapping[str, Path] | None = None
    ) -> None:
        self.ids = ids
        self._images = [images[name] for name in ids]
        self._labels = [None if labels is None else labels[name] for name in ids]

    @property
    def label_suffixes(self) -> Counter[str]:
        """How many labels are of each kind of file."""
        return Counter(path.suffix for path in self._labels if path is not None)

    def read(self, index: int) -> RawImage:
        """Image `rgb` (HW3 uint8 in the order R, G, B), label `semantic` (0 background, 1-20 objects, 255 void)."""
        name, path = self.ids[index], self._labels[index]
        images = {"rgb": read_rgb(self._images[index], name)}
        if path is None:
            return RawImage(images, {}, name)
        label_HW = _read_sbd(path, name) if path.suffix == ".mat" else read_indices(path, name)
        return paired(images, {"semantic": _TO_CLASSES(label_HW, path, name)}, name)


def _read_sbd(path: Path, name: str) -> NDArray[np.uint8]:
    structure = read_mat(path, name, "GTcls")
    try:
        label_HW: NDArray[np.uint8] = structure["Segmentation"][0, 0]
    except (IndexError, KeyError, ValueError) as error:
        raise SegbenchError(
            f"{path}, of image {name}: GTcls has no field Segmentation", "a file of SBD's cls/", "restore it"
        ) from error
    return label_HW


class PascalVOC:
    """VOC and SBD in the archives' own folders under one root, as `VocFiles` finds them.

    A list is `seg11valid` (shipped), `sbd_train`, `sbd_val`, `sbd_train_noval`, `voc2011_train` ... `voc2012_val` (of
    ImageSets/Segmentation), `trainaug` (SBD train and val and VOC 2012 train, without VOC 2012 val; 10,582), or the
    path of a text file. SBD's lists use SBD's labels, which have no void, and VOC's lists use VOC's; `trainaug` uses
    VOC's for the images of VOC 2012 train and SBD's for the others. A text file's images use VOC's label if there is
    one, else that in SegmentationClassAug, else SBD's.

    Args:
        root: that folder.
        protocol: `seg11valid` (train on SBD train, 8,498 images; score the 736 of VOC 2011 val that are not in it),
            `voc2011` (1,112 and 1,111), `voc2012` (1,464 and 1,449), `sbd_noval` (SBD train without VOC 2012 val;
            1,449), `trainaug` (10,582 and 1,449).
        train: a list instead of the protocol's.
        test: likewise.
        year: whose images and labels `seg11valid` and text files use; None: 2011, as the authors, if there, else 2012.
        hold_out: training images set apart for selection, as split `val`; the papers select on none.
        partial: skip images without files; the run's protocol states how many.

    Raises:
        SegbenchError: missing folders or files, unknown names, lists that share images, or, without `partial`, a
            `trainaug` of another number of images than 10,582.
    """

    def __init__(
        self,
        root: str | Path,
        protocol: str = "seg11valid",
        train: str | None = None,
        test: str | None = None,
        year: int | None = None,
        hold_out: int = 0,
        partial: bool = False,
    ) -> None:
        if protocol not in PROTOCOLS:
            raise SegbenchError(f"data.protocol={protocol}", f"one of {', '.join(PROTOCOLS)}", "choose one of them")
        self._files, self._partial = VocFiles(Path(root), year), partial
        names = {"train": train or PROTOCOLS[protocol][0], "test": test or PROTOCOLS[protocol][1]}
        lists = {key: self._files.ids(name, f"data.{key}") for key, name in names.items()}
        refuse_shared(
            [(f"data.{key}={name}", lists[key]) for key, name in names.items()],
            f"use the lists of one data.protocol: {', '.join(PROTOCOLS)}",
        )
        of_a_year = re.match(r"voc(\d{4})_", names["test"])
        self._year = self._files.year if of_a_year is None else int(of_a_year[1])
        augmented = next((lists[key] for key, name in names.items() if name == TRAINAUG), None)
        of = "" if augmented is None else self._of_trainaug(augmented)
        self._splits, counts = self._select(names, lists, hold_out)
        note = ""
        if augmented is not None:
            used = [self._splits[split].label_suffixes for split in ("train", "val") if split in self._splits]
            own, of_sbd = (sum(each[suffix] for each in used) for suffix in (".png", ".mat"))
            note = f"; trainaug has VOC's labels for {own} images and SBD's for {of_sbd}{of}"
        self._protocol = f"{protocol}: {counts}; VOC {self._year}{note}"

    def _of_trainaug(self, ids: tuple[str, ...]) -> str:
        """What is to be said of another length than the official one, which is refused unless images may be missing."""
        if len(ids) == TRAINAUG_IMAGES:
            return ""
        if not self._partial:
            raise SegbenchError(
                f"trainaug has {len(ids)} images by the lists in {self._files.root}",
                f"{TRAINAUG_IMAGES}: SBD train 8498 and val 2857, VOC 2012 train 1464, without VOC 2012 val 1449",
                "restore train.txt and val.txt of both archives, or use what is there with data.partial=true",
            )
        return f", of lists with {len(ids)} images instead of {TRAINAUG_IMAGES}"

    def _select(
        self, names: Mapping[str, str], lists: Mapping[str, tuple[str, ...]], hold_out: int = 0
    ) -> tuple[dict[str, VocImages], str]:
        files = {split: [self._files.images(name)] for split, name in names.items()}
        for split in files.keys() - {"predict"}:
            files[split].append(self._files.labels(names[split]))
        titles = {split: f"{split} {name}" for split, name in names.items()}
        remedy = PREPARE.format(root=as_typed("root", self._files.root))
        used, counts = select(lists, files, self._files.root, remedy, self._partial, hold_out, titles)
        if "val" in used:
            files["val"] = files["train"]
        return {split: VocImages(ids, *files[split]) for split, ids in used.items()}, counts

    @property
    def spec(self) -> DatasetSpec:
        """One modality `rgb` with the authors' mean, one head of 21 classes."""
        return DatasetSpec(
            name="pascal_voc",
            # BGR (104.00699, 116.66877, 122.67892) in voc_layers.py of the authors' release.
            modalities={
                "rgb": ModalitySpec(3, (122.67892, 116.66877, 104.00699), (1.0, 1.0, 1.0), "R, G, B, 0 to 255")
            },
            heads={"semantic": HeadSpec(CLASSES, voc_palette())},
            citation="Everingham et al., IJCV 111(1), 2015; Hariharan et al., ICCV 2011 (SBD)",
            licence="Flickr terms of use (VOC); as VOC for SBD",
            protocol=self._protocol,
        )

    def split(self, name: str) -> VocImages | None:
        """`train`, `test`, `val` if images are held out, `predict` if ImageSets/Segmentation/test.txt exists."""
        if name != "predict":
            return self._splits.get(name) or None
        year = self._year
        listed = f"voc{year}_test"
        if not (self._files.voc(year) / "ImageSets" / "Segmentation" / "test.txt").is_file():
            return None
        splits, _ = self._select({name: listed}, {name: self._files.ids(listed, "data.root")})
        return splits[name]
