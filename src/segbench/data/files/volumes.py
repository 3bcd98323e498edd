"""Slices of DICOM, NIfTI and MRC files as the pages of a stack; requires the extra `segbench[volumes]`."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import importlib
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.data.files.statements import Nodata
from segbench.errors import SegbenchError, not_installed, reading
from segbench.runtime.limits import DEFLATE, refuse_bomb

_PACKAGES = {".nii": "nibabel", ".nii.gz": "nibabel", ".mrc": "mrcfile", ".dcm": "pydicom"}
_KINDS = {".nii": "NIfTI", ".nii.gz": "NIfTI", ".mrc": "MRC", ".dcm": "DICOM"}
VOLUME_SUFFIXES = tuple(_PACKAGES)


@functools.lru_cache(1024)
def split_name(name: str) -> tuple[str, str]:
    """A file's name without its suffix, and the suffix in lower case: `.nii.gz` is one."""
    stem, suffix = os.path.splitext(name)
    if suffix.lower() == ".gz" and stem.lower().endswith(".nii"):
        return stem[:-4], ".nii.gz"
    return stem, suffix.lower()


def is_volume(path: Path) -> bool:
    """Whether the file's name is that of a volume."""
    return split_name(path.name)[1] in VOLUME_SUFFIXES


class VolumeImages:
    """The slices of a volume, each an image.

    NIfTI: rows are its second axis, columns its first; all further axes enumerate slices. MRC: sections. DICOM: frames,
    with dark as the lowest value and in the units of its rescale slope and intercept; the padding value has no data.

    Args:
        path: the file.

    Raises:
        SegbenchError: the extra is not installed, or the file is damaged or of a kind that has no grey levels or RGB.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.placement: dict[str, Any] = {}
        self._nodata: Nodata | None = None
        suffix = split_name(path.name)[1]
        library = _imported(_PACKAGES[suffix])
        with reading(path, _KINDS[suffix]):
            slices = {"nibabel": self._nifti, "mrcfile": self._mrc, "pydicom": self._dicom}[_PACKAGES[suffix]](library)
        if slices.dtype.kind not in "buif":
            raise SegbenchError(f"{path} holds values of type {slices.dtype}", "numbers", "convert it to a TIFF stack")
        self._slices_NHWC = slices

    def _nifti(self, nibabel: Any) -> NDArray[Any]:
        with self.path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            with gzip.open(file) if packed else contextlib.nullcontext(file) as content:
                _refuse_far_pixels(content.read(_NIFTI_2))
        stored = nibabel.load(self.path)
        needed = math.prod(stored.shape) * stored.get_data_dtype().itemsize
        refuse_bomb(self.path, needed, self.path.stat().st_size, DEFLATE)
        volume = np.asanyarray(stored.dataobj)
        pixels = volume.reshape(*volume.shape[:2], -1)
        slices: NDArray[Any] = pixels.transpose(2, 1, 0)[..., np.newaxis]
        return slices

    def _mrc(self, mrcfile: Any) -> NDArray[Any]:
        # mrcfile takes the memory that the header states before it reads on, also of a packed file.
        with self.path.open("rb") as file:
            unpacked: Any = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open}.get(file.read(2))
            file.seek(0)
            with contextlib.nullcontext(file) if unpacked is None else unpacked(file) as content:
                head = np.frombuffer(content.read(1024), mrcfile.dtypes.HEADER_DTYPE)[0]
        head = head.view(head.dtype.newbyteorder(mrcfile.utils.byte_order_from_machine_stamp(head["machst"])))
        sides = (int(head[side]) for side in ("nx", "ny", "nz"))
        values = math.prod(sides) * int(mrcfile.utils.dtype_from_mode(head["mode"]).itemsize)
        needed, stored = 1024 + int(head["nsymbt"]) + values, self.path.stat().st_size
        refuse_bomb(self.path, needed, stored)
        if needed > stored and unpacked is None:
            raise ValueError("its end is missing")
        # Read once, without the handle of a map that must be closed.
        volume = mrcfile.read(self.path)
        sections: NDArray[Any] = volume.reshape(-1, *volume.shape[-2:])[..., np.newaxis]
        return sections

    def _dicom(self, pydicom: Any) -> NDArray[Any]:
        meta = pydicom.filereader.read_file_meta_info(self.path)
        if meta.get("TransferSyntaxUID") == pydicom.uid.DeflatedExplicitVRLittleEndian:
            if "FileMetaInformationGroupLength" not in meta:
                raise ValueError("it is packed, and does not say from where on")
            # What is before it: a preamble, four letters, and the length itself.
            self._refuse_inflated(144 + int(meta.FileMetaInformationGroupLength))
        file = pydicom.dcmread(self.path)
        sizes = (file.Rows, file.Columns, file.SamplesPerPixel, file.get("NumberOfFrames") or 1, file.BitsAllocated)
        refuse_bomb(self.path, math.prod(map(int, sizes)) // 8, self.path.stat().st_size)
        photometric, pixels = str(file.PhotometricInterpretation), file.pixel_array
        colour = int(file.SamplesPerPixel) == 3
        if not (colour or photometric.startswith("MONOCHROME")):
            raise SegbenchError(f"{self.path} is {photometric}", "grey levels or RGB", "convert it to PNG or TIFF")
        frames = pixels.reshape(-1, *pixels.shape[-3 if colour else -2 :])
        frames_NHWC: NDArray[Any] = frames if colour else frames[..., np.newaxis]
        slope, intercept = float(file.get("RescaleSlope", 1)), float(file.get("RescaleIntercept", 0))
        padding = file.get("PixelPaddingValue")
        if photometric == "MONOCHROME1":
            # 0 is white: both ends of the stored range change places.
            ends = (2 ** int(file.BitsStored) - 1) if int(file.PixelRepresentation) == 0 else -1
            frames_NHWC = (ends - frames_NHWC.astype(np.int64)).astype(frames_NHWC.dtype)
            padding = None if padding is None else ends - padding
        if (slope, intercept) != (1, 0):
            furthest = abs(slope) * 2 ** int(file.BitsStored) + abs(intercept)
            whole = slope == int(slope) and intercept == int(intercept) and furthest < 2**31
            frames_NHWC = (frames_NHWC * slope + intercept).astype(np.int32 if whole else np.float32)
            padding = None if padding is None else padding * slope + intercept
        self._nodata = None if padding is None else (float(padding),)
        return frames_NHWC

    def _refuse_inflated(self, begins: int) -> None:
        """Refuse a DICOM that unpacks to more than it can be, before pydicom unpacks it at once."""
        unpacking, needed, stored = zlib.decompressobj(-zlib.MAX_WBITS), 0, self.path.stat().st_size
        with self.path.open("rb") as file:
            file.seek(begins)
            rest = file.read(_AT_ONCE)
            while rest and not unpacking.eof:
                needed += len(unpacking.decompress(rest, _AT_ONCE))
                refuse_bomb(self.path, needed, stored, _PACKED)
                rest = unpacking.unconsumed_tail or file.read(_AT_ONCE)

    def __len__(self) -> int:
        return len(self._slices_NHWC)

    def shape(self, index: int) -> tuple[int, int, int]:
        """H, W and C."""
        _, height, width, channels = self._slices_NHWC.shape
        return height, width, channels

    def dtype(self, index: int) -> np.dtype[Any]:
        """The type of the values, in the machine's byte order."""
        return self._slices_NHWC.dtype.newbyteorder("=")

    def nodata(self, index: int) -> Nodata | None:
        """DICOM's padding value."""
        return self._nodata

    def alpha(self, index: int) -> bool:
        """False: a slice has no transparency."""
        return False

    def turn(self, index: int) -> int:
        """1: a slice lies as it is stored."""
        return 1

    def read(self, index: int, y0: int = 0, y1: int | None = None, x0: int = 0, x1: int | None = None) -> NDArray[Any]:
        """Rows y0 to y1 and columns x0 to x1 (exclusive), HWC."""
        return np.ascontiguousarray(self._slices_NHWC[index, y0:y1, x0:x1], self.dtype(index))

    def close(self) -> None:
        """No-op, as no file is open."""


def _refuse_far_pixels(head: bytes) -> None:
    """Refuse a NIfTI that states a long way to its pixels: what lies before them is read, and unpacked."""
    order = "<" if int.from_bytes(head[:4], "little") in (348, _NIFTI_2) else ">"
    second = struct.unpack_from(f"{order}I", head)[0] == _NIFTI_2
    (begins,) = struct.unpack_from(f"{order}q", head, 168) if second else struct.unpack_from(f"{order}f", head, 108)
    if not begins <= _FARTHEST:
        raise ValueError(f"its pixels begin at byte {begins:.0f}")


_NIFTI_2 = 540
"""Bytes of the header of the second version, which it states first; of the first version 348."""
_FARTHEST = 2**26
"""Bytes before the pixels, of extensions."""
_AT_ONCE = 2**20
"""Bytes that are unpacked together."""
_PACKED = 64
"""Bytes in memory for each of a DICOM that is packed as a whole, beyond what any file may have."""


def _imported(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise not_installed(package, "volumes") from error
