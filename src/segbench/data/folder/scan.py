"""The contents of a folder's files: each decoded once, on all cores, and remembered until it changes.

Facts are kept per page, not per folder: mean and deviation of a training split, or classes without the void one, follow
from them without reading the files again.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import time
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray

from segbench.data.files.image_files import AS_STORED, pages_of
from segbench.data.files.masks import Mask, masks_of
from segbench.data.files.statements import Decoded
from segbench.data.folder.cache import ScanCache, Stamp
from segbench.data.folder.counts import count_codes, count_runs, whole_sums
from segbench.data.folder.facts import COUNTED, FEW_CODES, MOST_CODES, Facts, ImageFacts, LabelFacts, MaskFacts, row_of
from segbench.data.raw import why_unreadable
from segbench.errors import SegbenchError
from segbench.spec import Reading

Progress = Callable[[int, int], None]


@dataclass
class Scan(Generic[Facts]):
    """A folder's files.

    Attributes:
        pages: the facts of each page, by name.
        faults: by name, why a file cannot be used.
        decoded: how many files were read; the others were known from an earlier scan.
        cache: where the facts are kept, or None if no place is writable.
    """

    pages: dict[str, tuple[Facts, ...]] = field(default_factory=dict)
    faults: dict[str, SegbenchError] = field(default_factory=dict)
    decoded: int = 0
    cache: Path | None = None


def scan_images(
    folder: Path, names: Sequence[str], progress: Progress | None = None, reading: Reading = AS_STORED
) -> Scan[ImageFacts]:
    """Scan images; a file with the name, size and modification time of an earlier scan is not read again.

    Args:
        folder: of the images.
        names: relative to it, at least one.
        progress: called with files done and files to read.
        reading: how the files are read.

    Returns:
        the findings; an unreadable file is a fault of the scan, not an error.
    """
    return _scan(folder, names, "images", _image_facts, ImageFacts, progress, reading)


def scan_masks(
    folder: Path, names: Sequence[str], progress: Progress | None = None, reading: Reading = AS_STORED
) -> Scan[MaskFacts]:
    """Scan masks, as `scan_images` images."""
    return _scan(folder, names, "masks", _mask_facts, MaskFacts, progress, reading)


def scan_labels(
    folder: Path,
    names: Sequence[str],
    progress: Progress | None,
    reading: Reading,
    what: str,
    count: Callable[[Mask, NDArray[np.bool_] | None], tuple[int, ...]],
    images: Mapping[str, str],
    images_reading: Reading,
) -> Scan[LabelFacts]:
    """Count the classes of masks, as `scan_images` images, where the facts of masks do not give them.

    Args:
        folder: of the masks.
        names: as in `scan_images`.
        progress: as there.
        reading: as there.
        what: names the cache, by all that decides the classes.
        count: the pixels of each class of a mask, and last of void, given where its image has no data.
        images: by the name of a mask the path of its image, if that lacks data somewhere.
        images_reading: how these are read.
    """

    def read(path: Path, reading: Reading) -> tuple[LabelFacts, ...]:
        image = images.get(path.relative_to(folder).as_posix())
        pages = (None for _ in itertools.count()) if image is None else pages_of(Path(image), images_reading)
        return tuple(
            LabelFacts(count(mask, None if page is None else page[0].empty_HW))
            for mask, page in zip(masks_of(path, reading), pages, strict=False)
        )

    return _scan(folder, names, what, read, LabelFacts, progress, reading, images)


def _scan(
    folder: Path,
    names: Sequence[str],
    what: str,
    read: Callable[..., tuple[Facts, ...]],
    kind: type[Facts],
    progress: Progress | None,
    reading: Reading,
    beside: Mapping[str, str] = types.MappingProxyType({}),
) -> Scan[Facts]:
    cache = ScanCache(folder, what, row_of(kind), reading)
    stamps = {name: _stamp(f"{folder}/{name}") for name in names}
    for name, path in beside.items():
        stamps[name] += _stamp(path)
    scan: Scan[Facts] = Scan()
    shared: dict[Any, Any] = {}
    for name, pages in cache.read(stamps).items():
        scan.pages[name] = tuple(kind(*(_tuples(value, shared) for value in page)) for page in pages)
    unknown = [name for name in names if name not in scan.pages]
    try:
        few_bytes = sum(stamps[name][0] for name in unknown) <= _FEW_BYTES * len(unknown)
        _read_all(folder, unknown, partial(read, reading=reading), scan, progress, few_bytes)
    finally:
        # An interrupted scan too: the next one continues from there.
        if scan.decoded:
            cache.write({name: (stamps[name], [_values(page) for page in pages]) for name, pages in scan.pages.items()})
        scan.cache = cache.written
    scan.pages = {name: scan.pages[name] for name in names if name in scan.pages}
    return scan


def _stamp(path: str) -> Stamp:
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns


def _read_all(
    folder: Path,
    names: Sequence[str],
    read: Callable[[Path], tuple[Facts, ...]],
    scan: Scan[Facts],
    progress: Progress | None,
    few_bytes: bool,
) -> None:
    left = deque(names)

    def read_next() -> bool:
        try:
            name = left.popleft()
        except IndexError:
            return False
        try:
            scan.pages[name] = read(folder / name)
        except Exception as error:  # damaged files end in errors of any class
            scan.faults[name] = why_unreadable(folder / name, error)
        return True

    def work() -> None:
        # Each thread takes its next file itself: submitting every file costs a tenth of reading a small one.
        while read_next():
            pass

    known = len(scan.pages)
    with scan_pool() as (pool, cores):
        threads = 1 if few_bytes and _are_small(read_next) else cores
        workers = [pool.submit(work) for _ in range(min(threads, len(left)))]
        try:
            while wait(workers, timeout=_INTERVAL).not_done:
                if progress is not None:
                    progress(len(names) - len(left), len(names))
        finally:
            left.clear()
            wait(workers)
            scan.decoded = len(scan.pages) - known
    for worker in workers:
        worker.result()
    if progress is not None and names:
        progress(len(names), len(names))


def _are_small(read_next: Callable[[], bool]) -> bool:
    """Whether a file takes so short that one thread reads them soonest."""
    # The first file also loads compiled code, which says nothing of the others.
    read_next()
    began = time.perf_counter()
    read = sum(read_next() for _ in range(_TIMED))
    return time.perf_counter() - began < _SMALL * read


_INTERVAL = 0.1
"""Seconds between progress reports."""

_FEW_BYTES = 8192
"""Bytes per file above which it is not asked whether files are small."""
_TIMED = 4
"""Files that tell whether the others are small."""
_SMALL = 3e-4
"""Seconds per file below which one thread reads them all: more would spend twice that waiting for the interpreter."""


@contextlib.contextmanager
def scan_pool() -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """A thread per core, each pinned to its own, and their number.

    Linux gathers threads that wait for one another, as for the interpreter's lock, on one core if other programs keep
    the rest busy; the scan would then take twice as long.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        own = itertools.cycle(cores)
        pool = ThreadPoolExecutor(len(cores), initializer=lambda: os.sched_setaffinity(0, {next(own)}))
    else:
        cores = list(range(os.cpu_count() or 1))
        pool = ThreadPoolExecutor(len(cores))
    with pool:
        yield pool, len(cores)


