"""HDF5 files converted to the layouts that the data sets read: NYUDv2's labelled .mat, and ISBI 2012 EM's mirror."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segbench.data.files.labelled import read_mat
from segbench.data.files.stacks import write_stack
from segbench.data.prepare.downloads import SILENT, Listener
from segbench.errors import SegbenchError, reading
from segbench.runtime.limits import refuse_bomb

CROP = (slice(45, 470), slice(40, 600))
"""Of 480 x 640: Gupta et al. and the FCN release crop the white frame, which leaves 425 x 560."""

FIRST_ID = 5001
"""The release counts the images of the .mat from 5001."""


@contextmanager
def _opened(path: Path, variables: dict[str, int]) -> Iterator[Any]:
    """Open the file and check the variables, their numbers of axes and their sizes."""
    try:
        import h5py
    except ImportError as error:
        raise SegbenchError(
            f"{path} is HDF5, and h5py is not installed", "h5py 3", "run pip install 'segbench[hdf5]'"
        ) from error
    with reading(path, "HDF5", "a whole file", "fetch it again"), h5py.File(path, "r") as file:
        for name, axes in variables.items():
            if name not in file or getattr(file[name], "ndim", None) != axes:
                shape = getattr(file[name], "shape", "no array") if name in file else "not there"
                raise SegbenchError(
                    f"{path}: {name} is {shape}; at the top level are {', '.join(sorted(file))}",
                    f"{name} with {axes} axes",
                    "use the publisher's own file",
                )
            for shape in (file[name].shape, file[name].chunks or ()):
                refuse_bomb(path, math.prod(shape) * file[name].dtype.itemsize, path.stat().st_size)
        yield file


def convert_nyudv2(labelled: Path, mapping: Path, root: Path, listener: Listener = SILENT) -> int:
    """Write nyu_depth_v2_labeled.mat in the FCN release's layout, without HHA.

    MATLAB's axes are reversed in the file: images (N, 3, W, H), depths, rawDepths and labels (N, W, H). Depth is
    float32 metres there and 16-bit millimetres here; labels 0-894 become 0-40 by Gupta et al.'s map.

    Args:
        labelled: the .mat.
        mapping: classMapping40.mat, whose `mapClass` maps each of 894 labels to a class 1-40.
        root: gets `data` and `segmentation` once both are complete.
        listener: receives progress.

    Returns:
        the number of images.

    Raises:
        SegbenchError: a file is damaged or the wrong one, or root already has `data` or `segmentation`.
    """
    for name in ("data", "segmentation"):
        if (root / name).exists():
            raise SegbenchError(f"{root / name} exists", "a root without it", "choose another root=, or remove it")
    classes = np.concatenate([[0], read_mat(mapping, "of all images", "mapClass").ravel()]).astype(np.uint8)
    work = root / ".nyudv2.partial"
    shutil.rmtree(work, ignore_errors=True)
    for name in ("data/images", "data/depth", "data/rawdepth", "segmentation"):
        (work / name).mkdir(parents=True)
    with _opened(labelled, {"images": 4, "depths": 3, "rawDepths": 3, "labels": 3}) as file:
        count = len(file["images"])
        for index in range(count):
            rgb_HW3 = file["images"][index].transpose(2, 1, 0)
            label_HW = file["labels"][index].T
            if rgb_HW3.shape != (480, 640, 3) or label_HW.shape != (480, 640) or label_HW.max() >= len(classes):
                raise SegbenchError(
                    f"{labelled}, image {index + 1}: {rgb_HW3.shape}, labels {label_HW.shape} to {label_HW.max()}",
                    f"480 x 640 x 3 and labels to {len(classes) - 1}",
                    "use the publisher's own file",
                )
            name = f"img_{FIRST_ID + index}.png"
            _write(work / "data" / "images" / name, cv2.cvtColor(rgb_HW3[CROP], cv2.COLOR_RGB2BGR))
            for variable, folder in (("depths", "depth"), ("rawDepths", "rawdepth")):
                _write(work / "data" / folder / name, _millimetres(file[variable][index].T[CROP]))
            _write(work / "segmentation" / name, classes[label_HW[CROP]])
            listener.progress(f"converting {labelled.name}", index + 1, count)
    for name in ("data", "segmentation"):
        os.replace(work / name, root / name)
    work.rmdir()
    return count


def _millimetres(metres_HW: NDArray[np.float32]) -> NDArray[np.uint16]:
    finite = np.nan_to_num(metres_HW, nan=0.0, posinf=0.0, neginf=0.0)
    millimetres: NDArray[np.uint16] = np.clip(np.rint(finite * 1000), 0, 2**16 - 1).astype(np.uint16)
    return millimetres


def _write(path: Path, image: NDArray[Any]) -> None:
    if not cv2.imwrite(str(path), image):
        raise SegbenchError(f"{path} cannot be written", "room on the disk", "free space and run the command again")


def convert_isbi(mirror: Path, root: Path) -> None:
    """Write the mirror's `raw` and `labels/membranes` as train-volume.tif and train-labels.tif (0 membrane, 255 cell).

    Its membrane label is found from the data: the darker and rarer one of two values.

    Args:
        mirror: the HDF5 file.
        root: gets the stacks.

    Raises:
        SegbenchError: the file is damaged, or neither value is both darker and rarer.
    """
    with _opened(mirror, {"raw": 3, "labels/membranes": 3}) as file:
        raw_NHW, labels_NHW = file["raw"][:], file["labels/membranes"][:]
    values = np.unique(labels_NHW)
    if raw_NHW.dtype != np.uint8 or raw_NHW.shape != labels_NHW.shape or len(values) != 2:
        raise SegbenchError(
            f"{mirror}: raw {raw_NHW.dtype} {raw_NHW.shape}, labels {labels_NHW.shape} of {len(values)} values",
            "uint8 slices and a label of two values for each",
            "use the mirror's own file",
        )
    first = labels_NHW == values[0]
    darker = raw_NHW[first].mean() < raw_NHW[~first].mean()
    if darker != (first.mean() < 0.5):
        raise SegbenchError(
            f"{mirror}: label {values[0]} covers {first.mean():.0%} and is {'darker' if darker else 'lighter'}",
            "membranes, darker and fewer than cells",
            "use the challenge's own TIFF stacks",
        )
    write_stack(root / "train-volume.tif", raw_NHW)
    write_stack(root / "train-labels.tif", np.where(first == darker, 0, 255).astype(np.uint8))
