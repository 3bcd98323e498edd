"""What is in the files of a folder: each decoded once, on all cores, and remembered until it changes.

Facts are kept a page, not a folder: mean and deviation of a training split, or classes without the void one, follow
from them without another look at the files.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from segbench.data.image_files import images_of
from segbench.data.mask_codes import Kind, masks_of
from segbench.data.pixel_counts import count_codes, count_runs, whole_sums
from segbench.data.scan_cache import ScanCache
from segbench.errors import SegbenchError

MOST_CODES = 2**16
"""Codes that are remembered a page. A photograph has more; the instance ids of a large section have fewer."""

FEW_CODES = 32
"""Pages of fewer codes are taken for masks, however often they change from pixel to pixel."""

_COUNTED = ("bool", "uint8", "uint16")
"""Types whose sums are whole numbers here; others are summed in float64."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ImageFacts:
    """An image of a file.

    Attributes:
        height: H.
        width: W.
        dtype: of the values in the file.
        sums: a channel two numbers: the sum of the values and of their squares, whole numbers, for bool, uint8 and
            uint16; the mean and the sum of the squared deviations from it for other types.
    """

    height: int
    width: int
    dtype: str
    sums: tuple[tuple[float, float], ...]

    @property
    def channels(self) -> int:
        """C."""
        return len(self.sums)


@dataclass(frozen=True)
class MaskFacts:
    """A mask of a file.

    Attributes:
        height: H.
        width: W.
        kind: how it is coded, as `Mask.kind`.
        distinct: how many codes it has.
        runs: of equal pixels, where it has more than `FEW_CODES`; else 0.
        codes: in ascending order; none where there are more than `MOST_CODES`.
        pixels: of each code.
        colours: of a palette PNG the colour of each code, 0xRRGGBB; else empty.
    """

    height: int
    width: int
    kind: Kind
    distinct: int
    runs: int
    codes: tuple[int, ...]
    pixels: tuple[int, ...]
    colours: tuple[int, ...]


Facts = TypeVar("Facts", ImageFacts, MaskFacts)


