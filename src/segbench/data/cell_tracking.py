"""The Cell Tracking Challenge's two-dimensional sequences, cut into training, validation and test frames.

Folders and files follow the challenge's "Naming and file content conventions": images `01/t000.tif`, gold masks of
some frames and some cells `01_GT/SEG/man_seg000.tif`, a marker for every cell `01_GT/TRA/man_track000.tif`, silver
masks (the majority of submitted results) `01_ST/SEG/man_seg000.tif`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segbench.data.cells import check_parts, label_parts, with_parts
from segbench.data.files.labelled import read_grey
from segbench.data.id_lists import ranges, refuse_shared
from segbench.data.raw import RawImage, Source
from segbench.errors import SegbenchError, as_typed, check
from segbench.metrics.distance import distance_inside
from segbench.spec import VOID, DatasetSpec, HeadSpec, ModalitySpec

NAMES = {"DIC-C2DH-HeLa": "dic_hela", "PhC-C2DH-U373": "phc_u373"}
"""Names of data sets here, by the challenge's folder."""

TRUTHS = {"gold": "GT/SEG", "silver": "ST/SEG"}
BACKGROUND, CELL = 0, 1

Place = tuple[str, int]
"""A frame: its sequence and its number."""


class Sequence2D:
    """One sequence, from its folder of images `<data set>/01`: the files of its images, masks and markers by frame."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.images = _numbered(folder, "t")
        self.masks = {
            truth: _numbered(folder.parent / f"{self.name}_{place}", "man_seg") for truth, place in TRUTHS.items()
        }
        self.markers = _numbered(folder.parent / f"{self.name}_GT" / "TRA", "man_track")


def _numbered(folder: Path, stem: str) -> dict[int, Path]:
    named = re.compile(rf"{stem}(\d+)\.tif", re.IGNORECASE)
    numbered: dict[int, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if (found := named.fullmatch(path.name)) and (other := numbered.setdefault(int(found[1]), path)) != path:
            raise SegbenchError(
                f"{other} and {path.name}", f"one file of frame {int(found[1])}", "remove the one that is not the frame"
            )
    return numbered


def _frame_ids(places: Sequence[Place]) -> tuple[str, ...]:
    return tuple(f"{sequence}-{number:03d}" for sequence, number in places)


class Frames(Source):
    """The frames at `places` with their objects; the other arguments are as in `CellTracking`."""

    def __init__(
        self,
        sequences: Mapping[str, Sequence2D],
        places: Sequence[Place],
        truth: str,
        border: int,
        edge: int,
        core: float | None,
    ) -> None:
        self._sequences, self._places, self._truth = sequences, list(places), truth
        self._border, self._edge, self._core = border, edge, core
        self.ids = _frame_ids(places)

    def read(self, index: int) -> RawImage:
        """The frame: image `image`, label `semantic`, the objects, and the gold ones as reference `gold`."""
        name, (sequence_name, number) = self.ids[index], self._places[index]
        sequence = self._sequences[sequence_name]
        image_HW = read_grey(sequence.images[number], name)
        if image_HW.dtype != np.uint8:
            raise SegbenchError(
                f"{sequence.images[number]} is {image_HW.dtype}", "8-bit images", "use a data set with 8-bit images"
            )
        ids_HW = self._ids(sequence.masks[self._truth][number], name, image_HW.shape)
        gold = sequence.masks["gold"].get(number)
        gold_HW = np.zeros_like(ids_HW) if gold is None else self._ids(gold, name, image_HW.shape)
        marker = sequence.markers.get(number)
        markers_HW = None if marker is None else self._ids(marker, name, image_HW.shape)
        label_HW = label_of(ids_HW, self._border, self._edge, markers_HW, self._core)
        return RawImage({"image": image_HW}, {"semantic": label_HW}, name, ids_HW, {"gold": gold_HW})

    @staticmethod
    def _ids(path: Path, name: str, shape: tuple[int, ...]) -> NDArray[np.int32]:
        ids_HW: NDArray[np.int32] = read_grey(path, name).astype(np.int32)
        if ids_HW.shape != shape:
            raise SegbenchError(
                f"{path} is {' x '.join(map(str, ids_HW.shape))}, image {name} is {' x '.join(map(str, shape))}",
                "one height and width for a frame and its masks",
                "use images and masks of one archive; segbench data check lists every such frame",
            )
        return ids_HW


def label_of(
    ids_HW: NDArray[np.int32],
    border: int = 0,
    field_of_interest: int = 0,
    markers_HW: NDArray[np.int32] | None = None,
    core: float | None = None,
) -> NDArray[np.uint8]:
    """Classes from objects: 0 background, 1 cell, then border and core if there are such, 255 void.

    Void is what nobody annotated. Outside the field of interest a pixel without an object may belong to a cell that
    was left out, as only cells that reach into the field are annotated. A cell with a marker and no mask is somewhere
    around the marker: pixels without an object are void up to a typical cell's width from it, and farther unless an
    annotated object is nearer.

    Args:
        ids_HW: annotated objects, 0 = none.
        border: width of the class `border` in pixels, as in `label_parts`.
        field_of_interest: width in pixels of the strip along the image's edges that lies outside it.
        markers_HW: ids of the tracking markers, one of every cell, or None.
        core: of the class `core`, as in `label_parts`.
    """
    label_HW = np.where(ids_HW > 0, CELL, BACKGROUND).astype(np.uint8)
    label_parts(label_HW, ids_HW, border, core)
    free_HW = ids_HW == 0
    if field_of_interest:
        outside_HW = np.ones(ids_HW.shape, np.bool_)
        outside_HW[field_of_interest:-field_of_interest, field_of_interest:-field_of_interest] = False
        label_HW[outside_HW & free_HW] = VOID
    if markers_HW is not None:
        unmasked = _unmasked(markers_HW, ids_HW)
        if unmasked:
            label_HW[_around(np.isin(markers_HW, unmasked), ids_HW) & free_HW] = VOID
    return label_HW


def _unmasked(markers_HW: NDArray[np.int32], ids_HW: NDArray[np.int32]) -> list[int]:
    # The challenge's rule of detection: an object that covers more than half of a marker matches it.
    found = []
    for marker in np.unique(markers_HW[markers_HW > 0]):
        under = ids_HW[markers_HW == marker]
        if 2 * np.bincount(under)[1:].max(initial=0) <= under.size:
            found.append(int(marker))
    return found


def _around(seeds_HW: NDArray[np.bool_], ids_HW: NDArray[np.int32]) -> NDArray[np.bool_]:
    sizes = np.bincount(ids_HW.ravel())[1:]
    width = 2 * np.sqrt(np.median(sizes[sizes > 0]) / np.pi) if sizes.any() else np.inf
    return _distance_to(seeds_HW) < np.maximum(_distance_to(ids_HW > 0), width)


def _distance_to(mask_HW: NDArray[np.bool_]) -> NDArray[np.float32]:
    if not mask_HW.any():
        return np.full(mask_HW.shape, np.inf, np.float32)
    return distance_inside(~mask_HW)


class CellTracking:
    """A two-dimensional training data set of the challenge.

    Args:
        root: the folder of the data set (with 01 and 02 in it), or its parent.
        dataset: the challenge's name of the data set's folder: PhC-C2DH-U373.
        mean: of the training images, in grey levels.
        std: of the training images, in grey levels.
        by_sequence: frames of `train`, `val` and `test` if both sequences are there: `02` is a whole sequence,
            `01:0-94` some frames of one, both ends included; separate several by commas.
        by_time: the same if only one sequence is there: `0-74` are frames of that one.
        protocol: `by_sequence`, `by_time`, or `auto`: by sequence if both are there.
        truth: the masks to learn from and to compute `seg` with: `silver` or `gold`. Frames without one are in no
            split.
        border: width in pixels of the class `border` between cells, see `label_parts`; 0: there is none.
        field_of_interest: width in pixels of the strip along the image's edges where cells are annotated only if they
            reach farther in.
        core: share of a cell's depth from which its pixels are of the class `core`, see `label_parts`; None: there is
            none.

    Raises:
        SegbenchError: missing folders or masks, unknown frames, splits that share a frame.
    """

    def __init__(
        self,
        root: str | Path,
        dataset: str,
        mean: float,
        std: float,
        by_sequence: Mapping[str, str],
        by_time: Mapping[str, str],
        protocol: str = "auto",
        truth: str = "silver",
        border: int = 0,
        field_of_interest: int = 0,
        core: float | None = None,
    ) -> None:
        for key, value, known in (("protocol", protocol, ("auto", "by_sequence", "by_time")), ("truth", truth, TRUTHS)):
            if value not in known:
                raise SegbenchError(f"data.{key}={value}", f"one of {', '.join(known)}", f"correct data.{key}")
        check_parts(border, core)
        check("data.field_of_interest", field_of_interest, field_of_interest >= 0, "a width of 0 pixels or more", 50)
        self._dataset, self._truth, self._border, self._edge = dataset, truth, border, field_of_interest
        self._core = core
        self._mean, self._std = mean, std
        self._folder, self._sequences = _sequences(Path(root), dataset)
        both = len(self._sequences) > 1
        self._by_sequence = both if protocol == "auto" else protocol == "by_sequence"
        chosen = by_sequence if self._by_sequence else by_time
        key = f"data.{'by_sequence' if self._by_sequence else 'by_time'}"
        self._places = {split: self._resolve(text, f"{key}.{split}") for split, text in chosen.items() if text}
        refuse_shared(
            [(f"{key}.{split}", _frame_ids(places)) for split, places in self._places.items()],
            f"give every frame to one split of {key}",
        )
        self._splits = {split: self._frames(places, f"{key}.{split}") for split, places in self._places.items()}

    def _resolve(self, text: str, key: str) -> list[Place]:
        places: list[Place] = []
        for part in str(text).split(","):
            found = re.fullmatch(r"\s*(?:(?P<whole>\d\d)|(?:(?P<name>\d\d):)?(?P<first>\d+)-(?P<last>\d+))\s*", part)
            if found is None:
                raise SegbenchError(f"{key}={text}", "a sequence, 02, or frames of one, 01:0-94", f"correct {key}")
            sequence = self._sequence(found["whole"] or found["name"], f"{key}={text}")
            numbers = range(int(found["first"]), int(found["last"]) + 1) if found["last"] else sorted(sequence.images)
            if not numbers or any(number not in sequence.images for number in numbers):
                raise SegbenchError(
                    f"{key}={text}, and sequence {sequence.name} has frames {ranges(sorted(sequence.images))}",
                    "frames of the sequence, the first before the last",
                    f"correct {key}, or check that all images are there",
                )
            places += [(sequence.name, number) for number in numbers]
        return places

    def _sequence(self, name: str | None, setting: str) -> Sequence2D:
        if name is None and len(self._sequences) == 1:
            return next(iter(self._sequences.values()))
        if name not in self._sequences:
            raise SegbenchError(
                f"{setting}, and sequences {', '.join(self._sequences)} in {self._folder}",
                "one of these sequences, named as in 01:0-94" if name is None else "one of these sequences",
                "correct it, or choose data.protocol",
            )
        return self._sequences[name]

    def _frames(self, places: list[Place], key: str) -> Frames:
        annotated = [(name, number) for name, number in places if number in self._masks(name)]
        if not annotated:
            have = [f"{name}: {ranges(sorted(self._masks(name))) or 'none'}" for name in self._sequences]
            raise SegbenchError(
                f"no frame of {key} has a {self._truth} mask ({TRUTHS[self._truth]}); frames with one: "
                + "; ".join(have),
                f"frames with a {self._truth} mask",
                f"choose data.truth={'silver' if self._truth == 'gold' else 'gold'}, or correct {key}",
            )
        return Frames(self._sequences, annotated, self._truth, self._border, self._edge, self._core)

    def _masks(self, sequence: str) -> Mapping[int, Path]:
        return self._sequences[sequence].masks[self._truth]

    @cached_property
    def spec(self) -> DatasetSpec:
        """One grey modality; classes background and cell, and border and core if they are asked for."""
        head = HeadSpec(("background", "cell"), ((0, 0, 0), (255, 255, 255)))
        return DatasetSpec(
            name=NAMES.get(self._dataset, self._dataset),
            modalities={"image": ModalitySpec(1, (self._mean,), (self._std,), "grey level, 0 to 255")},
            heads={"semantic": with_parts(head, self._border, self._core)},
            citation="Maška et al., Nature Methods 20, 2023; Ulman et al., Nature Methods 14, 2017; data of "
            "G. van Cappellen (DIC-C2DH-HeLa) and S. Kumar (PhC-C2DH-U373)",
            licence="the Cell Tracking Challenge's conditions of use",
            protocol=self._protocol(),
            dependence="frames of one sequence",
        )

    def _protocol(self) -> str:
        parts = []
        for split, places in self._places.items():
            frames = ", ".join(
                f"{name}: {ranges([number for _, number in group])}"
                for name, group in groupby(places, key=lambda place: place[0])
            )
            with_mask = len(self._splits[split])
            parts.append(f"{split} {frames}" + ("" if with_mask == len(places) else f" ({with_mask} with a mask)"))
        gold = [place for place in self._places.get("test", []) if place[1] in self._sequences[place[0]].masks["gold"]]
        beside = f"; gold masks of {len(gold)} test frames score seg_gold" if gold and self._truth != "gold" else ""
        how = "by sequence" if self._by_sequence else "blocks of time of one sequence, so frames are correlated"
        return f"{self._truth} truth, {how}: {'; '.join(parts)}{beside}; training data, not the challenge's test data"

    def split(self, name: str) -> Frames | None:
        """`train`, `val` or `test`; None for a split that the protocol does not have."""
        return self._splits.get(name)


def _sequences(root: Path, dataset: str) -> tuple[Path, dict[str, Sequence2D]]:
    for folder in (root / dataset, root):
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
        sequences = {path.name: Sequence2D(path) for path in paths if re.fullmatch(r"\d\d", path.name)}
        for name, sequence in sequences.items():
            if not sequence.images:
                raise SegbenchError(
                    f"no image in {folder / name}", "t000.tif, t001.tif ...", "unpack the challenge's archive again"
                )
        if sequences:
            return folder, sequences
    part = NAMES.get(dataset)
    prepare = f"run segbench data prepare cell_tracking parts={part} {as_typed('root', root)}, or " if part else ""
    raise SegbenchError(
        f"no {dataset} with folders 01 or 02 in {root} (data.root)",
        f"{dataset}/01/t000.tif, {dataset}/01_ST/SEG/man_seg000.tif ..., as in the challenge's archive",
        f"{prepare}set data.root to it",
    )
