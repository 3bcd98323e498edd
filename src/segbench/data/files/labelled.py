"""Image, label and .mat files of published data sets to arrays; every error names the file and the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segbench.data.files.encoded import damaged, decode, decode_palette, read_bytes
from segbench.data.files.mat import load
from segbench.data.raw import RawImage
from segbench.errors import SegbenchError, memory_ran_out, no_room
from segbench.runtime.files import written_whole
from segbench.spec import VOID

_INVALID = 254


def read_rgb(path: Path, name: str) -> NDArray[np.uint8]:
    """Decode a colour image.

    Args:
        path: JPEG or PNG; a grey one gets three equal channels.
        name: the image's id.

    Returns:
        HW3 uint8 in the order R, G, B; EXIF rotation is ignored, as labels have none.

    Raises:
        SegbenchError: missing, truncated or damaged.
    """
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    rgb_HW3: NDArray[np.uint8] = decode(path, read_bytes(path, name), flags, name)
    return rgb_HW3


def read_depth(path: Path, name: str) -> NDArray[np.uint16]:
    """Decode a 16-bit grey PNG to HW uint16.

    Raises:
        SegbenchError: missing, damaged, or of another type.
    """
    depth_HW = decode(path, read_bytes(path, name), cv2.IMREAD_UNCHANGED, name)
    if depth_HW.dtype != np.uint16 or depth_HW.ndim != 2:
        raise SegbenchError(
            f"{path}, of image {name}, is {depth_HW.dtype} of shape {depth_HW.shape}",
            "one 16-bit channel, depth in millimetres",
            "use the data set's own depth files, not a rendering of them",
        )
    depth: NDArray[np.uint16] = depth_HW
    return depth


def read_grey(path: Path, name: str) -> NDArray[np.uint8 | np.uint16]:
    """Decode a grey image or a map of ids in its own type.

    Args:
        path: TIFF or PNG of one page, compressed or not.
        name: the image's id.

    Returns:
        HW uint8 or uint16, the values of the file.

    Raises:
        SegbenchError: missing, damaged, or of another type.
    """
    grey_HW = decode(path, read_bytes(path, name), cv2.IMREAD_UNCHANGED, name)
    if grey_HW.dtype not in (np.uint8, np.uint16) or grey_HW.ndim != 2:
        raise SegbenchError(
            f"{path}, of image {name}, is {grey_HW.dtype} of shape {grey_HW.shape}",
            "one 8-bit or 16-bit channel",
            "use the data set's own files, not a rendering of them",
        )
    return grey_HW


def read_indices(path: Path, name: str) -> NDArray[np.uint8]:
    """Decode a label PNG to its HW uint8 values: palette indices, not colours.

    Raises:
        SegbenchError: missing, damaged, or a colour rendering.
    """
    content = read_bytes(path, name)
    palette = decode_palette(path, content, name)
    label_HW = decode(path, content, cv2.IMREAD_UNCHANGED, name) if palette is None else palette[0]
    # Black and white, which OpenCV returns as 0 and 255.
    one_bit = content.startswith(b"\x89PNG") and content[24:26] == b"\x01\x00"
    if label_HW.dtype != np.uint8 or label_HW.ndim != 2 or one_bit:
        what = "one bit per pixel" if one_bit else f"{label_HW.dtype} of shape {label_HW.shape}"
        raise SegbenchError(
            f"{path}, of image {name}, is {what}",
            "an 8-bit palette or grey PNG whose values are class ids",
            "use the data set's own label files, not a colour rendering of them",
        )
    return label_HW


def write_indices(path: Path, label_HW: NDArray[np.uint8], palette: tuple[tuple[int, int, int], ...]) -> None:
    """Write HW uint8 class ids as a palette PNG, the format of the PASCAL VOC server.

    Args:
        path: the file; its folder is created.
        label_HW: class ids.
        palette: RGB by id, with a colour for every id in the label.
    """
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(label_HW)
    image.putpalette([value for colour in palette for value in colour])
    with written_whole(path) as partial:
        image.save(partial, format="PNG")


def read_mat(path: Path, name: str, variable: str) -> Any:
    """One variable of a MATLAB file of version 4 to 7.

    Args:
        path: the file.
        name: the image's id.
        variable: its name.

    Raises:
        SegbenchError: missing, damaged, or without the variable.
    """
    stored = read_bytes(path, name)
    try:
        content = load(stored, path, variable)
    except SegbenchError:
        raise
    except Exception as error:  # a damaged file ends in errors of zlib, struct, numpy and scipy's own
        if memory_ran_out(error):
            raise no_room(path, error) from error
        raise damaged(path, len(stored), f"{type(error).__name__}: {error}", name) from error
    if variable not in content:
        raise SegbenchError(
            f"{path}, of image {name}, has no variable {variable}",
            f"{variable}, the label",
            "use the data set's own .mat files",
        )
    return content[variable]


@dataclass(frozen=True)
class LabelMap:
    """Maps ids in files to classes 0 to K-1 and void.

    Args:
        classes: K.
        first: the file's id of class 0.
        void: the file's ids that are void, -1 to 255.
    """

    classes: int
    first: int = 0
    void: tuple[int, ...] = (VOID,)

    @cached_property
    def _table(self) -> NDArray[np.uint8]:
        # Indexed by id + 1, as ids start at -1.
        table = np.full(257, _INVALID, np.uint8)
        table[np.arange(self.classes) + self.first + 1] = np.arange(self.classes)
        table[np.array(self.void, int) + 1] = VOID
        return table

    def __call__(self, label: NDArray[Any], path: Path, name: str) -> NDArray[np.uint8]:
        """HW of any number type to HW uint8; the same array if nothing changes.

        Raises:
            SegbenchError: the label is not an HW array, or has an id that is neither a class nor void.
        """
        if label.ndim != 2 or not np.issubdtype(label.dtype, np.number):
            raise self._refusal(path, name, f"a label of shape {label.shape} and type {label.dtype}")
        if label.dtype == np.uint8:
            keeps = self.first == 0 and self.void == (VOID,)
            if keeps and not cv2.countNonZero(cv2.inRange(label, self.classes, VOID - 1)):
                # VOC: nothing to change, and the check takes a sixth of the table's time.
                return label
            mapped: NDArray[np.uint8] = cv2.LUT(label, self._table[1:])
        else:
            known = (label >= -1) & (label <= 255) & (label == np.floor(label))
            mapped = np.where(known, self._table[np.where(known, label, 0).astype(np.int64) + 1], np.uint8(_INVALID))
        if (mapped == _INVALID).any():
            ids = np.unique(label[mapped == _INVALID])
            shown = ", ".join(f"{value:g}" for value in ids[:6]) + (" ..." if len(ids) > 6 else "")
            raise self._refusal(path, name, f"label ids {shown}")
        return mapped

    def _refusal(self, path: Path, name: str, found: str) -> SegbenchError:
        void = " or ".join(str(value) for value in sorted(self.void))
        return SegbenchError(
            f"{path}, of image {name}, has {found}",
            f"height x width of class ids {self.first} to {self.first + self.classes - 1}, void {void}",
            "use the label files of this data set's own release",
        )


def paired(images: Mapping[str, NDArray[Any]], labels: Mapping[str, NDArray[np.uint8]], name: str) -> RawImage:
    """The image with its labels.

    Raises:
        SegbenchError: they differ in height or width.
    """
    sizes = {what: array.shape[:2] for what, array in (*images.items(), *labels.items())}
    if len(set(sizes.values())) > 1:
        raise SegbenchError(
            f"image {name} differs in size: " + ", ".join(f"{what} {h} x {w}" for what, (h, w) in sizes.items()),
            "one height and width for the image, its modalities and its labels",
            "use images and labels of one release; segbench data check lists every such image",
        )
    return RawImage(images, labels, name)
