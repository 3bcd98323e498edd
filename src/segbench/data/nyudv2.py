"""NYU Depth v2, 40 classes (Gupta et al.), in the layout of the FCN authors' release."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.data.files.labelled import LabelMap, paired, read_depth, read_indices, read_mat, read_rgb
from segbench.data.id_lists import find_release, refuse_shared, select, shipped
from segbench.data.raw import RawImage, Source
from segbench.errors import SegbenchError, as_typed
from segbench.spec import DatasetSpec, HeadSpec, ModalitySpec

CLASSES = (
    *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture"),
    *("counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes"),
    *("ceiling", "books", "refridgerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard"),
    *("person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture"),
    "otherprop",
)
"""As the release spells them."""

LOG_DEPTH_MEAN = 7.844
"""Of ln(millimetres): 2.55 m (nyud_layers.py of the authors' release)."""

MODALITIES = {
    # BGR (116.190, 97.203, 92.318) in nyud_layers.py.
    "rgb": ModalitySpec(3, (92.318, 97.203, 116.190), (1.0, 1.0, 1.0), "R, G, B, 0 to 255"),
    "depth": ModalitySpec(1, (LOG_DEPTH_MEAN,), (1.0,), "ln(millimetres)"),
    # The release uses these channels in the file's order and never reverses them.
    "hha": ModalitySpec(3, (132.431, 94.076, 118.477), (1.0, 1.0, 1.0), "HHA as in the file, 0 to 255"),
}

FOLDERS = {"rgb": ("images",), "depth": ("depth", "rawdepth"), "hha": ("hha",)}

_TO_CLASSES = LabelMap(classes=len(CLASSES), first=1, void=(0,))


@functools.cache
def _log_table() -> NDArray[np.float32]:
    table = np.log(np.arange(1, 2**16, dtype=np.float32))
    # ln 0 does not exist: missing depth becomes the mean, which is 0 for the network.
    return np.concatenate([np.array([LOG_DEPTH_MEAN], np.float32), table])


def log_depth(depth_HW: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Millimetres to HW float32 ln(millimetres); 0, a missing depth, to the mean."""
    logs: NDArray[np.float32] = _log_table()[depth_HW]
    return logs


def nyud_palette() -> tuple[tuple[int, int, int], ...]:
    """40 distinct colours, as the data set has no palette: hues of the golden angle in three tones."""
    import colorsys

    def colour(index: int) -> tuple[int, int, int]:
        rgb = colorsys.hsv_to_rgb(index * 0.618034 % 1, (0.85, 0.5, 0.7)[index % 3], (0.9, 0.95, 0.6)[index // 2 % 3])
        return round(rgb[0] * 255), round(rgb[1] * 255), round(rgb[2] * 255)

    return tuple(colour(index) for index in range(len(CLASSES)))


class NyudImages(Source):
    """The images `ids`, numbers from 5001 to 6449: a reader by modality, from id to array, and label files by id."""

    def __init__(
        self, ids: tuple[str, ...], readers: Mapping[str, Callable[[str], NDArray[Any]]], labels: dict[str, Path]
    ) -> None:
        self.ids, self._readers, self._labels = ids, readers, [labels[name] for name in ids]

    def read(self, index: int) -> RawImage:
        """The modalities (`rgb` and `hha` HW3 uint8, `depth` HW float32), label `semantic` (0-39, 255 void)."""
        name, path = self.ids[index], self._labels[index]
        label_HW = read_mat(path, name, "segmentation") if path.suffix == ".mat" else read_indices(path, name)
        images = {modality: read(name) for modality, read in self._readers.items()}
        return paired(images, {"semantic": _TO_CLASSES(label_HW, path, name)}, name)


class NYUDv2:
    """NYUDv2 as the FCN authors released it.

    One root contains `data/images`, `data/depth`, `data/rawdepth`, `data/hha` (img_5001.png ...) and `segmentation`
    (img_5001.mat, or .png as `segbench data prepare nyudv2 parts=official` writes it).

    Args:
        root: that folder, or its parent.
        modalities: some of `rgb`, `depth`, `hha`, in the order of the network's inputs.
        protocol: `trainval` (795 train, 654 test) or `train_val` (381 train, 414 val for selection, 654 test).
        depth: `depth` (holes filled, as the release trains) or `rawdepth` (holes are 0 and become the mean).
        hold_out: training images set apart for selection, under `trainval`.
        partial: skip images without files; the run's protocol states how many.

    Raises:
        SegbenchError: missing folders or files, an unknown or missing modality.
    """

    def __init__(
        self,
        root: str | Path,
        modalities: Sequence[str] = ("rgb",),
        protocol: str = "trainval",
        depth: str = "depth",
        hold_out: int = 0,
        partial: bool = False,
    ) -> None:
        self._modalities = tuple(modalities)
        _check_choices(self._modalities, protocol, depth, hold_out)
        root = Path(root)
        found = find_release(root, "data/images")
        if found is None:
            raise SegbenchError(
                f"no data/images in {root} or a folder in it (data.root)",
                "the FCN authors' layout: data/images, data/depth, data/hha, segmentation",
                f"run segbench data prepare nyudv2 {as_typed('root', root)}, or set data.root to it",
            )
        labels = {path.stem.removeprefix("img_"): path for path in sorted((found / "segmentation").glob("img_*"))}
        folders = {name: found / "data" / (depth if name == "depth" else FOLDERS[name][0]) for name in self._modalities}
        readers = {name: functools.partial(_read, folder, name == "depth") for name, folder in folders.items()}
        lists = {name: shipped(f"nyud_{name}") for name in ("train", "val", "test")}
        if protocol == "trainval":
            lists["train"] += lists.pop("val")
        refuse_shared(lists.items(), "reinstall segbench")
        remedy = f"run segbench data prepare nyudv2 {as_typed('root', found)}"
        files = [set(labels)]
        for modality, folder in folders.items():
            files.append({path.stem.removeprefix("img_") for path in folder.glob("img_*.png")})
            if not files[-1]:
                raise SegbenchError(
                    f"no img_*.png in {folder}, which modality {modality} reads",
                    f"one file per image, as data.modalities={list(folders)} includes it",
                    f"{remedy} (the release has all three; the official .mat has no hha), or remove {modality} from "
                    "data.modalities",
                )
        used, counts = select(lists, dict.fromkeys(lists, files), found, remedy, partial, hold_out)
        self._splits = {name: NyudImages(ids, readers, labels) for name, ids in used.items()}
        depths = f"; depth from data/{depth}" if "depth" in self._modalities else ""
        self._protocol = f"{protocol}: {counts}; {' + '.join(self._modalities)}{depths}"

    @property
    def spec(self) -> DatasetSpec:
        """The chosen modalities with the release's means, one head of 40 classes."""
        return DatasetSpec(
            name="nyudv2",
            modalities={name: MODALITIES[name] for name in self._modalities},
            heads={"semantic": HeadSpec(CLASSES, nyud_palette())},
            citation="Silberman et al., ECCV 2012; Gupta et al., CVPR 2013 (40 classes)",
            licence="research use (NYU Depth Dataset v2)",
            protocol=self._protocol,
        )

    def split(self, name: str) -> NyudImages | None:
        """`train`, `test`, and `val` if the protocol has one or images are held out."""
        return self._splits.get(name) or None


def _check_choices(modalities: tuple[str, ...], protocol: str, depth: str, hold_out: int) -> None:
    wrong = [name for name in modalities if name not in MODALITIES]
    if wrong or not modalities or len(set(modalities)) < len(modalities):
        raise SegbenchError(
            f"data.modalities={list(modalities)}", f"some of {', '.join(MODALITIES)}, each once", "correct it"
        )
    for key, value, choices in (
        ("protocol", protocol, ("trainval", "train_val")),
        ("depth", depth, FOLDERS["depth"]),
    ):
        if value not in choices:
            raise SegbenchError(f"data.{key}={value}", " or ".join(choices), "choose one of them")
    if hold_out and protocol == "train_val":
        raise SegbenchError(
            f"data.hold_out={hold_out} with data.protocol=train_val",
            "one selection split",
            "leave data.hold_out=0: train_val has the authors' val",
        )


def _read(folder: Path, is_depth: bool, name: str) -> NDArray[Any]:
    path = folder / f"img_{name}.png"
    return log_depth(read_depth(path, name)) if is_depth else read_rgb(path, name)
