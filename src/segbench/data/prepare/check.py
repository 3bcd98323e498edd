"""Check a whole data set: read every file, count its contents and list all faults."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segbench.data.id_lists import digest
from segbench.data.prepare.downloads import Record, digest_of
from segbench.data.prepare.prepare import DOWNLOADS
from segbench.data.raw import SPLITS, DataSet, RawImage, Source
from segbench.errors import SegbenchError
from segbench.spec import DatasetSpec, HeadSpec


@dataclass
class SplitReport:
    """One split.

    Attributes:
        name: of the split.
        listed: images in its list.
        ids_digest: sha256 of the ids in order, a newline after each.
        read: images that were read.
        labels_digest: sha256 of the labels' bytes in the order of ids and heads; together with the ids' it identifies
            a data set's contents.
        sizes: images by (height, width).
        channels: of each modality, its range in raw units: (lowest, highest).
        pixels: by head, K + 1 counts: of each class, and last of void.
        images_with: by head, K counts of images that show the class.
        faults: what is wrong, a sentence each.
        notes: other findings: classes that no training image shows.
    """

    name: str
    listed: int
    ids_digest: str
    read: int = 0
    labels_digest: str = ""
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    channels: dict[str, tuple[float, float]] = field(default_factory=dict)
    pixels: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    images_with: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def void_share(self, head: str) -> float:
        """The share of void among the head's pixels; 0 if there are none."""
        counts = self.pixels[head]
        return float(counts[-1] / max(counts.sum(), 1))


@dataclass
class Report:
    """A data set.

    Attributes:
        spec: its description.
        splits: by name.
        overlaps: sentences on ids that two splits share, which are faults.
        archives: the fetched files' digests, a sentence each.
        archive_faults: those of them that differ from the record.
        twins: pairs of ids in two splits with identical pixels.
    """

    spec: DatasetSpec
    splits: dict[str, SplitReport]
    overlaps: list[str]
    archives: list[str]
    archive_faults: list[str]
    twins: list[tuple[str, str]]

    @property
    def faults(self) -> list[str]:
        """Everything that is wrong."""
        own = [f"{split.name}: {fault}" for split in self.splits.values() for fault in split.faults]
        return [*self.overlaps, *own, *self.archive_faults]

    @property
    def notes(self) -> list[str]:
        """Findings that are not faults."""
        same = [f"{a} and {b} are the same image in two splits" for a, b in self.twins]
        return [f"{split.name}: {note}" for split in self.splits.values() for note in split.notes] + same


Progress = Callable[[str, int, int | None], None]


def check(
    dataset: DataSet, root: Path | None = None, limit: int | None = None, progress: Progress | None = None
) -> Report:
    """Read every image of every split.

    Args:
        dataset: as a run would build it.
        root: its folder; downloads in it are compared with their recorded digests.
        limit: images per split, evenly spread; None: all.
        progress: called with the split, images done and the number of images.

    Returns:
        the findings; faults in files raise nothing.
    """
    spec = dataset.spec
    sources = {name: source for name in SPLITS if (source := dataset.split(name)) is not None}
    reports: dict[str, SplitReport] = {}
    pictures: dict[str, dict[str, str]] = {}
    for name, source in sources.items():
        reports[name], pictures[name] = _check_split(name, source, spec, limit, progress)
    overlaps, twins = [], []
    for first, second in combinations(sources, 2):
        shared = sorted(set(sources[first].ids) & set(sources[second].ids))
        if shared:
            overlaps.append(f"{first} and {second} share {len(shared)} images, first {', '.join(shared[:3])}")
        same = pictures[first].keys() & pictures[second].keys()
        twins += sorted((pictures[first][key], pictures[second][key]) for key in same)
    archives, archive_faults = _check_archives(root / DOWNLOADS) if root is not None else ([], [])
    return Report(spec, reports, overlaps, archives, archive_faults, [pair for pair in twins if pair[0] != pair[1]])


