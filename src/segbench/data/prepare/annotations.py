"""Annotations of other programs as masks: COCO and LabelMe polygons, Cellpose's `_seg.npy`.

COCO: "Data format" and "Mask API" of cocodataset.org. LabelMe: one JSON beside each image, `shapes` of points.
"""

from __future__ import annotations

import json
import math
import pickle
import pickletools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import cv2
import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from segbench.data.raw import why_unreadable
from segbench.errors import SegbenchError, check_one_of, refuse_no_file
from segbench.runtime.files import written_whole
from segbench.runtime.limits import RATIO, refuse_bomb

VOID_OF = {"objects": 65535, "classes": 255}
"""The value of what is annotated as a crowd, by the kind of masks."""


class Area(NamedTuple):
    """Pixels of an image.

    Attributes:
        place: the rows and columns around them.
        pixels_HW: bool, where they are within them.
    """

    place: tuple[slice, slice]
    pixels_HW: NDArray[np.bool_]


@dataclass(frozen=True)
class Shape:
    """An annotated area.

    Attributes:
        label: its class.
        area: its pixels.
        crowd: whether it is many objects at once.
    """

    label: str
    area: Area
    crowd: bool = False


@dataclass(frozen=True)
class Annotated:
    """An image's annotations.

    Attributes:
        name: of the image, relative and without suffix.
        size: H and W.
        shapes: in their order.
    """

    name: str
    size: tuple[int, int]
    shapes: tuple[Shape, ...]


@dataclass
class Imported:
    """What was written.

    Attributes:
        masks: their number.
        objects: their number.
        classes: names in the order of their values from 1; for objects, of what they are.
        left_out: sentences on what was not used.
        crowds: areas that are void.
    """

    masks: int = 0
    objects: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    crowds: int = 0