def _values(facts: ImageFacts | MaskFacts | LabelFacts) -> list[Any]:
    return [getattr(facts, name) for name in facts.__slots__]


def _tuples(value: Any, shared: dict[Any, Any]) -> Any:
    """Equal tuples as one object: most masks of a folder have the same codes."""
    if not isinstance(value, tuple):
        return value
    found = tuple([_tuples(each, shared) for each in value])
    return shared.setdefault(found, found)


def _image_facts(path: Path, reading: Reading) -> tuple[ImageFacts, ...]:
    pages = []
    for page, turn, kind in pages_of(path, reading):
        height, width, _ = page.image_HWC.shape
        sums = _sums(page)
        if not all(math.isfinite(number) for pair in sums for number in pair):
            bad = int(np.isinf(page.image_HWC).sum())
            raise SegbenchError(
                f"{path} has {bad} infinite values", "finite numbers, or NaN where there is no data", "replace them"
            )
        empty = 0 if page.empty_HW is None else int(page.empty_HW.sum())
        pages.append(ImageFacts(height, width, str(page.image_HWC.dtype), sums, empty, turn, kind))
    return tuple(pages)


def _sums(page: Decoded) -> tuple[tuple[float, float], ...]:
    """As in `ImageFacts.sums`."""
    image_HWC = page.image_HWC
    if str(image_HWC.dtype) in COUNTED:
        # Zeros add nothing.
        counted = page.filled((0.0,))
        return tuple(whole_sums(counted.view(np.uint8) if counted.dtype == bool else counted))
    values_NC = image_HWC.reshape(-1, image_HWC.shape[2]) if page.empty_HW is None else image_HWC[~page.empty_HW]
    return tuple(_moments_of_reals(values_NC[:, channel]) for channel in range(image_HWC.shape[2]))


def _moments_of_reals(values_N: NDArray[Any]) -> tuple[float, float]:
    if not values_N.size:
        return 0.0, 0.0
    values = values_N.astype(np.float64)
    with np.errstate(invalid="ignore"):
        mean = float(values.mean())
        values -= mean
    return mean, float(np.square(values, out=values).sum())


def _mask_facts(path: Path, reading: Reading) -> tuple[MaskFacts, ...]:
    pages = []
    for mask in masks_of(path, reading):
        codes, pixels = count_codes(mask.codes_HW)
        distinct = len(codes)
        runs = count_runs(mask.codes_HW) if distinct > FEW_CODES else 0
        if distinct > MOST_CODES:
            codes, pixels = [], []
        try:
            colours = tuple(mask.palette[code] for code in codes) if mask.kind == "palette" else ()
        except IndexError as error:
            raise SegbenchError(
                f"{path} has the palette index {codes[-1]} and {len(mask.palette)} colours",
                "a colour per index",
                "save it again",
            ) from error
        height, width = mask.codes_HW.shape
        pages.append(
            MaskFacts(height, width, mask.kind, distinct, runs, tuple(codes), tuple(pixels), colours, mask.nodata)
        )
    return tuple(pages)
