"""A writer of `.caffemodel` files: protobuf's wire format from its specification, knowing nothing of the reader."""

import struct

import numpy as np
import pytest


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def message(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def whole_number(number, value):
    return varint(number << 3) + varint(value)


def floats(number, values, packed):
    if packed:
        return message(number, struct.pack(f"<{len(values)}f", *values))
    return b"".join(varint(number << 3 | 5) + struct.pack("<f", value) for value in values)


def blob_message(array, *, packed=True, old_shape=False, doubles=False):
    if old_shape:
        four = (1,) * (4 - array.ndim) + array.shape
        shape = b"".join(whole_number(field, side) for field, side in zip((1, 2, 3, 4), four, strict=True))
    elif packed:
        shape = message(7, message(1, b"".join(map(varint, array.shape))))
    else:
        shape = message(7, b"".join(whole_number(1, side) for side in array.shape))
    values = array.ravel().tolist()
    if doubles:
        data = message(8, struct.pack(f"<{len(values)}d", *values))
    else:
        data = floats(5, values, packed)
    gradient = floats(6, [1.0, -2.0], packed)
    # Fields may come in any order; the old one puts its shape before its data.
    return shape + data + gradient if old_shape else data + gradient + shape


def net_message(layers, generation, **options):
    """NetParameter of {layer: arrays} in one of three generations of layers, with fields that no reader needs."""
    out = message(1, b"a net") + message(3, b"data") + whole_number(4, 3) + whole_number(5, 1)
    named = {"data": (), **layers, "loss": ()}
    for name, arrays in named.items():
        blobs = [blob_message(np.asarray(array), **options) for array in arrays]
        if generation == 2:
            head = message(1, name.encode()) + message(2, b"Convolution") + message(3, b"bottom") + message(4, b"top")
            rate = message(6, floats(3, [2.0], packed=False)) + floats(5, [1.0], packed=False)
            out += message(100, head + rate + b"".join(message(7, blob) for blob in blobs))
        elif generation == 1:
            head = message(2, b"bottom") + message(3, b"top") + message(4, name.encode()) + whole_number(5, 4)
            rates = floats(7, [1.0, 2.0], packed=False) + floats(8, [1.0, 0.0], packed=False)
            out += message(2, head + b"".join(message(6, blob) for blob in blobs) + rates)
        else:
            inner = message(1, name.encode()) + message(2, b"conv") + whole_number(3, 8)
            inner += b"".join(message(50, blob) for blob in blobs) + floats(51, [1.0, 2.0], packed=False)
            out += message(2, message(1, inner) + message(2, b"bottom"))
    return out


@pytest.fixture(scope="session")
def caffemodel_bytes():
    """`caffemodel_bytes({layer: arrays}, generation=2, packed=True, old_shape=False, doubles=False)`."""

    def write(layers, generation=2, **options):
        return net_message(layers, generation, **options)

    return write
