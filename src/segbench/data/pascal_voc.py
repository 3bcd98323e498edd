"""PASCAL VOC 2011 and 2012 segmentation with the Semantic Boundaries Dataset (SBD), by the FCN papers' protocols."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segbench.data.files.labelled import LabelMap, paired, read_indices, read_mat, read_rgb
from segbench.data.id_lists import count_of, refuse_shared, set_apart
from segbench.data.raw import RawImage
from segbench.data.voc_files import VocFiles
from segbench.errors import SegbenchError
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
}
"""The lists that are trained on and scored. seg11valid: FCN, CVPR 2015, section 5, and the authors' release; voc2011:
table 1 there; voc2012: the development kit; sbd_noval: SBD without VOC 2012 val."""

SERVER_PATH = "results/VOC{year}/Segmentation/{competition}_test_cls/{id}.png"
"""Where the VOC server looks for a palette PNG in an archive. competition: comp5 trained on VOC alone, comp6 on other
data too, as with SBD (VOC 2012 development kit, section 9.1)."""


def voc_palette(count: int = len(CLASSES)) -> tuple[tuple[int, int, int], ...]:
    """The official colours: the bits of the id, three at a time, fill R, G and B from the highest bit down.

    >>> voc_palette()[15]
    (192, 128, 128)
    """

    def channel(index: int, first: int) -> int:
        return sum(((index >> (3 * place + first)) & 1) << (7 - place) for place in range(8))

    return tuple((channel(index, 0), channel(index, 1), channel(index, 2)) for index in range(count))


_TO_CLASSES = LabelMap(classes=len(CLASSES))


class VocImages:
    """Some images with their labels.

    Args:
        ids: their names.
        images: JPEG by id.
        labels: palette PNG or SBD .mat by id; none where images are only predicted.
    """

    def __init__(self, ids: tuple[str, ...], images: Mapping[str, Path], labels: Mapping[str, Path]) -> None:
        self.ids = ids
        self._images = [images[name] for name in ids]
        self._labels = [labels.get(name) for name in ids]

    def __len__(self) -> int:
        return len(self.ids)

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
    ImageSets/Segmentation), or the path of a text file. SBD's lists take SBD's labels, which mark no void, and VOC's
    lists take VOC's; the images of a file take VOC's label where there is one, else that of SegmentationClassAug, else
    SBD's.

    Args:
        root: that folder.
        protocol: `seg11valid` (train on SBD train, 8,498 images; score the 736 of VOC 2011 val that are not in it),
            `voc2011` (1,112 and 1,111), `voc2012` (1,464 and 1,449), `sbd_noval` (SBD without VOC 2012 val; 1,449).
        train: a list instead of the protocol's.
        test: likewise.
        year: whose images and labels `seg11valid` and files take; None: 2011, as the authors, if there, else 2012.
        hold_out: training images set apart for selection, as split `val`; the papers select on none.
        partial: take the images that are there and leave out the others; the run's protocol tells how many.

    Raises:
        SegbenchError: missing folders or files, unknown names, or lists that share images.
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
        names = train or PROTOCOLS[protocol][0], test or PROTOCOLS[protocol][1]
        lists = tuple(self._files.ids(name, f"data.{key}") for name, key in zip(names, ("train", "test"), strict=True))
        refuse_shared(
            lists[0],
            lists[1],
            (f"data.train={names[0]}", f"data.test={names[1]}"),
            "score with data.test=seg11valid, or train with data.train=sbd_train_noval (VOC 2012 val is not in it)",
        )
        used = tuple(self._files.there(name, ids, partial) for name, ids in zip(names, lists, strict=True))
        kept, apart = set_apart(used[0], hold_out)
        self._splits = {"train": self._source(names[0], kept), "test": self._source(names[1], used[1])}
        said = [f"{key} {n} {count_of(u, i)}" for key, n, u, i in zip(self._splits, names, used, lists, strict=True)]
        if apart:
            self._splits["val"] = self._source(names[0], apart)
            said.append(f"{len(apart)} of train held out for selection")
        self._said = f"{protocol}: {', '.join(said)}; VOC {self._files.year}"

    def _source(self, name: str, ids: tuple[str, ...], labelled: bool = True) -> VocImages:
        return VocImages(ids, self._files.images(name), self._files.labels(name) if labelled else {})

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
            protocol=self._said,
        )

    def split(self, name: str) -> VocImages | None:
        """`train`, `test`, `val` where images are held out, `predict` (ImageSets/Segmentation/test.txt, if there)."""
        if name != "predict":
            return self._splits.get(name) or None
        year = self._files.year
        listed = f"voc{year}_test"
        if not (self._files.voc(year) / "ImageSets" / "Segmentation" / "test.txt").is_file():
            return None
        ids = self._files.ids(listed, "data.root")
        return self._source(listed, self._files.there(listed, ids, self._partial, labelled=False), labelled=False)
