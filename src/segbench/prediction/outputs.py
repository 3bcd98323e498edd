"""The kinds of output: masks, probabilities, overlays, instances, and the files that two challenges take."""

from __future__ import annotations

import contextlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.data.pascal_voc import SERVER_PATH, voc_palette
from segbench.errors import SegbenchError
from segbench.metrics.decoding import decode_instances
from segbench.prediction.coding import Coder
from segbench.prediction.files import CANVAS_BYTES, OutputFile, PngFile, TiffFile, ZarrFile
from segbench.prediction.overlay import Brush, as_picture, backdrop, grey_range
from segbench.prediction.pages import Page
from segbench.prediction.result import Result
from segbench.prediction.settings import LARGE_PIXELS, Target, check_frames
from segbench.spec import HeadSpec

_PICTURE_SAMPLE = 2**20
_ORIENTATION = 274


def _tiff(target: Target, path: Path, dtype: Any, **options: Any) -> TiffFile:
    placement = dict(target.placement)
    if target.turn != 1:
        # The output lies as the input, so viewers turn both.
        placement["extratags"] = [*placement.get("extratags", ()), (_ORIENTATION, "H", 1, target.turn, False)]
    return TiffFile(path, dtype, target.sizes, placement=placement, **options)


class Output(ABC):
    """One kind of output of one input, filled page by page and window by window.

    Args:
        target: what it is made for.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.files: list[OutputFile] = []

    def begin(self, index: int, page: Page) -> None:
        """Start a page."""
        for file in self.files:
            file.begin(index, page.size)

    @abstractmethod
    def add(self, result: Result) -> None:
        """Take a window."""

    def end(self) -> None:
        """The page is complete."""
        for file in self.files:
            file.end()


class _ByHead(Output):
    """One file per head."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._files = {name: self._file(name, head) for name, head in target.spec.heads.items()}
        self.files = list(self._files.values())

    @abstractmethod
    def _file(self, name: str, head: HeadSpec) -> OutputFile:
        """The head's file."""


class Masks(_ByHead):
    """Classes in the values of the user's masks, or their indices with a palette: PNG, TIFF or zarr."""

    def __init__(self, target: Target) -> None:
        self._coders = {name: self._coder(head, target) for name, head in target.spec.heads.items()}
        super().__init__(target)

    def _coder(self, head: HeadSpec, target: Target) -> Coder:
        return Coder(head, target.settings.own_values)

    def _file(self, name: str, head: HeadSpec) -> OutputFile:
        target, parts, coder = self.target, self.target.head_part(name), self._coders[name]
        if target.settings.store == "zarr":
            path, about = target.path("masks", ".zarr", *parts), target.about(name) | coder.table()
            return ZarrFile(path, coder.dtype, target.sizes, coder.samples, about, axis="c")
        if target.is_picture and coder.fits_png:
            return PngFile(target.path("masks", ".png", *parts), coder.palette, coder.dtype, coder.samples)
        path = target.path("masks", ".tif", *parts)
        shape: dict[str, Any] = {"samples": coder.samples, "palette": coder.palette}
        shape["description"] = json.dumps({"segbench": coder.table()})
        return _tiff(target, path, coder.dtype, compressed=True, **shape)

    def add(self, result: Result) -> None:
        """Write the likeliest classes."""
        for head, file in self._files.items():
            coder = self._coders[head]
            if result.empty is not None and coder.samples == 1:
                file.nodata = coder.void
            block = coder(result.classes(head), result.empty)
            in_front = isinstance(file, ZarrFile) and coder.samples > 1
            file.put(result.y, result.x, np.moveaxis(block, -1, 0) if in_front else block)


class Voc(Masks):
    """Indices, in the folders of the PASCAL VOC server's archive."""

    def _coder(self, head: HeadSpec, target: Target) -> Coder:
        return Coder(head, own=False)

    def _file(self, name: str, head: HeadSpec) -> OutputFile:
        target = self.target
        if len(target.sizes) != 1 or target.sizes[0][0] * target.sizes[0][1] > LARGE_PIXELS:
            raise SegbenchError(
                f"{target.name} has {len(target.sizes)} pages of {target.sizes[0]}", "one photograph", "leave it out"
            )
        settings = target.settings
        place = SERVER_PATH.format(year=settings.voc_year, competition=settings.voc_competition, id=target.name)
        return PngFile(target.folder / place, voc_palette(256))