def import_masks(source: Path, output: Path, kind: str = "objects") -> Imported:
    """Write a PNG for each annotated image.

    Where areas overlap, the smaller one is on top.

    Args:
        source: a COCO JSON file, or a folder (or a file) of LabelMe's JSON or Cellpose's `_seg.npy`.
        output: the folder of masks; its files are replaced.
        kind: `objects`: 16 bits, each area one value from 1. `classes`: 8 bits, a value for each label from 1.

    Raises:
        SegbenchError: no annotations, files that are none, more objects or classes than values, two images of one name.
    """
    check_one_of("masks", kind, ("objects", "classes"))
    done, written = Imported(), set[Path]()
    for annotated in _read(source, done):
        mask_HW = _drawn(annotated, kind, done)
        path = output / f"{annotated.name}.png"
        if path in written:
            raise SegbenchError(
                f"two images of the name {annotated.name}, whose mask is {path}",
                "a mask for each image",
                "rename one of them, or import their annotations into separate folders",
            )
        written.add(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded = cv2.imencode(".png", mask_HW)[1]
        with written_whole(path) as partial:
            partial.write_bytes(encoded.tobytes())
        done.masks += 1
    return done


def _drawn(annotated: Annotated, kind: str, done: Imported) -> NDArray[np.uint8 | np.uint16]:
    most = VOID_OF[kind]
    mask_HW = np.zeros(annotated.size, np.uint16 if kind == "objects" else np.uint8)
    for shape in annotated.shapes:
        done.classes.setdefault(shape.label, len(done.classes) + 1)
    real = [shape for shape in annotated.shapes if not shape.crowd]
    numbers = {id(shape): number for number, shape in enumerate(real, 1)}
    if len(numbers) >= most or (kind == "classes" and len(done.classes) >= most):
        raise SegbenchError(
            f"{annotated.name} has {len(numbers)} objects of {len(done.classes)} classes",
            f"fewer than {most} {kind} in masks={kind}",
            "cut the image, or merge classes",
        )
    order = sorted(annotated.shapes, key=lambda shape: (not shape.crowd, -int(shape.area.pixels_HW.sum())))
    for shape in order:
        value = done.classes[shape.label] if kind == "classes" else numbers.get(id(shape), most)
        mask_HW[shape.area.place][shape.area.pixels_HW] = most if shape.crowd else value
    done.objects, done.crowds = done.objects + len(real), done.crowds + len(annotated.shapes) - len(real)
    return mask_HW


def _read(source: Path, done: Imported) -> Iterator[Annotated]:
    if not source.exists():
        raise SegbenchError(f"no file {source}", "annotations of COCO, LabelMe or Cellpose", "correct the path")
    files = sorted(source.rglob("*")) if source.is_dir() else [source]
    found = [path for path in files if path.suffix == ".json" or path.name.endswith("_seg.npy")]
    if not found:
        raise SegbenchError(f"no .json and no _seg.npy in {source}", "annotations", "correct the path")
    top = source if source.is_dir() else source.parent
    for path in found:
        try:
            refuse_no_file(path)
            yield from _of_file(path, path.relative_to(top), done)
        except Exception as error:  # a file of another form ends in errors of any class
            raise why_unreadable(path, error, "a whole file of COCO, LabelMe or Cellpose") from error


def _of_file(path: Path, relative: Path, done: Imported) -> Iterator[Annotated]:
    if path.suffix == ".npy":
        yield _cellpose(path, relative.as_posix().removesuffix("_seg.npy"))
        return
    # Programs on Windows put a mark of their byte order first.
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(content, Mapping) and "annotations" in content and "images" in content:
        yield from _coco(content, path, done)
    elif isinstance(content, Mapping) and "shapes" in content:
        yield _labelme(content, path, relative, done)
    else:
        done.left_out[f"{path} is neither COCO's nor LabelMe's"] += 1


class _Canvas:
    """What the annotations of an image may take: a file of a few bytes may state any size.

    Args:
        path: the file.
        height: H, a number as the file has it.
        width: W.
        ratio: pixels of areas for each byte of the file, beyond what any file may have.

    Raises:
        SegbenchError: the image is too large for the file; also from its methods.
        ValueError: no size of an image that can be written.
    """

    def __init__(self, path: Path, height: Any, width: Any, ratio: int = RATIO) -> None:
        self.size = int(height), int(width)
        if not all(1 <= side <= _LARGEST_SIDE for side in self.size):
            raise ValueError(f"an image of {self.size[0]} x {self.size[1]}")
        self._path, self._stored, self._ratio, self._kept, self._crossed = path, path.stat().st_size, ratio, 0, 0
        # The mask, and an area on it.
        refuse_bomb(path, 3 * math.prod(self.size), self._stored)

    def pixels(self, rows: slice, columns: slice) -> NDArray[np.uint8]:
        """Zeros for an area, HW, counted before the memory is taken."""
        shape = max(rows.stop - rows.start, 0), max(columns.stop - columns.start, 0)
        self._kept += math.prod(shape)
        refuse_bomb(self._path, self._kept, self._stored, self._ratio)
        return np.zeros(shape, np.uint8)

    def cross(self, rows: int) -> None:
        """Count the rows that an edge crosses, which take time."""
        self._crossed += rows
        if self._crossed > max(_CROSSINGS, _CROSSED * self._stored):
            raise ValueError(f"outlines that cross {self._crossed:,} rows, in {self._stored:,} bytes")


_CROSSINGS = 2**26
"""Rows that the edges of any file may cross; each takes some 20 ns."""
_CROSSED = 256
"""As many more for each of its bytes: a corner takes about ten."""
_LARGEST_SIDE = 2**20
"""Of an image that OpenCV reads."""


def _safe(name: str) -> str:
    """A relative name without its suffix that stays in the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    inside = path if not path.is_absolute() and ".." not in path.parts else PurePosixPath(path.name)
    return inside.with_suffix("").as_posix()


def _coco(content: Mapping[str, Any], path: Path, done: Imported) -> Iterator[Annotated]:
    names = {category["id"]: str(category["name"]) for category in content.get("categories", [])}
    of_image: dict[Any, list[Mapping[str, Any]]] = {}
    for annotation in content["annotations"]:
        of_image.setdefault(annotation["image_id"], []).append(annotation)
    for name in names.values():
        done.classes.setdefault(name, len(done.classes) + 1)
    for image in content["images"]:
        canvas = _Canvas(path, image["height"], image["width"])
        shapes = []
        for annotation in of_image.pop(image["id"], []):
            segmentation = annotation.get("segmentation")
            if not segmentation:
                done.left_out["annotations without a segmentation (boxes alone)"] += 1
                continue
            label = names.get(annotation.get("category_id"), "object")
            coded = isinstance(segmentation, Mapping)
            area = _rle(segmentation, canvas) if coded else _polygons(segmentation, canvas)
            shapes.append(Shape(label, area, bool(annotation.get("iscrowd"))))
        yield Annotated(_safe(str(image["file_name"])), canvas.size, tuple(shapes))
    if lost := sum(map(len, of_image.values())):
        done.left_out["annotations of images that are not listed"] += lost


def _polygons(flat: Sequence[Sequence[float]], canvas: _Canvas) -> Area:
    return _united([fill(np.asarray(each, np.float64).reshape(-1, 2), canvas) for each in flat], canvas)


def _united(areas: Sequence[Area], canvas: _Canvas) -> Area:
    """The pixels that are in any of the areas."""
    drawn = [area for area in areas if area.pixels_HW.size]
    if len(drawn) < 2:
        return drawn[0] if drawn else _NOWHERE
    rows, columns = (
        slice(min(area.place[axis].start for area in drawn), max(area.place[axis].stop for area in drawn))
        for axis in (0, 1)
    )
    pixels_HW = canvas.pixels(rows, columns).view(bool)
    for area in drawn:
        top, left = area.place[0].start - rows.start, area.place[1].start - columns.start
        height, width = area.pixels_HW.shape
        pixels_HW[top : top + height, left : left + width] |= area.pixels_HW
    return Area((rows, columns), pixels_HW)


_NOWHERE = Area((slice(0, 0), slice(0, 0)), np.zeros((0, 0), bool))


def _rle(coded: Mapping[str, Any], canvas: _Canvas) -> Area:
    """COCO's run lengths, column by column, of background and object in turn; as numbers or as text."""
    height, width = canvas.size
    if list(coded["size"]) != [height, width]:
        raise ValueError(f"a mask of {coded['size']} in an image of {canvas.size}")
    counts = coded["counts"]
    runs = _numbers(counts) if isinstance(counts, str) else counts
    if sum(runs) != height * width or min(runs) < 0 or not all(isinstance(run, int) for run in runs):
        raise ValueError(f"run lengths of {sum(runs)} pixels in an image of {canvas.size}")
    ends = np.cumsum(runs)
    starts, stops = ends[: len(ends) - len(ends) % 2 : 2], ends[1::2]
    starts, stops = starts[starts < stops], stops[starts < stops]
    if not len(starts):
        return _NOWHERE
    columns = slice(int(starts[0]) // height, -(-int(stops[-1]) // height))
    # A pixel is inside after an odd number of starts and stops.
    inside = canvas.pixels(columns, slice(0, height)).reshape(-1)
    for ends in (starts, stops):
        at = ends - columns.start * height
        np.add.at(inside, at[at < len(inside)], 1)
    pixels_HW = (np.add.accumulate(inside, dtype=np.uint8).reshape(-1, height).T & 1).view(bool)
    rows = np.flatnonzero(pixels_HW.any(1))
    return Area((slice(int(rows[0]), int(rows[-1]) + 1), columns), pixels_HW[rows[0] : rows[-1] + 1].copy())


def _numbers(text: str) -> list[int]:
    """Run lengths of COCO's text: five bits a letter, from the lowest; from the fourth on less the last but one."""
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if shift > 60:
            raise ValueError("a run length of more than 60 bits")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs


def _labelme(content: Mapping[str, Any], path: Path, relative: Path, done: Imported) -> Annotated:
    canvas = _Canvas(path, content["imageHeight"], content["imageWidth"])
    areas: dict[tuple[str, Any], list[Area]] = {}
    for number, shape in enumerate(content["shapes"]):
        what = shape.get("shape_type") or "polygon"
        if what not in _OUTLINES:
            done.left_out[f"shapes of type {what}, which have no area"] += 1
            continue
        group = shape.get("group_id")
        key = (str(shape["label"]), ("alone", number) if group is None else group)
        outline_N2 = _OUTLINES[what](np.asarray(shape["points"], np.float64))
        areas.setdefault(key, []).append(fill(outline_N2, canvas))
    shapes = tuple(Shape(label, _united(parts, canvas)) for (label, _), parts in areas.items())
    return Annotated(relative.with_suffix("").as_posix(), canvas.size, shapes)


def _box(points_N2: NDArray[np.float64]) -> NDArray[np.float64]:
    (x0, y0), (x1, y1) = points_N2
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def _circle(points_N2: NDArray[np.float64]) -> NDArray[np.float64]:
    centre, rim = points_N2
    angles = np.linspace(0, 2 * math.pi, 360, endpoint=False)
    outline_N2: NDArray[np.float64] = centre + np.hypot(*(rim - centre)) * np.stack([np.cos(angles), np.sin(angles)], 1)
    return outline_N2


_OUTLINES: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "polygon": lambda points_N2: points_N2,
    "rectangle": _box,
    "circle": _circle,
}


def fill(points_N2: NDArray[np.float64], canvas: _Canvas) -> Area:
    """The pixels whose centre is inside a polygon, by the even-odd rule.

    Args:
        points_N2: x and y of its corners; the upper left pixel's centre is at 0.5, 0.5.
        canvas: of the image.

    Raises:
        ValueError: a corner is far from any image.
    """
    if len(points_N2) < 3:
        return _NOWHERE
    if not (np.abs(points_N2) <= _FARTHEST).all():
        raise ValueError("a corner that is no place")
    # Of a corner the first row and column whose centres do not come before it.
    first_2, last_2 = (
        np.ceil(corner_2 - 0.5).astype(int).clip(0, canvas.size[::-1]).tolist()
        for corner_2 in (points_N2.min(0), points_N2.max(0))
    )
    columns, rows = map(slice, first_2, last_2)
    inside_HW = canvas.pixels(rows, columns)
    if not inside_HW.size:
        return _NOWHERE
    (x0, y0), (x1, y1) = points_N2.T, np.roll(points_N2, -1, 0).T
    upper, lower = (
        np.ceil(y - 0.5).astype(int).clip(rows.start, rows.stop) for y in (np.minimum(y0, y1), np.maximum(y0, y1))
    )
    crossed = lower - upper
    canvas.cross(int(crossed.sum()))
    parts = np.searchsorted(np.cumsum(crossed), np.arange(_AT_ONCE, crossed.sum(), _AT_ONCE))
    for part in np.split(np.arange(len(points_N2)), parts):
        edge = np.repeat(part, crossed[part])
        before = np.cumsum(crossed[part]) - crossed[part]
        row = upper[edge] + np.arange(len(edge)) - np.repeat(before, crossed[part])
        at = x0[edge] + (row + 0.5 - y0[edge]) * (x1 - x0)[edge] / (y1 - y0)[edge]
        column = np.ceil(at - 0.5).astype(int).clip(columns.start, columns.stop) - columns.start
        # From there on a row is inside instead of outside, or the other way round.
        within = column < inside_HW.shape[1]
        np.add.at(inside_HW, (row[within] - rows.start, column[within]), 1)
    pixels_HW = (np.add.accumulate(inside_HW, 1, np.uint8, out=inside_HW) & 1).view(bool)
    return Area((rows, columns), pixels_HW)


_FARTHEST = 2**31
"""Of a corner from the origin, in pixels."""
_AT_ONCE = 2**18
"""Rows that edges cross, in memory together."""


class _ArraysOnly(pickle.Unpickler):
    """Reads arrays and plain containers: a pickle of anything else could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype", "scalar", "_frombuffer"):
            return super().find_class(module, name)
        raise SegbenchError(
            f"a file that names {module}.{name}", "arrays and plain values alone", "save the masks as TIFF or PNG"
        )


def _cellpose(path: Path, name: str) -> Annotated:
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        read(file)
        _refuse_memo(file)
        content = _ArraysOnly(file).load()
    ids_HW = np.asarray(content.item()["masks"])
    if ids_HW.ndim != 2 or ids_HW.dtype.kind not in "biu":
        raise ValueError(f"masks of type {ids_HW.dtype} and {ids_HW.ndim} axes, expected 2 of ids: export them as TIFF")
    canvas = _Canvas(path, ids_HW.shape[0], ids_HW.shape[1], _SPREAD)
    values, number = np.unique(ids_HW, return_inverse=True)
    number_HW = (number.reshape(ids_HW.shape) + 1) * (ids_HW > 0)
    objects = []
    for value, place in enumerate(scipy.ndimage.find_objects(number_HW, len(values)), 1):
        if place is not None:
            pixels_HW = canvas.pixels(*place).view(bool)
            np.equal(number_HW[place], value, out=pixels_HW)
            objects.append(Shape("object", Area(place, pixels_HW)))
    return Annotated(name, canvas.size, tuple(objects))


def _refuse_memo(file: IO[bytes]) -> None:
    """Refuse a pickle that names a place among its values beyond their number: Python makes room for all below it."""
    start = file.tell()
    for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > number:
            raise pickle.UnpicklingError(f"it names the value {argument} among {number}")
    file.seek(start)


_SPREAD = 64
"""Pixels around the objects of a map, for each of its bytes."""