@dataclass
class Scan(Generic[Facts]):
    """A folder's files.

    Attributes:
        pages: by name, what each page holds.
        faults: by name, why a file could not be read.
        decoded: how many files were read now; the others were known from an earlier scan.
        cache: where they are remembered, or None where nothing can be written.
    """

    pages: dict[str, tuple[Facts, ...]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    decoded: int = 0
    cache: Path | None = None


def scan_images(folder: Path, names: Sequence[str], progress: Progress | None = None) -> Scan[ImageFacts]:
    """Look at images; a file whose name, size and time of change are those of an earlier scan is not read again.

    Args:
        folder: holds them.
        names: relative to it, at least one.
        progress: is told files done and files to be read.

    Returns:
        what was found; a file that cannot be read is a fault of the scan, not an error.
    """
    return _scan(folder, names, "images", _look_at_image, ImageFacts, progress)


def scan_masks(folder: Path, names: Sequence[str], progress: Progress | None = None) -> Scan[MaskFacts]:
    """Look at masks, as `scan_images` at images."""
    return _scan(folder, names, "masks", _look_at_mask, MaskFacts, progress)


def _scan(
    folder: Path,
    names: Sequence[str],
    what: Literal["images", "masks"],
    look: Callable[[Path], tuple[Facts, ...]],
    kind: type[Facts],
    progress: Progress | None,
) -> Scan[Facts]:
    cache = ScanCache(folder, what)
    stamps = {name: _stamp(f"{folder}/{name}") for name in names}
    scan: Scan[Facts] = Scan()
    for name, pages in cache.read(stamps).items():
        scan.pages[name] = tuple(kind(*(_tuples(value) for value in page)) for page in pages)
    unknown = [name for name in names if name not in scan.pages]
    try:
        _look_at_all(folder, unknown, look, scan, progress)
    finally:
        # Also of a scan that was broken off: the next one goes on from there.
        if scan.decoded:
            cache.write({name: (stamps[name], [_values(page) for page in pages]) for name, pages in scan.pages.items()})
        scan.cache = cache.written
    scan.pages = {name: scan.pages[name] for name in names if name in scan.pages}
    return scan


def _look_at_all(
    folder: Path,
    names: Sequence[str],
    look: Callable[[Path], tuple[Facts, ...]],
    scan: Scan[Facts],
    progress: Progress | None,
) -> None:
    left = deque(names)

    def work() -> None:
        with contextlib.suppress(IndexError):
            while True:
                name = left.popleft()
                try:
                    scan.pages[name] = look(folder / name)
                except SegbenchError as error:
                    scan.faults[name] = error.found

    known = len(scan.pages)
    with scan_pool() as (pool, cores):
        # A thread takes the next file itself: being handed each would cost a tenth of reading a small one.
        workers = [pool.submit(work) for _ in range(min(cores, len(names)))]
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


_INTERVAL = 0.1
"""Seconds between two looks at how far the threads are."""


@contextlib.contextmanager
def scan_pool() -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """A thread a core, each kept on its own, and their number.

    Threads that wait for one another, as for the interpreter's lock, are gathered on one core by Linux where other
    programs keep the rest busy; the scan would then take twice as long.
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


def _stamp(path: str) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns


def _values(facts: ImageFacts | MaskFacts) -> list[Any]:
    return list(vars(facts).values())


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _look_at_image(path: Path) -> tuple[ImageFacts, ...]:
    pages = []
    for image_HWC in images_of(path):
        height, width, _ = image_HWC.shape
        sums = _sums(image_HWC)
        if not all(math.isfinite(number) for pair in sums for number in pair):
            bad = int((~np.isfinite(image_HWC)).sum())
            raise SegbenchError(
                f"{path} holds {bad} values that are not finite numbers", "numbers", "replace them before training"
            )
        pages.append(ImageFacts(height, width, str(image_HWC.dtype), sums))
    return tuple(pages)


def _sums(image_HWC: NDArray[Any]) -> tuple[tuple[float, float], ...]:
    """What `ImageFacts.sums` holds."""
    if str(image_HWC.dtype) in _COUNTED:
        return tuple(whole_sums(image_HWC.view(np.uint8) if image_HWC.dtype == bool else image_HWC))
    return tuple(_moments_of_reals(image_HWC[..., channel]) for channel in range(image_HWC.shape[2]))


def _moments_of_reals(plane_HW: NDArray[Any]) -> tuple[float, float]:
    values = plane_HW.astype(np.float64)
    mean = float(values.mean())
    values -= mean
    return mean, float(np.square(values, out=values).sum())


def _look_at_mask(path: Path) -> tuple[MaskFacts, ...]:
    pages = []
    for mask in masks_of(path):
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
                "a colour an index",
                "save it anew",
            ) from error
        height, width = mask.codes_HW.shape
        pages.append(MaskFacts(height, width, mask.kind, distinct, runs, tuple(codes), tuple(pixels), colours))
    return tuple(pages)


def mean_and_std(pages: Sequence[ImageFacts]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of all pixels of some images, by channel.

    Sums are rational numbers: the result does not depend on the order of the images, and is rounded once.

    Args:
        pages: at least one, all of one type and number of channels.

    Returns:
        C means and C deviations (of the population: divided by the number of pixels).
    """
    whole = pages[0].dtype in _COUNTED
    moments = [_moments([(p.height * p.width, *p.sums[c]) for p in pages], whole) for c in range(pages[0].channels)]
    return tuple(mean for mean, _ in moments), tuple(std for _, std in moments)


def _moments(sums: Sequence[tuple[int, float, float]], whole: bool) -> tuple[float, float]:
    count = sum(pixels for pixels, _, _ in sums)
    total = squares = Fraction(0)
    if whole:
        total += sum(int(first) for _, first, _ in sums)
        squares += sum(int(second) for _, _, second in sums)
    for pixels, first, second in () if whole else sums:
        mean = Fraction(first)
        total += pixels * mean
        squares += Fraction(second) + pixels * mean * mean
    return float(total / count), math.sqrt((squares - total * total / count) / count)


def by_page(pages: Mapping[str, Sequence[Facts]]) -> list[tuple[str, int, Facts]]:
    """Every page with its file's name and its number there."""
    return [(name, number, facts) for name, each in pages.items() for number, facts in enumerate(each)]
