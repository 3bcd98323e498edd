"""The interface of a data set: images and labels as they are on disk, read one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from segbench.errors import SegbenchError, memory_ran_out, no_room, refuse_no_file
from segbench.spec import DatasetSpec


@dataclass(frozen=True)
class RawImage:
    """One image with its labels, in raw units.

    Attributes:
        images: HW or HWC by modality, in the unit that its `ModalitySpec` names.
        labels: HW uint8 by head; empty if there is no label.
        id: the image's name in its data set.
        instances: HW int32 object ids, 0 = none, if the data set has them.
        references: further object ids by name (gold truth besides silver), used in evaluation only; all 0 if this
            image has none.
        empty_HW: where a modality has no data, if somewhere; there its mean is filled in, and labels are void.
    """

    images: Mapping[str, NDArray[np.generic]]
    labels: Mapping[str, NDArray[np.uint8]]
    id: str
    instances: NDArray[np.int32] | None = None
    references: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)
    empty_HW: NDArray[np.bool_] | None = None


SPLITS = ("train", "val", "test", "predict")
"""The names a split can have; which of them there are is the protocol's choice."""


class Source(Protocol):
    """One split of a data set; splits inherit it for their length.

    Attributes:
        ids: the images' names, in the order of their indices.
    """

    ids: tuple[str, ...]

    def __len__(self) -> int:
        """The number of images."""
        return len(self.ids)

    def read(self, index: int) -> RawImage:
        """Read the image at `index`, 0 <= index < len."""
        ...


class DataSet(Protocol):
    """A data set: its description, and those of the `SPLITS` that its protocol has."""

    @property
    def spec(self) -> DatasetSpec:
        """Modalities, heads, citation, licence, protocol."""
        ...

    def split(self, name: str) -> Source | None:
        """The split, or None if the protocol has none of that name."""
        ...


_POINTER = b"version https://git-lfs.github.com/spec/"


def why_unreadable(path: Path, error: Exception, expected: str = "a whole image file") -> SegbenchError:
    """The error for a file that its reader did not read, whatever class of error that raised.

    Args:
        path: the file, or a zarr folder.
        error: what was raised; a `SegbenchError` is returned, unless the file is a pointer of Git LFS.
        expected: what should be there.
    """
    try:
        refuse_no_file(path)
        with path.open("rb") as file:
            begins = file.read(len(_POINTER))
    except OSError:
        begins = b""
    if begins == _POINTER:
        return SegbenchError(f"{path} is a pointer of Git LFS, not the file", "the file itself", "git lfs pull")
    if isinstance(error, SegbenchError):
        return error
    if memory_ran_out(error):
        return no_room(path, error)
    return SegbenchError(
        f"{path} cannot be read: {type(error).__name__}: {next(iter(str(error).splitlines()), '')}",
        expected,
        "fetch or write it again",
    )
