from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile

from segbench.data.files.stacks import read_stack, write_stack
from segbench.errors import SegbenchError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "stack.tif"


def numbered(*shape, dtype=np.uint8):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pages_come_back_as_they_were_written(path, dtype):
    stack = numbered(5, 8, 7, dtype=dtype)
    write_stack(path, stack)
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.pages) == 5
    read = read_stack(path, "input")
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, stack)


def test_writing_makes_the_folder_and_leaves_no_partial_file(tmp_path):
    write_stack(tmp_path / "a" / "b.tif", numbered(2, 8, 8))
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.tif"]


def test_a_single_page_is_a_stack_of_one(path):
    page = numbered(8, 9)
    tifffile.imwrite(path, page)
    np.testing.assert_array_equal(read_stack(path, "input"), page[np.newaxis])


def test_a_colour_page_keeps_its_channels_last(path):
    page = numbered(8, 9, 3)
    tifffile.imwrite(path, page, photometric="rgb")
    np.testing.assert_array_equal(read_stack(path, "input"), page[np.newaxis])


def test_colour_pages_keep_their_channels_last(path):
    pages = numbered(2, 8, 9, 3)
    tifffile.imwrite(path, pages, photometric="rgb", metadata=None)
    np.testing.assert_array_equal(read_stack(path, "input"), pages)


def test_an_imagej_stack_behind_one_header_is_read_whole(path):
    stack = numbered(6, 8, 9)
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(read_stack(path, "input"), stack)


@pytest.mark.parametrize("compression", ["lzw", "zlib"])
def test_compressed_pages_are_read(path, compression):
    stack = numbered(3, 16, 16)
    tifffile.imwrite(path, stack, photometric="minisblack", compression=compression)
    np.testing.assert_array_equal(read_stack(path, "input"), stack)


def test_a_missing_file_names_the_key_and_what_lies_beside_it(tmp_path):
    write_stack(tmp_path / "train-volume.tiff", numbered(1, 8, 8))
    with pytest.raises(
        SegbenchError, match=r"no file .*train-volume\.tif; beside it: train-volume\.tiff\n.*a TIFF stack\n.*data\.root"
    ):
        read_stack(tmp_path / "train-volume.tif", "data.root")


def test_a_missing_folder_is_a_missing_file(tmp_path):
    with pytest.raises(SegbenchError, match=r"no file .*b\.tif\n.*a TIFF stack\n.*correct input"):
        read_stack(tmp_path / "a" / "b.tif", "input")


def test_a_file_that_is_no_tiff_is_refused(path):
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(SegbenchError, match=r"\(108 bytes\) cannot be read as TIFF: .*\n.*a whole TIFF.*\n.*fetch"):
        read_stack(path, "input")


def test_an_empty_file_is_refused(path):
    path.touch()
    with pytest.raises(SegbenchError, match=r"\(0 bytes\) cannot be read as TIFF"):
        read_stack(path, "input")


@pytest.mark.parametrize(
    "options",
    [
        {"metadata": None},
        {"metadata": None, "bigtiff": True},
        {"metadata": None, "compression": "lzw"},
        {"metadata": None, "compression": "zlib", "rowsperstrip": 8},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
    ],
    ids=["plain", "bigtiff", "lzw", "zlib", "imagej"],
)
def test_a_truncated_file_never_passes_for_a_shorter_stack(path, options):
    noise = np.random.default_rng(0).integers(0, 256, (6, 32, 32), dtype=np.uint8)
    tifffile.imwrite(path, noise, photometric="minisblack", **options)
    whole = path.read_bytes()
    refused = 0
    for cut in range(0, len(whole), 83):
        path.write_bytes(whole[:cut])
        try:
            read = read_stack(path, "input")
        except SegbenchError as error:
            assert "cannot be read as TIFF" in str(error)
            refused += 1
        else:
            # What is missing is no pixel: the last bytes of the last page's header.
            np.testing.assert_array_equal(read, noise)
    assert refused > len(whole) // 83 * 0.9


def test_pages_of_two_sizes_are_refused(path):
    with tifffile.TiffWriter(path) as tiff:
        for page in (numbered(8, 9), numbered(8, 10)):
            tiff.write(page, metadata=None)
    with pytest.raises(SegbenchError, match=r"pages of sizes \[\(8, 9\), \(8, 10\)\]\n.*one size\n.*split"):
        read_stack(path, "input")


def test_a_thread_hears_only_of_its_own_file(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (6, 32, 32), dtype=np.uint8)
    write_stack(tmp_path / "whole.tif", noise)
    (tmp_path / "cut.tif").write_bytes((tmp_path / "whole.tif").read_bytes()[:4000])

    def read(name):
        try:
            return np.array_equal(read_stack(tmp_path / name, "input"), noise)
        except SegbenchError:
            return "refused"

    names = ["whole.tif", "cut.tif"] * 100
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, names)) == [True, "refused"] * 100
