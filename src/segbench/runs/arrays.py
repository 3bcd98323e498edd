"""Arrays that a run recorded: the counts of its images, per_image.npz."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.errors import reading
from segbench.runtime.limits import DEFLATE, refuse_bomb


def read_arrays(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file by name, never objects.

    Args:
        path: the file.
        wanted: which of the names to read.

    Raises:
        SegbenchError: it is missing or damaged, or takes more memory than this machine has.
    """
    with reading(path, "npz", "the file as segbench wrote it", "score the run again"), path.open("rb") as file:
        with zipfile.ZipFile(file) as archive:
            entries = [entry for entry in archive.infolist() if wanted(entry.filename.removesuffix(".npy"))]
            refuse_bomb(path, sum(entry.file_size for entry in entries), path.stat().st_size, DEFLATE)
            for entry in entries:
                _refuse_bomb(path, archive, entry)
        file.seek(0)
        with np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files if wanted(name)}


def _refuse_bomb(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Refuse an array whose header declares more than follows it: numpy takes the memory first."""
    with archive.open(entry) as content:
        version = np.lib.format.read_magic(content)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, _, dtype = header(content)
        if int(np.prod([int(side) for side in shape], dtype=object)) * dtype.itemsize > entry.file_size:
            raise ValueError(f"{entry.filename} is of shape {shape} in {entry.file_size} bytes")