class Probabilities(Output):
    """Float32 TIFF, one file per class (of two classes only the second), or zarr with an axis of classes.

    NaN where the image has no data.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._files: dict[tuple[str, int, int], OutputFile] = {}
        for name, head in target.spec.heads.items():
            # P(second) is enough for two classes: P(cell) of an EM run, as the ISBI challenge takes it.
            classes = [1] if head.num_classes == 2 else list(range(head.num_classes))
            if target.settings.store == "zarr":
                path = target.path("probabilities", ".zarr", *target.head_part(name))
                about = target.about(name) | {"classes": classes}
                file = ZarrFile(path, np.float32, target.sizes, len(classes), about)
                self._files[name, classes[0], classes[-1] + 1] = file
                continue
            for k in classes:
                parts = (*target.head_part(name), *([head.class_names[k]] if len(classes) > 1 else []))
                path = target.path("probabilities", ".tif", *(part.replace("/", "_") for part in parts))
                limit = CANVAS_BYTES // len(classes)
                self._files[name, k, k + 1] = _tiff(target, path, np.float32, limit=limit)
        self.files = list(self._files.values())

    def add(self, result: Result) -> None:
        """Write P(class)."""
        for (head, first, stop), file in self._files.items():
            block_Khw = result.probabilities(head)[first:stop]
            if result.empty is not None:
                file.nodata = math.nan
                block_Khw = np.where(result.empty, np.float32(math.nan), block_Khw)
            file.put(result.y, result.x, block_Khw[0] if len(block_Khw) == 1 else block_Khw)


class Overlays(_ByHead):
    """The image in RGB, tinted and outlined by its classes: PNG, or a TIFF of several pages."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._modality = backdrop(target.spec)
        self._brushes = {name: Brush(head, target.settings.opacity) for name, head in target.spec.heads.items()}
        self._levels: tuple[float, float] | None = None

    def _file(self, name: str, head: HeadSpec) -> OutputFile:
        target, parts = self.target, self.target.head_part(name)
        if target.is_picture:
            return PngFile(target.path("overlays", ".png", *parts), None, turn=target.turn)
        return _tiff(target, target.path("overlays", ".tif", *parts), np.uint8, samples=3, compressed=True)

    def begin(self, index: int, page: Page) -> None:
        """Start a page, with its grey range."""
        super().begin(index, page)
        self._levels = grey_range(_centre(page, self._modality))

    def add(self, result: Result) -> None:
        """Draw."""
        picture_HW3 = as_picture(result.image(self._modality), self._levels)
        for head, file in self._files.items():
            drawn_HW3 = self._brushes[head].draw(picture_HW3, result.classes(head))
            if result.empty is not None:
                drawn_HW3[result.empty] = picture_HW3[result.empty]
            file.put(result.y, result.x, drawn_HW3)


