"""Masks whose values number objects: recognised, and read as background, object and border."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segbench.data.cells import label_parts
from segbench.data.files.masks import Mask
from segbench.data.folder.classes import REST
from segbench.data.folder.facts import MaskFacts, by_page
from segbench.data.folder.labels import Classes
from segbench.errors import SegbenchError
from segbench.spec import VOID

OBJECT = 1

_SAMPLE = 12
"""Pages that are looked at; the shape of a page's regions is not among the facts of a scan."""

_WHOLE = 0.95
"""Of the values of objects, at least so many are one region each."""


def classes_given(given: Any) -> Mapping[str, Any]:
    """`data.classes` of masks of objects: background 0 and the rest, unless two others are named.

    Raises:
        SegbenchError: not two classes.
    """
    if given is None or given == "auto":
        return {"background": 0, "object": REST}
    if not isinstance(given, Mapping) or len(given) != 2:
        raise SegbenchError(
            f"data.objects=true with data.classes={given}",
            "a class of what is no object, then one of all objects",
            "leave data.classes out, or set data.classes='{background: 0, cell: rest}'",
        )
    return given


def label_objects(
    label_HW: NDArray[np.uint8], codes_HW: NDArray[np.integer], border: int, core: float | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Classes and ids of objects.

    Args:
        label_HW: 0 for background, `OBJECT` or void.
        codes_HW: the mask's values; each value of an object is one object.
        border: width of the class `border` in pixels, as in `label_parts`.
        core: of the class `core`, as there.

    Returns:
        uint8 labels, and int32 ids from 1, 0 = none.
    """
    inside_HW = label_HW == OBJECT
    ids_HW = np.zeros(label_HW.shape, np.int32)
    ids_HW[inside_HW] = np.unique(codes_HW[inside_HW], return_inverse=True)[1] + 1
    labelled_HW = label_HW.copy()
    label_parts(labelled_HW, ids_HW, border, core)
    return labelled_HW, ids_HW


def count_labels(
    mask: Mask,
    empty_HW: NDArray[np.bool_] | None,
    classes: Classes,
    border: int | None,
    core: float | None = None,
) -> tuple[int, ...]:
    """Pixels of each class, and last of void, as a training gets them.

    Args:
        mask: as read.
        empty_HW: where its image has no data, if somewhere.
        classes: of the masks; background and object, if `border` is set.
        border: as in `label_objects`; None for masks of classes.
        core: as there.
    """
    label_HW = classes(mask, "it")
    if empty_HW is not None:
        label_HW[empty_HW] = VOID
    if border is not None:
        label_HW, _ = label_objects(label_HW, mask.codes_HW, border, core)
    pixels = np.bincount(label_HW.ravel(), minlength=VOID + 1)
    return (*pixels[: len(classes.names) + bool(border) + (core is not None)].tolist(), int(pixels[VOID]))


def look_like_objects(masks: Mapping[str, Sequence[MaskFacts]], read: Callable[[str, int], Mask]) -> bool:
    """Whether the values of masks seem to number objects.

    Then each value but 0 is one region, and the number of values differs from image to image, as does that of objects.

    Args:
        masks: a scan's facts of each page by name.
        read: reads a page of a file, from 0.
    """
    pages = [(name, page) for name, page, facts in by_page(masks) if facts.codes and facts.kind == "ids"]
    objects = {(name, page): _objects(masks[name][page].codes) for name, page in pages}
    most = max((len(each) for each in objects.values()), default=0)
    if most < 3 or len({len(each) for each in objects.values()}) == 1 < len(pages):
        return False
    # Where there are most values, chance makes them single regions least.
    chosen = sorted(objects, key=lambda place: -len(objects[place]))[:_SAMPLE]
    whole = total = 0
    for place in chosen:
        one, all_of_them = _regions(read(*place).codes_HW, objects[place])
        whole, total = whole + one, total + all_of_them
    return whole >= _WHOLE * total


def _objects(codes: Iterable[int]) -> list[int]:
    return [code for code in codes if code > 0 and code != VOID]


def _regions(codes_HW: NDArray[np.integer], objects: Sequence[int], most: int = 200) -> tuple[int, int]:
    """How many of the objects, of the first ones, are one region, and their number."""
    whole = 0
    for code in objects[:most]:
        of_it_HW = codes_HW == code
        rows, columns = np.flatnonzero(of_it_HW.any(1)), np.flatnonzero(of_it_HW.any(0))
        box_HW = of_it_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        whole += cv2.connectedComponents(np.ascontiguousarray(box_HW).view(np.uint8), connectivity=8)[0] == 2
    return whole, min(len(objects), most)
