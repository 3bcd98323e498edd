"""Where the files of PASCAL VOC and of SBD are: the archives' own folders, side by side under one root."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from segbench.data.id_lists import read_list, shipped
from segbench.errors import SegbenchError, as_typed

YEARS = (2011, 2012)
YEAR_FOLDERS = ("VOCdevkit/VOC{year}", "TrainVal/VOCdevkit/VOC{year}", "VOC{year}")
SBD_FOLDERS = ("benchmark_RELEASE/dataset", "SBD/benchmark_RELEASE/dataset", "SBD/dataset", "SBD")
TRAINAUG, TRAINAUG_IMAGES = "trainaug", 10_582
"""SBD train and val and VOC 2012 train, without VOC 2012 val: a list in wide use, and its length."""
PREPARE = "run segbench data prepare pascal_voc {root}"


def found(root: Path, folders: Sequence[str], year: int = 0) -> Path | None:
    """The first of some folders in `root` that is there; `{year}` in their names is the year."""
    candidates = (root / folder.format(year=year) for folder in folders)
    return next((folder for folder in candidates if folder.is_dir()), None)


class VocFiles:
    """Lists, images and labels by name.

    Args:
        root: contains VOCdevkit/VOC2011 or VOC2012 (or TrainVal/VOCdevkit/VOC2011) and benchmark_RELEASE/dataset.
        year: of lists whose name has no year; None: 2011, as the authors used, if it is there, else 2012.

    Raises:
        SegbenchError: no such root, or an unknown year.
    """

    def __init__(self, root: Path, year: int | None = None) -> None:
        if year not in (None, *YEARS):
            raise SegbenchError(f"data.year={year}", "2011, 2012 or null", "correct data.year")
        if not root.is_dir():
            raise SegbenchError(
                f"no folder {root} (data.root)",
                "the folder that contains VOCdevkit and benchmark_RELEASE",
                f"{PREPARE.format(root=as_typed('root', root))}, or set data.root to it",
            )
        self.root = root
        self.year = year or next((y for y in YEARS if found(root, YEAR_FOLDERS, y)), YEARS[0])
        self._listed: dict[Path, dict[str, Path]] = {}

    def voc(self, year: int) -> Path:
        """The folder with JPEGImages, SegmentationClass and ImageSets of a year."""
        folder = found(self.root, YEAR_FOLDERS, year)
        if folder is None:
            tried = " or ".join(name.format(year=year) for name in YEAR_FOLDERS)
            raise SegbenchError(
                f"no VOC{year} in {self.root} (data.root)",
                tried,
                f"{PREPARE.format(root=as_typed('root', self.root))} parts=voc{year}",
            )
        return folder

    def sbd(self) -> Path:
        """The folder with img, cls, train.txt and val.txt of SBD."""
        folder = found(self.root, SBD_FOLDERS)
        if folder is None:
            expected = f"{' or '.join(SBD_FOLDERS)}, with img, cls and train.txt"
            remedy = f"{PREPARE.format(root=as_typed('root', self.root))} parts=sbd"
            raise SegbenchError(f"no SBD in {self.root} (data.root)", expected, remedy)
        return folder

    def ids(self, name: str, key: str) -> tuple[str, ...]:
        """The ids of the list that config key `key` names: `seg11valid`, `sbd_train` ..., or a text file's path."""
        if name == "seg11valid":
            return shipped("pascal_seg11valid")
        if name == TRAINAUG:
            own, seen = (self.ids(f"voc2012_{split}", key) for split in ("train", "val"))
            return tuple(sorted({*self.ids("sbd_train", key), *self.ids("sbd_val", key), *own} - {*seen}))
        if name.startswith("sbd_"):
            return read_list(self.sbd() / f"{name.removeprefix('sbd_')}.txt", key)
        if year := _year(name):
            return read_list(self.voc(year) / "ImageSets" / "Segmentation" / f"{name[8:]}.txt", key)
        if not name.endswith(".txt"):
            raise SegbenchError(
                f"{key}={name}",
                "seg11valid, sbd_train, sbd_val, sbd_train_noval, trainaug, voc2011_train, voc2012_val ... or a .txt",
                f"correct {key}",
            )
        return read_list(Path(name), key)

    def images(self, name: str) -> dict[str, Path]:
        """JPEG by id, of every image that the list may name."""
        year = _year(name) or self.year
        if name.startswith("sbd_"):
            return self._folder(found(self.root, YEAR_FOLDERS, year), "JPEGImages") | self._folder(self.sbd(), "img")
        return self._folder(found(self.root, SBD_FOLDERS), "img") | self._folder(self.voc(year), "JPEGImages")

    def labels(self, name: str) -> dict[str, Path]:
        """Label file by id, a palette PNG or an SBD .mat, of every image that the list may name."""
        if name.startswith("sbd_"):
            return self._folder(self.sbd(), "cls")
        voc = self.voc(_year(name) or self.year)
        own = self._folder(voc, "SegmentationClass")
        if name == TRAINAUG:
            # VOC's label wins where both have one: its borders are exact, and void where they are not.
            return self._folder(self.sbd(), "cls") | own
        if not name.endswith(".txt"):
            return own
        return self._folder(found(self.root, SBD_FOLDERS), "cls") | self._folder(voc, "SegmentationClassAug") | own

    def _folder(self, parent: Path | None, name: str) -> dict[str, Path]:
        # Listed once: eight thousand single look-ups on a network drive take minutes.
        if parent is None:
            return {}
        folder = parent / name
        if folder not in self._listed:
            self._listed[folder] = {path.stem: path for path in folder.iterdir()} if folder.is_dir() else {}
        return self._listed[folder]


def _year(name: str) -> int | None:
    if name == TRAINAUG:
        return 2012
    matched = re.fullmatch(r"voc(\d{4})_\w+", name)
    return int(matched[1]) if matched else None
