"""Annotations of other programs as masks: COCO and LabelMe polygons, Cellpose's `_seg.npy`.

COCO: "Data format" and "Mask API" of cocodataset.org. LabelMe: one JSON beside each image, `shapes` of points.
"""

from __future__ import annotations

import json
import math
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segbench.data.raw import why_unreadable
from segbench.errors import SegbenchError, check_one_of
from segbench.runtime.files import written_whole
from segbench.runtime.limits import refuse_bomb

VOID_OF = {"objects": 65535, "classes": 255}
"""The value of what is annotated as a crowd, by the kind of masks."""


@dataclass(frozen=True)
class Shape:
    """An annotated area.

    Attributes:
        label: its class.
        place: the rows and columns around it.
        pixels_HW: bool, where it is within them.
        crowd: whether it is many objects at once.
    """

    label: str
    place: tuple[slice, slice]
    pixels_HW: NDArray[np.bool_]
    crowd: bool = False

    @classmethod
    def of(cls, label: str, pixels_HW: NDArray[np.bool_], crowd: bool = False) -> Shape:
        """The area of a whole image's pixels, of which only those around it are kept."""
        rows, columns = (np.flatnonzero(pixels_HW.any(axis)) for axis in (1, 0))
        place = tuple(slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, 0) for at in (rows, columns))
        return cls(label, (place[0], place[1]), pixels_HW[place].copy(), crowd)


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
        SegbenchError: no annotations, files that are none, more objects or classes than values.
    """
    check_one_of("masks", kind, ("objects", "classes"))
    done = Imported()
    for annotated in _read(source, done):
        mask_HW = _drawn(annotated, kind, done)
        path = output / f"{annotated.name}.png"
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
    order = sorted(annotated.shapes, key=lambda shape: (not shape.crowd, -int(shape.pixels_HW.sum())))
    for shape in order:
        value = done.classes[shape.label] if kind == "classes" else numbers.get(id(shape), most)
        mask_HW[shape.place][shape.pixels_HW] = most if shape.crowd else value
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
            yield from _of_file(path, path.relative_to(top), done)
        except SegbenchError:
            raise
        except Exception as error:  # a file of another form ends in errors of any class
            raise why_unreadable(path, error) from error


def _of_file(path: Path, relative: Path, done: Imported) -> Iterator[Annotated]:
    if path.suffix == ".npy":
        ids_HW = _cellpose(path)
        name = relative.as_posix().removesuffix("_seg.npy")
        objects = [Shape.of("object", ids_HW == value) for value in np.unique(ids_HW[ids_HW > 0])]
        yield Annotated(name, (ids_HW.shape[0], ids_HW.shape[1]), tuple(objects))
        return
    content = json.loads(path.read_text(encoding="utf-8"))
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

    Raises:
        SegbenchError: the image is too large for the file; also from `keep`.
        ValueError: no size of an image that can be written.
    """

    def __init__(self, path: Path, height: Any, width: Any) -> None:
        self.size = int(height), int(width)
        if not all(1 <= side <= _LARGEST_SIDE for side in self.size):
            raise ValueError(f"an image of {self.size[0]} x {self.size[1]}")
        self._path, self._stored, self._kept = path, path.stat().st_size, 0
        # The mask, and an area on it.
        refuse_bomb(path, 3 * math.prod(self.size), self._stored)

    def keep(self, shape: Shape) -> Shape:
        """The shape itself, counted."""
        self._kept += shape.pixels_HW.size
        refuse_bomb(self._path, self._kept, self._stored)
        return shape


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
        size = canvas.size
        shapes = []
        for annotation in of_image.pop(image["id"], []):
            segmentation = annotation.get("segmentation")
            if not segmentation:
                done.left_out["annotations without a segmentation (boxes alone)"] += 1
                continue
            label = names.get(annotation.get("category_id"), "object")
            pixels_HW = _rle(segmentation, size) if isinstance(segmentation, Mapping) else _polygons(segmentation, size)
            shapes.append(canvas.keep(Shape.of(label, pixels_HW, bool(annotation.get("iscrowd")))))
        yield Annotated(_safe(str(image["file_name"])), size, tuple(shapes))
    if lost := sum(map(len, of_image.values())):
        done.left_out["annotations of images that are not listed"] += lost


