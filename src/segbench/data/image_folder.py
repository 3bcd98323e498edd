"""The user's own folders of images and masks, described by what is found in the files."""

from __future__ import annotations

import copy
import gc
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.data.cells import check_parts, with_parts
from segbench.data.files.labelled import paired
from segbench.data.files.masks import read_mask
from segbench.data.files.open_stacks import OpenStacks
from segbench.data.files.statements import checked_reading
from segbench.data.folder.channels import CHANNELS, in_one_kind
from segbench.data.folder.classes import find_classes
from segbench.data.folder.facts import ImageFacts, by_page, mean_and_std, unit_of
from segbench.data.folder.faults import refuse_mixed, refuse_other_sizes, refuse_unusable
from segbench.data.folder.findings import findings
from segbench.data.folder.labels import Classes
from segbench.data.folder.objects import (
    classes_given,
    count_labels,
    label_objects,
    look_like_objects,
)
from segbench.data.folder.pairs import Pairs, find_pairs
from segbench.data.folder.scan import Progress, scan_images, scan_labels, scan_masks
from segbench.data.folder.split import Page, by_folders, by_folds, by_lists, by_shares, folders_of, page_id
from segbench.data.id_lists import digest
from segbench.data.raw import RawImage, Source
from segbench.errors import SegbenchError, check, check_one_of
from segbench.spec import VOID, DatasetSpec, HeadSpec, ModalitySpec, Reading

log = logging.getLogger(__name__)

MODALITY = "image"


class FolderImages(Source):
    """Some pages of the folder's files: image, mask and page, or None if the file has only one."""

    def __init__(
        self,
        pages: Sequence[tuple[str, str, int | None]],
        ids: tuple[str, ...],
        classes: Classes,
        modality: ModalitySpec,
        dtype: str,
        counts: Sequence[NDArray[np.int64]],
        sizes: frozenset[tuple[int, int]],
        border: int | None = None,
        core: float | None = None,
    ) -> None:
        self._border, self._core = border, core
        self._pages, self.ids, self._classes, self._modality, self._dtype = pages, ids, classes, modality, dtype
        self._counts, self._sizes = counts, sizes
        self._stacks, self._mask_reading = OpenStacks(modality.reading), of_masks(modality.reading)
        self._mask_stacks = OpenStacks(self._mask_reading)

    def class_counts(self) -> NDArray[np.int64]:
        """NK pixels of each class in each image, as the scan counted them."""
        return np.array([counts[:-1] for counts in self._counts])

    def sizes(self) -> frozenset[tuple[int, int]]:
        """H and W of the images, each once, as the scan found them."""
        return self._sizes

    def filled_with(self, modalities: Mapping[str, ModalitySpec]) -> FolderImages:
        """The same images, with other means where there is no data."""
        other = copy.copy(self)
        other._modality = replace(self._modality, mean=modalities[MODALITY].mean)
        return other

    def read(self, index: int) -> RawImage:
        """Image `image` (HW or HWC; uint8, uint16 or float32), label `semantic`, and objects if masks number them.

        Pixels without data are void, and no object.
        """
        (*paths, page), name = self._pages[index], self.ids[index]
        image, mask = map(Path, paths)
        decoded = self._stacks.decoded(image, page)
        image_HWC = decoded.filled(self._modality.mean)
        if str(image_HWC.dtype) != self._dtype or image_HWC.shape[2] != self._modality.channels:
            raise SegbenchError(
                f"{image} is {image_HWC.dtype} of {image_HWC.shape[2]} channels",
                f"{self._dtype} of {self._modality.channels}, as when the folder was scanned",
                "do not change images during a run; start it again",
            )
        read = read_mask(mask, page, self._mask_stacks.decoded, self._mask_reading)
        label_HW = self._classes(read, name)
        raw = paired({MODALITY: _as_read(image_HWC)}, {"semantic": label_HW}, name)
        if decoded.empty_HW is not None:
            label_HW[decoded.empty_HW] = VOID
            raw = replace(raw, empty_HW=decoded.empty_HW)
        if self._border is None:
            return raw
        label_HW, ids_HW = label_objects(label_HW, read.codes_HW, self._border, self._core)
        return replace(raw, labels={"semantic": label_HW}, instances=ids_HW)


