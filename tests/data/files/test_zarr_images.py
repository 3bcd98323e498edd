import json
import sys

import numpy as np
import pytest

from segbench.data.files.image_files import open_images
from segbench.data.files.zarr_images import ZarrImages, is_zarr
from segbench.errors import SegbenchError

zarr = pytest.importorskip("zarr", reason="zarr, of the extra of that name, is not installed")


def values(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def write(path, array, **options):
    zarr.create_array(str(path), data=array, chunks=tuple(min(n, 16) for n in array.shape), **options)
    return path


@pytest.mark.parametrize(
    ("shape", "channels", "count", "size"),
    [
        ((40, 50), 1, 1, (40, 50, 1)),
        ((40, 50, 3), 3, 1, (40, 50, 3)),
        ((3, 40, 50), 3, 1, (40, 50, 3)),
        ((6, 40, 50), 1, 6, (40, 50, 1)),
        ((6, 40, 50, 1), 1, 6, (40, 50, 1)),
        ((6, 3, 40, 50), 3, 6, (40, 50, 3)),
        ((2, 3, 40, 50), 1, 6, (40, 50, 1)),
    ],
)
def test_unnamed_axes_follow_the_channels_that_are_expected(tmp_path, shape, channels, count, size):
    array = values(*shape)
    images = open_images(write(tmp_path / "a.zarr", array), channels)
    assert len(images) == count
    assert images.shape(0) == size
    assert images.dtype(0) == np.uint8
    last = images.read(count - 1, 5, 20, 7, 50)
    expected = array.reshape(count, *((40, 50, 1) if channels == 1 else shape[-3:]))
    expected = np.moveaxis(expected, 1, -1) if expected.shape[1] == 3 else expected
    np.testing.assert_array_equal(last, expected[-1, 5:20, 7:50])


def test_named_axes_are_believed(tmp_path):
    array = values(4, 40, 2, 50)
    path = write(tmp_path / "a.zarr", array, dimension_names=("t", "Y", "channel", "X"))
    images = ZarrImages(path, channels=1)
    assert (len(images), images.shape(0)) == (4, (40, 50, 2))
    np.testing.assert_array_equal(images.read(3), np.moveaxis(array[3], 1, 2))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_of_ome_zarr_the_first_level_is_read(tmp_path, version):
    array = values(2, 3, 40, 50)
    group = zarr.create_group(str(tmp_path / "a.zarr"), zarr_format=2 if version == "0.4" else 3)
    multiscales = [
        {
            "axes": [{"name": name} for name in "tcyx"],
            "datasets": [{"path": "0"}, {"path": "1"}],
        }
    ]
    group.attrs.update(
        {"multiscales": multiscales} if version == "0.4" else {"ome": {"version": "0.5", "multiscales": multiscales}}
    )
    for level, data in (("0", array), ("1", array[..., ::2, ::2])):
        group.create_array(level, data=data)
    images = open_images(tmp_path / "a.zarr")
    assert (len(images), images.shape(0)) == (2, (40, 50, 3))
    np.testing.assert_array_equal(images.read(1, x1=9), np.moveaxis(array[1, ..., :9], 0, 2))


def test_a_group_of_something_else_and_odd_axes_are_told(tmp_path):
    zarr.create_group(str(tmp_path / "g.zarr")).create_array("weights", data=values(3))
    with pytest.raises(SegbenchError, match=r"g\.zarr cannot be read as zarr: a group of weights without OME"):
        open_images(tmp_path / "g.zarr")
    with pytest.raises(SegbenchError, match=r"shape \(40, 50\) with axes a, b\n.*axes y and x"):
        open_images(write(tmp_path / "a.zarr", values(40, 50), dimension_names=("a", "b")))


def test_a_damaged_chunk_is_told(tmp_path):
    path = write(tmp_path / "a.zarr", values(40, 50))
    images = open_images(path)
    (path / "c" / "1" / "1").write_bytes(b"no zstd")
    images.read(0, 0, 16)
    with pytest.raises(SegbenchError, match=r"a\.zarr cannot be read as zarr: .*\n.*whole zarr"):
        images.read(0)


def test_only_folders_with_zarrs_marks_are_zarr(tmp_path):
    assert is_zarr(write(tmp_path / "a", values(4, 4)))
    (tmp_path / "b.zarr").mkdir()
    assert not is_zarr(tmp_path / "b.zarr")
    assert not is_zarr(tmp_path / "none")


def test_without_the_library_its_extra_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.zarr", values(4, 4))
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(SegbenchError, match=r"zarr is not installed\n.*extra zarr.*\n.*pip install 'segbench\[zarr\]'"):
        open_images(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shape", [2**40, 2**40]),
        ("shape", [40, "x"]),
        ("chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [2**40, 2**40]}}),
        ("data_type", 5),
        ("dimension_names", [1.5, 2]),
        ("codecs", []),
    ],
)
def test_metadata_with_anything_inside_are_read_or_named(tmp_path, key, value):
    path = write(tmp_path / "a.zarr", values(40, 50))
    metadata = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps(metadata | {key: value}))
    with pytest.raises(SegbenchError, match=r"a\.zarr (declares .* bytes in memory|cannot be read as zarr)"):
        ZarrImages(path).read(0)