def _polygons(flat: Sequence[Sequence[float]], size: tuple[int, int]) -> NDArray[np.bool_]:
    pixels_HW = np.zeros(size, bool)
    for each in flat:
        pixels_HW |= fill(np.asarray(each, np.float64).reshape(-1, 2), size)
    return pixels_HW


def _rle(coded: Mapping[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """COCO's run lengths, column by column, of background and object in turn; as numbers or as text."""
    height, width = size
    if list(coded["size"]) != [height, width]:
        raise ValueError(f"a mask of {coded['size']} in an image of {size}")
    counts = coded["counts"]
    runs = _numbers(counts) if isinstance(counts, str) else counts
    if sum(runs) != height * width or min(runs) < 0:
        raise ValueError(f"run lengths of {sum(runs)} pixels in an image of {size}")
    values = np.arange(len(runs)) % 2 == 1
    pixels_WH: NDArray[np.bool_] = np.repeat(values, runs).reshape(width, height)
    return pixels_WH.T


def _numbers(text: str) -> list[int]:
    """Run lengths of COCO's text: five bits a letter, from the lowest; from the fourth on less the last but one."""
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
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
    areas: dict[tuple[str, Any], Shape] = {}
    for number, shape in enumerate(content["shapes"]):
        what = shape.get("shape_type") or "polygon"
        if what not in _OUTLINES:
            done.left_out[f"shapes of type {what}, which have no area"] += 1
            continue
        pixels_HW = fill(_OUTLINES[what](np.asarray(shape["points"], np.float64)), canvas.size)
        group = shape.get("group_id")
        key = (str(shape["label"]), ("alone", number) if group is None else group)
        if key in areas:
            pixels_HW[areas[key].place] |= areas[key].pixels_HW
        areas[key] = canvas.keep(Shape.of(key[0], pixels_HW))
    return Annotated(relative.with_suffix("").as_posix(), canvas.size, tuple(areas.values()))


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


def fill(points_N2: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels whose centre is inside a polygon, by the even-odd rule.

    Args:
        points_N2: x and y of its corners; the upper left pixel's centre is at 0.5, 0.5.
        size: H and W.
    """
    pixels_HW = np.zeros(size, bool)
    if len(points_N2) < 3:
        return pixels_HW
    (x0, y0), (x1, y1) = points_N2.T, np.roll(points_N2, -1, 0).T
    first, last = (math.floor(y) for y in (points_N2[:, 1].min(), points_N2[:, 1].max()))
    for row in range(max(first, 0), min(last + 1, size[0])):
        y = row + 0.5
        crossing = (y0 <= y) != (y1 <= y)
        at = np.sort(x0[crossing] + (y - y0[crossing]) * (x1 - x0)[crossing] / (y1 - y0)[crossing])
        columns = np.ceil(at - 0.5).clip(0, size[1]).astype(int)
        for start, stop in zip(columns[::2], columns[1::2], strict=True):
            pixels_HW[row, start:stop] ^= True
    return pixels_HW


class _ArraysOnly(pickle.Unpickler):
    """Reads arrays and plain containers: a pickle of anything else could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype", "scalar", "_frombuffer"):
            return super().find_class(module, name)
        raise SegbenchError(
            f"a file that names {module}.{name}", "arrays and plain values alone", "save the masks as TIFF or PNG"
        )


def _cellpose(path: Path) -> NDArray[np.integer]:
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        read(file)
        content = _ArraysOnly(file).load()
    masks = np.asarray(content.item()["masks"])
    if masks.ndim != 2:
        raise ValueError(f"masks of {masks.ndim} axes, expected 2: export them as TIFF")
    return masks
