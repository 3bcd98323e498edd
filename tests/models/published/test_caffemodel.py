import struct
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.errors import SegbenchError
from segbench.models.published.caffemodel import read_caffemodel

RNG = np.random.default_rng(0)
LAYERS = {
    "conv1_1": (RNG.normal(size=(4, 3, 3, 3)).astype(np.float32), RNG.normal(size=4).astype(np.float32)),
    "inception_3a/5x5": (RNG.normal(size=(2, 1, 5, 5)).astype(np.float32), RNG.normal(size=2).astype(np.float32)),
    "fc8": (RNG.normal(size=(10, 300)).astype(np.float32), RNG.normal(size=10).astype(np.float32)),
    "upscore2": (RNG.normal(size=(4, 4, 4, 4)).astype(np.float32),),
}


def assert_read(path, layers, four_axes=False):
    read = read_caffemodel(path)
    assert list(read) == list(layers)
    for name, arrays in layers.items():
        assert len(read[name]) == len(arrays)
        for ours, theirs in zip(read[name], arrays, strict=True):
            shape = (1,) * (4 - theirs.ndim) + theirs.shape if four_axes else theirs.shape
            assert ours.shape == shape
            assert not ours.flags.writeable
            np.testing.assert_array_equal(ours.reshape(theirs.shape), theirs)


@pytest.mark.parametrize("generation", [0, 1, 2])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("old_shape", [True, False])
def test_every_layout_is_read(tmp_path, caffemodel_bytes, generation, packed, old_shape):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffemodel_bytes(LAYERS, generation, packed=packed, old_shape=old_shape))
    assert_read(path, LAYERS, four_axes=old_shape)


def test_double_weights_stay_double(tmp_path, caffemodel_bytes):
    path = tmp_path / "net.caffemodel"
    layers = {"conv": (np.array([[0.1, 1 / 3]]),)}
    path.write_bytes(caffemodel_bytes(layers, doubles=True))
    assert read_caffemodel(path)["conv"][0].dtype == np.float64
    assert_read(path, layers)