def _centre(page: Page, modality: str) -> NDArray[Any]:
    """The page, or of a large one its centre."""
    height, width = page.size
    h, w = min(height, max(1024, _PICTURE_SAMPLE // width)), min(width, max(1024, _PICTURE_SAMPLE // height))
    y, x = (height - h) // 2, (width - w) // 2
    return page.read(y, y + h, x, x + w)[modality]


class Instances(_ByHead):
    """Object ids, decoded from the probabilities by the run's `decoding`: 16-bit TIFF, or 32-bit zarr."""

    def __init__(self, target: Target) -> None:
        largest = max(height * width for height, width in target.sizes)
        if largest > LARGE_PIXELS:
            raise SegbenchError(
                f"{target.name} with a page of {largest} pixels for format=instances",
                f"at most {LARGE_PIXELS}: objects are numbered over the whole image",
                "leave instances out, or cut the image",
            )
        super().__init__(target)
        self._probabilities: dict[str, NDArray[np.float32]] = {}
        self._empty_HW = np.zeros((0, 0), bool)

    def _file(self, name: str, head: HeadSpec) -> OutputFile:
        target, parts = self.target, self.target.head_part(name)
        if target.settings.store == "zarr":
            path = target.path("instances", ".zarr", *parts)
            return ZarrFile(path, np.uint32, target.sizes, attributes={"head": name})
        return _tiff(target, target.path("instances", ".tif", *parts), np.uint16, compressed=True)

    def begin(self, index: int, page: Page) -> None:
        """Start a page."""
        super().begin(index, page)
        self._probabilities = {
            name: np.empty((head.num_classes, *page.size), np.float32) for name, head in self.target.spec.heads.items()
        }
        self._empty_HW = np.zeros(page.size, bool)

    def add(self, result: Result) -> None:
        """Keep the probabilities until all are there."""
        for head, whole_KHW in self._probabilities.items():
            block_Khw = result.probabilities(head)
            height, width = block_Khw.shape[-2:]
            inside = (slice(result.y, result.y + height), slice(result.x, result.x + width))
            whole_KHW[:, *inside] = block_Khw
            if result.empty is not None:
                self._empty_HW[inside] = result.empty

    def end(self) -> None:
        """Number the objects of the page."""
        for head, file in self._files.items():
            objects_HW = decode_instances(self._probabilities[head], self.target.settings.decoding)
            objects_HW[self._empty_HW] = 0
            if isinstance(file, TiffFile) and (found := int(objects_HW.max(initial=0))) > 2**16 - 1:
                raise SegbenchError(
                    f"{found} objects in {self.target.name}",
                    "at most 65535 in a 16-bit TIFF",
                    "use format=instances store=zarr",
                )
            file.put(0, 0, objects_HW)
        self._probabilities = {}
        super().end()


class Ctc(Instances):
    """As instances, in the folders and under the names of the Cell Tracking Challenge's results: 01_RES/mask000.tif.

    The sequence and the frame are those of the input's name: 01/t000, 01-000 of a split, or t000, whose sequence is not
    known; its file lies in `output` itself, without a folder.
    """

    def _file(self, name: str, head: HeadSpec) -> OutputFile:
        target = self.target
        frame = check_frames([target.name])[0]
        if len(target.sizes) != 1:
            raise SegbenchError(
                f"{target.name} with {len(target.sizes)} pages for format=ctc",
                "a file for each frame, as the challenge has it",
                "use format=instances, which writes as many pages",
            )
        folder = target.folder / f"{frame['sequence']}_RES" if frame["sequence"] else target.folder
        return _tiff(target, folder / f"mask{frame['number']}.tif", np.uint16)


_MAKERS: dict[str, Callable[[Target], Output]] = {
    "masks": Masks,
    "probabilities": Probabilities,
    "overlays": Overlays,
    "instances": Instances,
    "voc": Voc,
    "ctc": Ctc,
}


class InputOutputs:
    """All outputs of one input.

    Args:
        target: what they are made for.

    Attributes:
        files: of all kinds.
        paths: their final names.
    """

    def __init__(self, target: Target) -> None:
        self._outputs = [_MAKERS[kind](target) for kind in target.settings.kinds]
        self.files = [file for output in self._outputs for file in output.files]
        self.paths = [file.path for file in self.files]

    def begin(self, index: int, page: Page) -> None:
        """Start a page."""
        for output in self._outputs:
            output.begin(index, page)

    def add(self, result: Result) -> None:
        """Take a window of it."""
        for output in self._outputs:
            output.add(result)

    def end(self) -> None:
        """The page is complete."""
        for output in self._outputs:
            output.end()

    def complete(self) -> None:
        """Every file is on the disk, under another name."""
        for file in self.files:
            if isinstance(file, TiffFile):
                file.complete()

    def finish(self) -> None:
        """Give every file its name."""
        for file in self.files:
            file.finish()

    def discard(self) -> None:
        """Leave nothing behind."""
        for file in self.files:
            # What cannot be deleted now, as its writer failed, is swept when the folder is next written to.
            with contextlib.suppress(OSError):
                file.discard()