def of_masks(reading: Reading) -> Reading:
    """How the masks of images are read: turned as these."""
    return Reading(exif=reading.exif)


def _as_read(image_HWC: NDArray[Any]) -> NDArray[Any]:
    """Grey as HW; types that augmentation does not support as uint8 or float32."""
    if image_HWC.dtype == bool:
        image_HWC = image_HWC.astype(np.uint8)
    elif image_HWC.dtype not in (np.uint8, np.uint16):
        image_HWC = image_HWC.astype(np.float32, copy=False)
    return image_HWC[..., 0] if image_HWC.shape[2] == 1 else image_HWC


@contextmanager
def _without_collections() -> Iterator[None]:
    """Keep Python's garbage collector from going through the facts of a hundred thousand files again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class ImageFolder:
    """The user's own images and masks, paired by their names without suffix, subfolders included.

    Images are of any depth and number of channels, the same in all of them, except that grey and coloured ones may be
    mixed; sizes may differ. Each page of a TIFF stack is an image. Masks are lossless: ids, a palette, or colours.
    Pixels without data (GDAL's tag, NaN, `nodata`) count neither for mean and deviation nor for a loss or a score.

    Every file is decoded once, and the findings are kept in the user's cache; only changed files are read again.
    Mean and deviation are those of the training split's pixels.

    Attributes:
        notes: what the user should look at, a sentence each; they are logged.

    Args:
        images: the folder of images, or one TIFF stack.
        masks: the folder of masks, or one TIFF stack.
        mask_suffix: what a mask's name adds to its image's: `_mask` for a.jpg and a_mask.png. With it, images and masks
            may share a folder.
        classes: names of the values in ascending order, or a mapping from each name to its value or colour, to several
            of them, or to `rest`; None or `auto`: each value or colour is a class, see `find_classes`.
        ignore_index: the value or colour that is void, or several; `[255, 255, 255]` and '#ffffff' are colours.
        val: share of the files that select the checkpoint; 0: none.
        test: share of the files that are scored; 0: none.
        seed: of the split, see `by_shares`.
        lists: a folder with train.txt, val.txt and test.txt, the files by split, or the splits.json of another run,
            instead of shares.
        partial: leave out images without a mask and masks without an image.
        channels: `auto`, `grey` or `rgb`, see `in_one_kind`.
        axes: of images whose files do not name them, as `Reading.axes`.
        exif: `ignore` or `turn`, as `Reading.exif`.
        nodata: a value that means no data.
        pairing: patterns of the names of images and masks, as in `Pairing`; None: equal names, or a guess.
        split: `shares`, `folders` (named train, val, test), or `auto`: folders if there are some and no folds or lists.
        group: what no split parts, as in `grouped`.
        folds: the number of folds; None: shares.
        fold: which of them, from 0, is the validation split.
        objects: each value of a mask but 0 is an object: classes background, object and border, and the objects' ids.
        border: its width in pixels, see `label_parts`.
        core: share of an object's depth from which its pixels are of the class `core`, see `label_parts`; None: there
            is none.

    Raises:
        SegbenchError: files that do not fit together, listing all of them.
    """

    @_without_collections()
    def __init__(
        self,
        images: str,
        masks: str,
        mask_suffix: str = "",
        classes: Sequence[str] | Mapping[str, Any] | str | None = None,
        ignore_index: Any = None,
        val: float = 0.15,
        test: float = 0.15,
        seed: int = 0,
        lists: str | Mapping[str, str | None] | None = None,
        partial: bool = False,
        channels: str = "auto",
        axes: str | None = None,
        exif: str = "ignore",
        nodata: float | None = None,
        pairing: str | None = None,
        split: str = "shares",
        group: str | None = None,
        folds: int | None = None,
        fold: int | None = None,
        objects: bool = False,
        border: int = 2,
        core: float | None = None,
    ) -> None:
        check_one_of("data.channels", channels, CHANNELS)
        check_one_of("data.split", split, ("auto", "shares", "folders"))
        check_parts(border, core)
        check(
            "data.core", core, objects or core is None, "null, or data.objects=true: masks that number objects", "null"
        )
        reading = checked_reading(Reading(axes, exif, nodata, "grey" if channels == "grey" else None))
        self._border, self._core = border if objects else None, core
        self.notes: tuple[str, ...] = ()
        pairs = find_pairs(images, masks, mask_suffix, partial, pairing)
        names = pairs.by_name
        # Strings: of a hundred thousand files, Path objects take seconds.
        self._files = {
            name: (f"{pairs.images}/{image}", f"{pairs.masks}/{mask}") for name, (image, mask) in names.items()
        }
        with _progress("scan images") as shown:
            image_scan = scan_images(pairs.images, [image for image, _ in names.values()], shown, reading)
        with _progress("scan masks") as shown:
            mask_scan = scan_masks(pairs.masks, [mask for _, mask in names.values()], shown, of_masks(reading))
        refuse_unusable([*image_scan.faults.values(), *mask_scan.faults.values()])
        self._channelled = in_one_kind(image_scan.pages, channels)
        self._images = {name: self._channelled.pages[image] for name, (image, _) in names.items()}
        self._masks = {name: mask_scan.pages[mask] for name, (_, mask) in names.items()}
        self._reading = replace(reading, channels=self._channelled.channels)
        refuse_mixed(self._channelled.pages)
        refuse_other_sizes(self._images, self._masks, exif)
        given = classes_given(classes) if objects else classes
        self._classes = find_classes(pairs.masks, mask_scan.pages, given, ignore_index)
        self._counts = self._count_classes(pairs)
        pages = {name: len(each) for name, each in self._images.items()}
        self._splits, how = _split(pages, lists, split, folds, fold, val, test, seed, group)
        how += "" if pairs.pairing is None else f"; paired {pairs.pairing}"
        self._modality = self._measured()
        counts = (f"{split} {len(each)} (ids {digest(self._ids(split))[:12]})" for split, each in self._splits.items())
        self._protocol = f"images of one's own, split {how}: {', '.join(counts)}"
        self._report(pairs, image_scan.decoded + mask_scan.decoded, (image_scan.cache, mask_scan.cache))
        if (
            classes in (None, "auto")
            and not objects
            and look_like_objects(
                self._masks,
                lambda name, page: read_mask(Path(self._files[name][1]), page if len(self._masks[name]) > 1 else None),
            )
        ):
            log.info("note: %s", _OBJECTS)
            self.notes = (*self.notes, _OBJECTS)

    def _measured(self) -> ModalitySpec:
        training = [self._images[name][page] for name, page in self._splits["train"]]
        if not any(facts.filled for facts in training):
            raise SegbenchError("training images without a pixel of data", "some data", "check data.nodata")
        means, stds = mean_and_std(training)
        # A channel that is the same everywhere stays at 0.
        return ModalitySpec(
            len(means), means, tuple(std or 1.0 for std in stds), unit_of(training[0].dtype), self._reading
        )

    def _count_classes(self, pairs: Pairs) -> dict[Page, NDArray[np.int64]]:
        """K + 1 pixels of each class and last of void, by page.

        Masks are read once more where the facts of a scan do not tell: borders, and pixels without data in the image.
        """
        counts = {(name, page): self._classes.count(facts) for name, page, facts in by_page(self._masks)}
        lacking = {name for name, pages in self._images.items() if any(facts.empty for facts in pages)}
        names = {name: mask for name, (_, mask) in pairs.by_name.items() if self._border is not None or name in lacking}
        if not names:
            return counts
        classes = self._classes
        settings = [repr(sorted(classes.labels.items())), repr(sorted(classes.kept)), repr(self._reading)]
        settings.append(f"{classes.coding} {len(classes.names)} {classes.rest} {self._border}")
        if self._core is not None:
            settings.append(f"core {self._core}")
        with _progress("count classes") as shown:
            scan = scan_labels(
                pairs.masks,
                list(names.values()),
                shown,
                of_masks(self._reading),
                f"labels-{digest(settings)[:16]}",
                partial(count_labels, classes=classes, border=self._border, core=self._core),
                {names[name]: self._files[name][0] for name in names if name in lacking},
                self._reading,
            )
        refuse_unusable(list(scan.faults.values()))
        return counts | {
            (name, page): np.array(facts.pixels, np.int64)
            for name, mask in names.items()
            for page, facts in enumerate(scan.pages[mask])
        }

    def _ids(self, split: str) -> tuple[str, ...]:
        return tuple(page_id(name, page, len(self._images[name])) for name, page in self._splits[split])

    @property
    def spec(self) -> DatasetSpec:
        """One modality `image`, one head of the classes found."""
        return DatasetSpec(
            name="image_folder",
            modalities={MODALITY: self._modality},
            heads={"semantic": self._head()},
            citation="the images' own",
            licence="the images' own",
            protocol=self._protocol,
        )

    def _head(self) -> HeadSpec:
        # Values of objects are numbers of theirs: classes are written as indices.
        coding = self._classes.written if self._border is None else None
        head = HeadSpec(self._classes.names, self._classes.palette, coding=coding)
        return head if self._border is None else with_parts(head, self._border, self._core)

    def split(self, name: str) -> FolderImages | None:
        """`train`; `val` and `test` if there is a share or a list for them."""
        if name not in self._splits:
            return None
        pages = [
            (*self._files[file], page if len(self._images[file]) > 1 else None) for file, page in self._splits[name]
        ]
        dtype = next(iter(self._images.values()))[0].dtype
        counts = [self._counts[place] for place in self._splits[name]]
        # Of images of one kind another one during a run is a fault; only prediction converts it.
        reading = self._reading if self._channelled.mixed else replace(self._reading, channels=None)
        modality = replace(self._modality, reading=reading)
        facts = (self._images[file][page] for file, page in self._splits[name])
        sizes = frozenset((each.height, each.width) for each in facts)
        parts = self._border, self._core
        return FolderImages(pages, self._ids(name), self._classes, modality, dtype, counts, sizes, *parts)

    def _report(self, pairs: Pairs, decoded: int, caches: Sequence[Path | None]) -> None:
        if pairs.pairing is not None:
            guessed = " as the names suggest; another one is set by data.pairing" if pairs.guessed else ""
            image, mask = next(iter(pairs.by_name.values()))
            log.info("masks are paired by %s (%s with %s)%s", pairs.pairing, image, mask, guessed)
        stated = (*self._channelled.notes, *describe_statements(self._images, self._reading))
        for sentence in (*describe_images(self._images, self._modality), *stated, *pairs.left_out):
            log.info("%s", sentence)
        head = self._head()
        for line in describe_classes(list(self._counts.values()), head.class_names):
            log.info("%s", line)
        log.info("%s", self._protocol)
        unlisted = sum(map(len, self._images.values())) - sum(map(len, self._splits.values()))
        if unlisted:
            log.info("%d images are in no split", unlisted)
        kept = (
            " and ".join(str(cache) for cache in caches if cache is not None)
            or "nowhere: the cache folder is not writable (XDG_CACHE_HOME)"
        )
        known = 2 * len(self._files) - decoded
        if decoded:
            beside = f", {known} were known" if known else ""
            log.info("scanned %s%s; the findings are kept in %s", _counted(decoded, "file"), beside, kept)
        else:
            log.info("all %d files are unchanged since they were scanned, according to %s", known, kept)
        self.notes = (*self._classes.notes, *findings(self._images, self._counts, self._splits, head.class_names))
        for note in self.notes:
            log.info("note: %s", note)


_OBJECTS = (
    "each value seems to be one object, and these are classes here; to find objects, with scores for them, use "
    "experiment=image_objects (or data=image_objects), or make them one class with "
    "data.classes='{background: 0, object: rest}'"
)


def _split(
    pages: Mapping[str, int],
    lists: str | Mapping[str, str | None] | None,
    split: str,
    folds: int | None,
    fold: int | None,
    val: float,
    test: float,
    seed: int,
    group: str | None,
) -> tuple[dict[str, list[Page]], str]:
    """As the first of `by_lists`, `by_folds`, `by_folders` and `by_shares` that the settings ask for."""
    asked = [
        *([f"data.lists={lists}"] if lists is not None else []),
        *([f"data.folds={folds}"] if folds is not None else [f"data.fold={fold}"] if fold is not None else []),
        *(["data.split=folders"] if split == "folders" else []),
    ]
    if group is not None and (lists is not None or split == "folders"):
        asked.append(f"data.group={group}")
    if len(asked) > 1 or (fold is not None and folds is None):
        raise SegbenchError(
            " and ".join(asked),
            "lists or folders, or shares or folds with or without groups; data.fold beside data.folds",
            "leave one out",
        )
    if lists is not None:
        return by_lists(pages, lists)
    if folds is not None:
        return by_folds(pages, folds, fold, test, seed, group)
    found = folders_of(list(pages)) if split == "auto" and group is None else {}
    if split == "folders" or (len(found) == len(pages) and {"train"} < set(found.values())):
        return by_folders(pages, val, seed)
    return by_shares(pages, val, test, seed, group)


def describe_images(images: Mapping[str, Sequence[ImageFacts]], modality: ModalitySpec) -> Iterator[str]:
    """Number, sizes, channels, depth, mean and deviation, as sentences."""
    pages = [facts for _, _, facts in by_page(images)]
    sizes = Counter((facts.height, facts.width) for facts in pages).most_common()
    shown = ", ".join(f"{count} of {height} x {width}" for (height, width), count in sizes[:3])
    more = f", {len(sizes) - 3} other sizes" if len(sizes) > 3 else ""
    stacks = f" in {_counted(len(images), 'file')}" if len(pages) != len(images) else ""
    channels = _counted(modality.channels, "channel")
    yield f"{_counted(len(pages), 'image')}{stacks} ({shown}{more}), {channels} of {pages[0].dtype}"
    values = (", ".join(f"{value:.5g}" for value in each) for each in (modality.mean, modality.std))
    yield "training images: mean {}; standard deviation {}".format(*values)


def describe_statements(images: Mapping[str, Sequence[ImageFacts]], reading: Reading) -> Iterator[str]:
    """What files state beside their values, and what is made of it, as sentences; none where they state nothing."""
    pages = [facts for _, _, facts in by_page(images)]
    empty, total = sum(facts.empty for facts in pages), sum(facts.height * facts.width for facts in pages)
    if empty:
        of = sum(facts.empty > 0 for facts in pages)
        yield f"no data in {empty} pixels ({empty / total:.2%}) of {_counted(of, 'image')}: void, and in no mean"
    if turned := sum(facts.turn != 1 for facts in pages):
        how = "turned as viewers show them" if reading.exif == "turn" else "read as they are stored"
        other = "data.exif=ignore reads them as stored" if reading.exif == "turn" else "data.exif=turn turns them"
        yield f"{_counted(turned, 'image')} with an EXIF turn: {how} ({other}); masks likewise"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def describe_classes(of_pages: Sequence[NDArray[np.int64]], names: Sequence[str]) -> Iterator[str]:
    """A small table: classes, their share of the pixels, and the number of images that show them.

    Args:
        of_pages: K + 1 counts of each page's pixels, of each class and last of void.
        names: K.
    """
    counts = np.array(of_pages)
    total = counts.sum()
    width = max(len(name) for name in (*names, "class"))
    yield f"{'class':<{width}}  share of pixels  images"
    for name, pixels_N in zip((*names, "void"), counts.T, strict=True):
        if name != "void" or pixels_N.any():
            yield f"{name:<{width}}  {pixels_N.sum() / total:>15.3%}  {np.count_nonzero(pixels_N):>6}"


@contextmanager
def _progress(what: str) -> Iterator[Progress]:
    """A bar on a terminal, as soon as there are files to read."""
    from rich.progress import Progress as Bars

    from segbench.runtime.console import Console

    console = Console(stderr=True)
    with Bars(console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task(what, total=None, visible=False)
        yield lambda done, total: bars.update(task, completed=done, total=total, visible=True)