def test_the_file_of_protobufs_own_encoder_is_read(tmp_path):
    descriptor_pb2 = pytest.importorskip(
        "google.protobuf.descriptor_pb2", reason="protobuf, the independent reference, is not installed"
    )
    from google.protobuf import descriptor_pool, message_factory

    # (name, number, type, repeated): 3 int64, 2 float, 9 string, 11 message.
    schema = {
        "BlobShape": [("dim", 1, 3, True)],
        "BlobProto": [("num", 1, 3, False), ("data", 5, 2, True), ("shape", 7, "BlobShape", False)],
        "LayerParameter": [("name", 1, 9, False), ("type", 2, 9, False), ("blobs", 7, "BlobProto", True)],
        "V1LayerParameter": [("bottom", 2, 9, True), ("name", 4, 9, False), ("blobs", 6, "BlobProto", True)],
        "NetParameter": [
            ("name", 1, 9, False),
            ("layers", 2, "V1LayerParameter", True),
            ("layer", 100, "LayerParameter", True),
        ],
    }
    file = descriptor_pb2.FileDescriptorProto(name="net.proto", package="t", syntax="proto2")
    for name, fields in schema.items():
        described = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            added = described.field.add(name=field, number=number, label=3 if repeated else 1)
            added.type = 11 if isinstance(kind, str) else kind
            if isinstance(kind, str):
                added.type_name = f".t.{kind}"
            if repeated and kind in (2, 3):
                added.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    net = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.NetParameter"))(name="a net")
    for index, (name, arrays) in enumerate(LAYERS.items()):
        layer = (
            net.layers.add(name=name, bottom=["data"]) if index % 2 else net.layer.add(name=name, type="Convolution")
        )
        for array in arrays:
            layer.blobs.add(data=array.ravel().tolist()).shape.dim.extend(array.shape)
    path = tmp_path / "net.caffemodel"
    path.write_bytes(net.SerializeToString())
    read = read_caffemodel(path)
    assert set(read) == set(LAYERS)
    for name, arrays in LAYERS.items():
        for ours, theirs in zip(read[name], arrays, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@given(
    arrays=st.lists(
        st.tuples(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 2**32 - 1)),
        min_size=1,
        max_size=3,
    ),
    generation=st.sampled_from([0, 1, 2]),
    packed=st.booleans(),
    old_shape=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_what_is_written_is_read(tmp_path_factory, caffemodel_bytes, arrays, generation, packed, old_shape):
    layers = {}
    for index, (shape, seed) in enumerate(arrays):
        # Any bit pattern that is a finite number: among them bytes that look like tags.
        bits = np.random.default_rng(seed).integers(0, 2**32, int(np.prod(shape)), np.uint64).astype(np.uint32)
        values = bits.view(np.float32).copy()
        values[~np.isfinite(values)] = struct.unpack("<f", b"\x2d\x2d\x2d\x2d")[0]
        layers[f"layer {index}"] = (values.reshape(shape),)
    path = tmp_path_factory.mktemp("caffe") / "net.caffemodel"
    path.write_bytes(caffemodel_bytes(layers, generation, packed=packed, old_shape=old_shape))
    assert_read(path, layers, four_axes=old_shape)


def test_data_in_several_pieces_is_joined(tmp_path):
    def piece(values):
        return b"\x2a" + bytes([4 * len(values)]) + struct.pack(f"<{len(values)}f", *values)

    single = b"\x2d" + struct.pack("<f", 3.0)
    blob = piece([1.0, 2.0]) + single + piece([4.0]) + b"\x3a\x03\x0a\x01\x04"
    layer = b"\x0a\x01c" + b"\x3a" + bytes([len(blob)]) + blob
    path = tmp_path / "net.caffemodel"
    path.write_bytes(b"\xa2\x06" + bytes([len(layer)]) + layer)
    assert read_caffemodel(path)["c"][0].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_a_blob_without_a_shape_is_one_number(tmp_path):
    layer = b"\x0a\x05scale" + b"\x3a\x06" + b"\x2a\x04" + struct.pack("<f", 0.01)
    path = tmp_path / "net.caffemodel"
    path.write_bytes(b"\xa2\x06" + bytes([len(layer)]) + layer)
    assert read_caffemodel(path)["scale"][0].shape == ()


@pytest.mark.parametrize("packed", [True, False])
def test_large_blobs_are_not_walked_through(tmp_path, caffemodel_bytes, packed):
    # A million numbers: a loop over them in Python takes most of a second, the mapping of a file next to nothing.
    path = tmp_path / "net.caffemodel"
    values = np.arange(2**20, dtype=np.float32)
    path.write_bytes(caffemodel_bytes({"fc6": (values,)}, packed=packed))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        read = read_caffemodel(path)["fc6"][0]
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.2
    np.testing.assert_array_equal(read, values)


# Bad input


def test_every_truncation_is_refused_or_leaves_whole_layers(tmp_path, caffemodel_bytes):
    whole = caffemodel_bytes({"a": (np.ones((2, 2), np.float32),), "b": (np.ones(2, np.float32),)})
    path = tmp_path / "net.caffemodel"
    refused = 0
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        try:
            layers = read_caffemodel(path)
        except SegbenchError as error:
            assert str(path) in error.found
            refused += 1
        else:
            # Between two layers a cut cannot be seen: there the network's missing weights are (see the weights' tests).
            assert all((blob == 1).all() for blobs in layers.values() for blob in blobs)
    assert refused > 0.95 * len(whole)


@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
@settings(deadline=None, max_examples=150)
def test_damage_never_ends_otherwise_than_in_the_one_error(tmp_path_factory, caffemodel_bytes, position, value):
    data = bytearray(caffemodel_bytes({"a": (np.ones((2, 2), np.float32),), "b": (np.ones(2, np.float32),)}, 1))
    data[position % len(data)] = value
    path = tmp_path_factory.mktemp("caffe") / "net.caffemodel"
    path.write_bytes(data)
    try:
        read_caffemodel(path)
    except SegbenchError as error:
        assert str(path) in error.found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>", r"net\.caffemodel: field 7 of wire type 4, at byte 0 of 21\n  expected: a whole"),
        (b"PK\x03\x04" + bytes(100), "field 0 of wire type 3"),
        (b'name: "VGG_ILSVRC_16_layers"', "wire type 6"),
        (b"", "cannot be read"),
        (b"\x0a\x03net", "no layer with weights"),
        (b"\xa2\x06\xff\x01\x0a", "a field of 255 bytes where 1 are left"),
        (b"\xa2\x06\x0c" + b"\x0a\x01c" + b"\x3a\x07" + b"\x3a\x05\x0a\x03\xff\xff\xff", "a number without an end"),
        (b"\xa2\x06\x0a" + b"\x0a\x01c" + b"\x3a\x06" + b"\x2a\x04\x00\x00\x80", "a field of 6 bytes where 5 are left"),
        (b"\xa2\x06\x0a" + b"\x0a\x01c" + b"\x3a\x05" + b"\x2a\x03\x00\x00\x80", "weights cut off inside a number"),
        (b"\xa2\x06\x08" + b"\x0a\x01\xff" + b"\x3a\x03" + b"\x0a\x01\x02", "a name that is not text"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(content)
    with pytest.raises(SegbenchError, match=message):
        read_caffemodel(path)


def test_shape_and_numbers_must_agree(tmp_path, caffemodel_bytes):
    path = tmp_path / "net.caffemodel"
    right = caffemodel_bytes({"a": (np.ones((3, 5), np.float32),)})
    shape = b"\x0a\x02\x03\x05"
    assert right.count(shape) == 1
    path.write_bytes(right.replace(shape, b"\x0a\x02\x03\x06"))
    with pytest.raises(SegbenchError, match=r"a blob of shape \(3, 6\) with 15 numbers, at byte"):
        read_caffemodel(path)


def test_two_layers_of_one_name_are_refused(tmp_path, caffemodel_bytes):
    once = caffemodel_bytes({"a": (np.ones(2, np.float32),)})
    path = tmp_path / "net.caffemodel"
    path.write_bytes(once + once)
    with pytest.raises(SegbenchError, match="two layers 'a' with weights"):
        read_caffemodel(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(SegbenchError, match=r"no file .*missing\.caffemodel"):
        read_caffemodel(tmp_path / "missing.caffemodel")
    with pytest.raises(SegbenchError, match="cannot be read"):
        read_caffemodel(tmp_path)


def test_two_fields_in_turn_end_soon(tmp_path):
    def sized(tag, content):
        size, head = len(content), b""
        while size > 127:
            head, size = head + bytes([size & 127 | 128]), size >> 7
        return tag + head + bytes([size]) + content

    blob = (b"\x2d" + bytes(4) + b"\x41" + bytes(8)) * 150_000
    path = tmp_path / "net.caffemodel"
    path.write_bytes(sized(b"\xa2\x06", b"\x0a\x01a" + sized(b"\x3a", blob)))
    with pytest.raises(SegbenchError, match=r"net\.caffemodel: more than 200,000 fields, at byte"):
        read_caffemodel(path)
