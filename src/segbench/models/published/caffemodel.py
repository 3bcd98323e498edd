"""Read a `.caffemodel` without Caffe: the weights of a net as arrays over the mapped file.

The file is a protobuf message, NetParameter of `caffe.proto`. These fields matter:

    NetParameter      layer = 100 (LayerParameter), layers = 2 (V1LayerParameter)
    LayerParameter    name = 1, blobs = 7
    V1LayerParameter  name = 4, blobs = 6, layer = 1 (V0LayerParameter)
    V0LayerParameter  name = 1, blobs = 50
    BlobProto         shape = 7 (dim = 1), data = 5 (float), double_data = 8,
                      num = 1, channels = 2, height = 3, width = 4 (the shape in files older than `shape`)

Repeated numbers are packed (one run of bytes) or not (a tag before each number); both are read without a copy.
"""

from __future__ import annotations

import itertools
import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.errors import SegbenchError, reading, refuse_no_file

Blob = NDArray[np.floating[Any]]

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_WIDTH = {FIXED64: 8, FIXED32: 4}

# Field numbers of (name, blobs) by the field of NetParameter that holds the layer.
_LAYER, _LAYERS_V1 = 100, 2
_FIELDS = {_LAYER: (1, 7), _LAYERS_V1: (4, 6)}
_V0_IN_V1, _FIELDS_V0 = 1, (1, 50)

_SCAN = 2**16
"""The most records compared at a time when searching for the end of a run."""

_MOST = 200_000
"""Fields in a file beside runs of numbers: a net has some dozens for each layer."""


def read_caffemodel(path: str | Path) -> dict[str, tuple[Blob, ...]]:
    """The blobs of each layer that has any, by layer name, in file order.

    Args:
        path: the file; it stays mapped while any of the arrays exists, and is read on access.

    Returns:
        read-only arrays, float32 (float64 where the net was trained so), in the file's shapes. A convolution has
        (O, I / groups, h, w) and (O,), a transposed one (I, O / groups, h, w), a fully connected layer (O, I) and (O,).
        Files older than BlobProto.shape pad shapes with leading ones to four: (1, 1, O, I), (1, 1, 1, O).

    Raises:
        SegbenchError: the file is missing, truncated, damaged or of another kind; it names the byte.
    """
    data = _map(Path(path))
    reader = _Reader(data, Path(path))
    layers: dict[str, tuple[Blob, ...]] = {}
    with reading(Path(path), "a .caffemodel", "a whole .caffemodel file", "download it again"):
        _read_layers(reader, layers)
    if not layers:
        raise SegbenchError(
            f"{path}: no layer with weights", "a trained .caffemodel", "check that the download is the file itself"
        )
    return layers


def _read_layers(reader: _Reader, layers: dict[str, tuple[Blob, ...]]) -> None:
    for each in reader.fields(0, len(reader.data)):
        if each.kind != LENGTH or each.number not in _FIELDS:
            continue
        name, blobs = reader.layer(each, *_FIELDS[each.number], v0=each.number == _LAYERS_V1)
        if not blobs:
            continue
        if name in layers:
            raise SegbenchError(
                f"{reader.path}: two layers {name!r} with weights", "one", "give the layers distinct names"
            )
        layers[name] = blobs


def _map(path: Path) -> mmap.mmap:
    try:
        refuse_no_file(path)
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise SegbenchError(f"no file {path}", "a .caffemodel", "download it there") from error
    except (OSError, ValueError) as error:  # a directory; an empty file
        raise SegbenchError(f"{path} cannot be read: {error}", "a .caffemodel", "download it again") from error


@dataclass(frozen=True)
class _Field:
    """A field of a message.

    Attributes:
        number: as in `caffe.proto`.
        kind: the wire type.
        start: first byte of the payload.
        stop: one past its last; of a run, that of the first number.
        value: of a VARINT.
        count: of a run of FIXED32 or FIXED64 fields that follow one another.
        period: bytes from one of them to the next.
    """

    number: int
    kind: int
    start: int
    stop: int
    value: int = 0
    count: int = 1
    period: int = 0


