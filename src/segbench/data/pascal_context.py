"""PASCAL-Context: the images of VOC 2010 with every pixel labelled, 59 classes and background, as the FCN release."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.data.files.labelled import paired, read_mat, read_rgb
from segbench.data.id_lists import find_release, read_list, refuse_shared, select
from segbench.data.pascal_voc import CLASSES as OBJECTS
from segbench.data.pascal_voc import voc_palette
from segbench.data.raw import RawImage, Source
from segbench.data.voc_files import YEAR_FOLDERS, found
from segbench.errors import SegbenchError, as_typed, refuse_no_file
from segbench.spec import DatasetSpec, HeadSpec, ModalitySpec

CLASSES = (
    *OBJECTS,
    *("bag", "bed", "bench", "book", "building", "cabinet", "ceiling", "clothes", "computer", "cup", "door", "fence"),
    *("floor", "flower", "food", "grass", "ground", "keyboard", "light", "mountain", "mouse", "curtain", "platform"),
    *("sign", "plate", "road", "rock", "shelves", "sidewalk", "sky", "snow", "bedcloth", "track", "tree", "truck"),
    *("wall", "water", "window", "wood"),
)
"""Background, then the 59 in the order of 59_labels.txt and of the FCN authors' outputs; the first 21 are VOC's."""

LONG_NAMES = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}
"""What labels.txt calls three of the 59 (pascalcontext_layers.py of the authors' release)."""

LABELS, LONG_LIST, SHORT_LIST = "trainval", "labels.txt", "59_labels.txt"
LISTS = "restore VOC 2010's ImageSets/Main"
PREPARE = "run segbench data prepare pascal_context {root}"


def read_names(path: Path) -> tuple[str, ...]:
    """The names of a list with a line `12: dining table` for each, its place first; spaces in a name do not count.

    Raises:
        SegbenchError: the file is missing, not text, or its numbers are not 1, 2, 3 ...
    """
    try:
        refuse_no_file(path)
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SegbenchError(
            f"{path} cannot be read: {error}", "a list of PASCAL-Context's classes", "restore the file"
        ) from error
    pairs = [line.partition(":") for line in lines]
    for place, (number, colon, name) in enumerate(pairs, 1):
        if not colon or number.strip() != str(place) or not name.strip():
            raise SegbenchError(
                f"{path}, line {place}: {lines[place - 1][:60]}",
                f"{place}: and the name of a class",
                "restore the file",
            )
    return tuple(name.replace(" ", "") for _, _, name in pairs)


class ContextLabels:
    """The ids of the long list of some 459 names as the 59 classes; every other id is background, 0.

    Args:
        folder: contains labels.txt, 59_labels.txt and trainval/ID.mat.

    Raises:
        SegbenchError: a list is missing or damaged, has not the 59 classes in their order, or lacks one of them
            or has it twice.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        short, long = (read_names(folder / name) for name in (SHORT_LIST, LONG_LIST))
        if short != CLASSES[1:]:
            place = next(k for k, pair in enumerate(zip_longest(short, CLASSES[1:])) if len(set(pair)) > 1)
            line = f"its line {place + 1} is {short[place] if place < len(short) else 'missing'}"
            wanted = f"{CLASSES[place + 1]} there" if place < len(CLASSES) - 1 else "no more"
            raise SegbenchError(
                f"{folder / SHORT_LIST} has {len(short)} names; {line}",
                f"the 59 classes in the order of the networks' outputs, {wanted}",
                "use the file of the data set's site",
            )
        self._class_of = np.zeros(len(long) + 1, np.uint8)
        for index, name in enumerate(CLASSES[1:], 1):
            if (count := long.count(listed := LONG_NAMES.get(name, name))) != 1:
                raise SegbenchError(
                    f"{folder / LONG_LIST} has {f'{count} times' if count else 'no'} {listed}, which is class {name}",
                    "the list of all names, 1: accordion and so on",
                    "use the file of the data set's site",
                )
            self._class_of[long.index(listed) + 1] = index

    def read(self, name: str) -> NDArray[np.uint8]:
        """HW uint8 classes of an image, 0 background to 59; no pixel is void.

        Raises:
            SegbenchError: the file is missing or damaged, or holds what the long list does not.
        """
        path = self._folder / LABELS / f"{name}.mat"
        ids_HW: NDArray[Any] = read_mat(path, name, "LabelMap")
        most = len(self._class_of) - 1
        if ids_HW.ndim != 2 or not np.issubdtype(ids_HW.dtype, np.integer):
            shown = f"a label of shape {ids_HW.shape} and type {ids_HW.dtype}"
        elif ids_HW.size and not 0 <= int(ids_HW.min()) <= int(ids_HW.max()) <= most:
            wrong = np.unique(ids_HW[(ids_HW < 0) | (ids_HW > most)])
            shown = f"label ids {', '.join(map(str, wrong[:6]))}" + (" ..." if len(wrong) > 6 else "")
        else:
            classes_HW: NDArray[np.uint8] = self._class_of[ids_HW]
            return classes_HW
        raise SegbenchError(
            f"{path}, of image {name}, has {shown}",
            f"height x width of whole numbers from 0 to {most}, the names of {LONG_LIST}",
            f"use the label files and {LONG_LIST} of one release",
        )


class ContextImages(Source):
    """The images `ids` of a VOC folder with their labels."""

    def __init__(self, voc: Path, labels: ContextLabels, ids: tuple[str, ...]) -> None:
        self._voc, self._labels, self.ids = voc, labels, ids

    def read(self, index: int) -> RawImage:
        """Image `rgb` (HW3 uint8 in the order R, G, B), label `semantic` (0 background, 1-59)."""
        name = self.ids[index]
        images = {"rgb": read_rgb(self._voc / "JPEGImages" / f"{name}.jpg", name)}
        return paired(images, {"semantic": self._labels.read(name)}, name)


class PascalContext:
    """VOC 2010 with the labels of PASCAL-Context: trained on Main/train (4,998), scored on Main/val (5,105).

    The files lie as their publishers have them: VOCdevkit/VOC2010 (JPEGImages, ImageSets/Main), and beside VOCdevkit,
    or in one folder there, trainval/ID.mat, labels.txt and 59_labels.txt.

    Args:
        root: that folder.
        hold_out: training images set apart for selection, as split `val`; the papers select on none.
        partial: skip images without files; the run's protocol states how many.

    Raises:
        SegbenchError: missing folders or files, or lists that are not the data set's.
    """

    def __init__(self, root: str | Path, hold_out: int = 0, partial: bool = False) -> None:
        root = Path(root)
        remedy = PREPARE.format(root=as_typed("root", root))
        voc = found(root, YEAR_FOLDERS, 2010)
        context = find_release(root, LABELS)
        if voc is None or context is None:
            tried = " or ".join(folder.format(year=2010) for folder in YEAR_FOLDERS)
            missing, expected = ("VOC2010", tried) if voc is None else (LABELS, f"{LABELS}/ID.mat and {LONG_LIST}")
            raise SegbenchError(f"no {missing} in {root} (data.root)", expected, f"{remedy}, or set data.root to it")
        labels = ContextLabels(context)
        names = {"train": "train", "test": "val"}
        lists = {
            split: read_list(voc / "ImageSets" / "Main" / f"{name}.txt", "data.root", action=LISTS)
            for split, name in names.items()
        }
        refuse_shared([(f"Main/{name}", lists[split]) for split, name in names.items()], LISTS)
        files: Sequence[set[str]] = [_stems(voc / "JPEGImages"), _stems(context / LABELS)]
        titles = {"train": "train Main/train", "test": "test Main/val"}
        used, self._counts = select(lists, dict.fromkeys(lists, files), root, remedy, partial, hold_out, titles)
        self._splits = {split: ContextImages(voc, labels, ids) for split, ids in used.items()}

    @property
    def spec(self) -> DatasetSpec:
        """One modality `rgb` with the authors' mean, one head of 60 classes, background among them."""
        return DatasetSpec(
            name="pascal_context",
            # BGR (104.007, 116.669, 122.679) in pascalcontext_layers.py of the authors' release.
            modalities={"rgb": ModalitySpec(3, (122.679, 116.669, 104.007), (1.0, 1.0, 1.0), "R, G, B, 0 to 255")},
            heads={"semantic": HeadSpec(CLASSES, voc_palette(len(CLASSES)))},
            citation="Mottaghi et al., CVPR 2014; Everingham et al., IJCV 88(2), 2010 (VOC)",
            licence="Flickr terms of use (images of VOC); the labels as their site says",
            protocol=f"{self._counts}; VOC 2010; names outside the 59 classes are background, which is trained",
        )

    def split(self, name: str) -> ContextImages | None:
        """`train`, `test`, and `val` where images are held out."""
        return self._splits.get(name) or None


def _stems(folder: Path) -> set[str]:
    # Listed once: ten thousand single look-ups on a network drive take minutes.
    return {path.stem for path in folder.iterdir()} if folder.is_dir() else set()