def _check_split(
    name: str, source: Source, spec: DatasetSpec, limit: int | None, progress: Progress | None
) -> tuple[SplitReport, dict[str, str]]:
    report = SplitReport(name, len(source), digest(source.ids))
    for head, head_spec in spec.heads.items():
        report.pixels[head] = np.zeros(head_spec.num_classes + 1, np.int64)
        report.images_with[head] = np.zeros(head_spec.num_classes, np.int64)
    labels = hashlib.sha256()
    pictures: dict[str, str] = {}
    count = len(source) if limit is None else min(limit, len(source))
    for done, index in enumerate(np.linspace(0, len(source) - 1, count).round().astype(int).tolist(), 1):
        try:
            raw = source.read(index)
        except SegbenchError as error:
            report.faults.append(error.found)
        except Exception as error:  # damaged files end in errors of any class
            report.faults.append(f"image {source.ids[index]} cannot be read: {type(error).__name__}: {error}")
        else:
            _count(raw, spec, report)
            for label in raw.labels.values():
                labels.update(np.ascontiguousarray(label).data)
            pictures[_picture(raw.images)] = raw.id
        if progress is not None:
            progress(name, done, count)
    report.labels_digest = labels.hexdigest()
    if report.read:
        report.notes += [
            f"no pixel is labelled ({head}), all is void"
            for head, pixels in report.pixels.items()
            if not pixels[:-1].any() and pixels[-1]
        ]
    if name == "train" and limit is None and report.read:
        for head, head_spec in spec.heads.items():
            unseen = [k for k in np.flatnonzero(report.images_with[head] == 0).tolist() if k not in head_spec.excluded]
            if unseen:
                report.notes.append(f"no image shows {', '.join(head_spec.class_names[k] for k in unseen)} ({head})")
            report.notes += _rare(head, head_spec, report)
    return report, pictures


RARE = 0.02
"""Classes with a smaller share of the labelled pixels are pointed out."""


def _rare(head: str, spec: HeadSpec, report: SplitReport) -> list[str]:
    pixels_K = report.pixels[head][:-1]
    share_K = pixels_K / max(int(pixels_K.sum()), 1)
    rare = [k for k in np.flatnonzero((pixels_K > 0) & (share_K < RARE)).tolist() if k not in spec.excluded]
    if not rare:
        return []
    few = sorted(rare, key=lambda k: share_K[k])[:5]
    shown = ", ".join(f"{spec.class_names[k]} {share_K[k]:.2%}" for k in few) + (" ..." if len(rare) > 5 else "")
    keys = "loss.class_weights=auto weighs them, data.balance=auto draws tiles that show them"
    return [f"rare in {head}: {shown} of the labelled pixels; {keys}"]


def _picture(images: Mapping[str, NDArray[np.generic]]) -> str:
    pixels = hashlib.sha256()
    for image in images.values():
        pixels.update(str(image.shape).encode())
        pixels.update(np.ascontiguousarray(image).data)
    return pixels.hexdigest()


def _count(raw: RawImage, spec: DatasetSpec, report: SplitReport) -> None:
    report.read += 1
    arrays = {**raw.images, **raw.labels}
    sizes = {array.shape[:2] for array in arrays.values()}
    report.sizes[next(iter(arrays.values())).shape[:2]] += 1
    if len(sizes) > 1:
        shown = ", ".join(f"{name} {array.shape[0]} x {array.shape[1]}" for name, array in arrays.items())
        report.faults.append(f"image {raw.id} differs in size: {shown}")
    for name, image in raw.images.items():
        low, high = float(image.min()), float(image.max())
        before = report.channels.get(name, (low, high))
        report.channels[name] = min(low, before[0]), max(high, before[1])
    for head, label in raw.labels.items():
        head_spec = spec.heads[head]
        values = np.bincount(label.ravel(), minlength=256)
        classes = values[: head_spec.num_classes]
        report.pixels[head][:-1] += classes
        report.pixels[head][-1] += values[head_spec.ignore_index]
        report.images_with[head] += classes > 0
        if classes.sum() + values[head_spec.ignore_index] != label.size:
            known = {*range(head_spec.num_classes), head_spec.ignore_index}
            wrong = [str(value) for value in np.flatnonzero(values).tolist() if value not in known]
            report.faults.append(f"image {raw.id} has label ids {', '.join(wrong[:6])} in {head}")


def _check_archives(folder: Path) -> tuple[list[str], list[str]]:
    digests, faults = [], []
    for name, entry in Record(folder).read().items():
        published = entry.get("published")
        how = f"as published ({published})" if published else "as recorded at the first download"
        if not (folder / name).is_file():
            digests.append(f"{name}: sha256 {entry['sha256']} when it was fetched, {how}; deleted since")
        elif digest_of(folder / name) == entry["sha256"]:
            digests.append(f"{name}: sha256 {entry['sha256']}, {how}")
        else:
            faults.append(f"{folder / name} no longer has sha256 {entry['sha256']}, recorded when it was fetched")
    return digests, faults