@dataclass(frozen=True)
class _Reader:
    data: mmap.mmap
    path: Path
    count: Iterator[int] = field(default_factory=itertools.count)

    def layer(self, message: _Field, name_field: int, blobs_field: int, v0: bool) -> tuple[str, tuple[Blob, ...]]:
        name, blobs = "", []
        for each in self.fields(message.start, message.stop):
            if each.kind != LENGTH:
                continue
            if v0 and each.number == _V0_IN_V1:
                return self.layer(each, *_FIELDS_V0, v0=False)
            if each.number == name_field:
                name = self.text(each)
            elif each.number == blobs_field:
                blobs.append(self.blob(each))
        return name, tuple(blobs)

    def text(self, each: _Field) -> str:
        try:
            return self.data[each.start : each.stop].decode()
        except UnicodeDecodeError as error:
            raise self.damaged(each.start, "a name that is not text") from error

    def blob(self, message: _Field) -> Blob:
        shape: list[int] | None = None
        old_shape: dict[int, int] = {}
        floats: list[Blob] = []
        doubles: list[Blob] = []
        for each in self.fields(message.start, message.stop):
            if each.number == 7 and each.kind == LENGTH:
                shape = self.dims(each)
            elif each.number in (1, 2, 3, 4) and each.kind == VARINT:
                old_shape[each.number] = each.value
            elif each.number == 5:
                floats.append(self.numbers(each, FIXED32, "<f4"))
            elif each.number == 8:
                doubles.append(self.numbers(each, FIXED64, "<f8"))
        chunks = doubles or floats
        values = chunks[0] if len(chunks) == 1 else np.concatenate(chunks or [np.zeros(0, np.float32)])
        if shape is None:
            # Without any shape a blob is one number, as in Caffe.
            shape = [old_shape.get(axis, 0) for axis in (1, 2, 3, 4)] if old_shape else []
        if math.prod(shape) != values.size:
            raise self.damaged(message.start, f"a blob of shape {tuple(shape)} with {values.size} numbers")
        values.flags.writeable = False
        return values.reshape(shape)

    def dims(self, message: _Field) -> list[int]:
        dims: list[int] = []
        for each in self.fields(message.start, message.stop):
            if each.number == 1 and each.kind == VARINT:
                dims.append(each.value)
            elif each.number == 1 and each.kind == LENGTH:
                at = each.start
                while at < each.stop:
                    value, at = self.varint(at, each.stop)
                    dims.append(value)
        return dims

    def numbers(self, each: _Field, fixed: int, dtype: str) -> Blob:
        size = each.stop - each.start
        if each.kind == fixed:
            strides = (each.period,)
            values: Blob = np.ndarray((each.count,), dtype, self.data, each.start, strides)
            return values
        if each.kind != LENGTH or size % _WIDTH[fixed]:
            raise self.damaged(each.start, "weights cut off inside a number")
        return np.frombuffer(self.data, dtype, size // _WIDTH[fixed], each.start)

    def fields(self, start: int, stop: int) -> Iterator[_Field]:
        """The fields of the message between two bytes; repeated numbers of fixed size come as one run."""
        at = start
        while at < stop:
            record = at
            if next(self.count) > _MOST:
                raise self.damaged(at, f"more than {_MOST:,} fields")
            tag, at = self.varint(at, stop)
            number, kind = tag >> 3, tag & 7
            if number == 0 or kind not in (VARINT, FIXED64, LENGTH, FIXED32):
                raise self.damaged(record, f"field {number} of wire type {kind}")
            if kind == VARINT:
                value, end = self.varint(at, stop)
                yield _Field(number, kind, at, end, value)
                at = end
                continue
            if kind == LENGTH:
                size, at = self.varint(at, stop)
            else:
                size = _WIDTH[kind]
            if size > stop - at:
                raise self.damaged(record, f"a field of {size:,} bytes where {stop - at:,} are left")
            if kind == LENGTH:
                yield _Field(number, kind, at, at + size)
                at += size
            else:
                period = at - record + size
                count = self.run_length(record, stop, at - record, period)
                yield _Field(number, kind, at, at + size, count=count, period=period)
                at = record + count * period

    def run_length(self, record: int, stop: int, tag_size: int, period: int) -> int:
        """How many whole records from `record` on begin with the same tag."""
        tag = np.frombuffer(self.data, np.uint8, tag_size, record)
        records = (stop - record) // period
        first, count = 0, 1
        while first < records:
            # Twice as many each time, so that no more is compared than twice the run.
            count = min(2 * count, _SCAN, records - first)
            bytes_NP = np.frombuffer(self.data, np.uint8, count * period, record + first * period).reshape(-1, period)
            same_N = (bytes_NP[:, :tag_size] == tag).all(axis=1)
            if not same_N.all():
                return first + int(same_N.argmin())
            first += count
        return records

    def varint(self, at: int, stop: int) -> tuple[int, int]:
        """The number whose bytes begin at `at`, seven bits each, least first; and the byte after it."""
        value = 0
        for position in range(at, min(stop, at + 10)):
            byte = self.data[position]
            value |= (byte & 0x7F) << 7 * (position - at)
            if byte < 0x80:
                return value, position + 1
        raise self.damaged(at, "a number without an end")

    def damaged(self, at: int, what: str) -> SegbenchError:
        return SegbenchError(
            f"{self.path}: {what}, at byte {at:,} of {len(self.data):,}",
            "a whole .caffemodel file",
            "download it again: it is truncated, damaged, or another kind of file",
        )
