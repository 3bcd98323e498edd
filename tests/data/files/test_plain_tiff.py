import numpy as np
import pytest
import tifffile

from segbench.data.files.image_files import images_of, read_image
from segbench.data.files.plain_tiff import read_plain
from segbench.data.files.tiff_images import TiffImages
from segbench.errors import SegbenchError


def values(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


PLAIN = {
    "grey": (values(9, 7), {}),
    "no description": (values(9, 7), {"metadata": None}),
    "other description": (values(9, 7), {"metadata": None, "description": "slide 3, 20x"}),
    "sixteen bits, lzw": (values(9, 7, dtype=np.uint16) * 200, {"compression": "lzw", "predictor": True}),
    "big endian": (values(9, 7, dtype=np.uint16) * 200, {"byteorder": ">"}),
    "float, zlib": (values(9, 7, dtype=np.float32), {"compression": "zlib"}),
    "float, predictor": (values(9, 7, dtype=np.float32), {"compression": "zlib", "predictor": True}),
    "rgb": (values(9, 7, 3), {"photometric": "rgb"}),
    "rgb of sixteen bits": (values(9, 7, 3, dtype=np.uint16), {"photometric": "rgb"}),
    "tiles": (values(50, 40), {"tile": (16, 16)}),
    "strips": (values(50, 40), {"rowsperstrip": 7, "compression": "lzw"}),
}
OTHERS = {
    "stack": (values(3, 9, 7), {"photometric": "minisblack"}),
    "imagej stack behind one header": (values(3, 9, 7), {"imagej": True, "metadata": {"axes": "ZYX"}}),
    "ome": (values(9, 7), {"ome": True}),
    "separate planes": (values(3, 9, 7), {"planarconfig": "separate", "photometric": "rgb"}),
    "five channels": (values(9, 7, 5), {"photometric": "minisblack", "planarconfig": "contig"}),
    "dark is high": (values(9, 7), {"photometric": "miniswhite"}),
    "palette": (values(9, 7), {"photometric": "palette", "colormap": values(3, 256, dtype=np.uint16)}),
    "bigtiff": (values(9, 7), {"bigtiff": True}),
    "one bit": (values(9, 7) > 9, {"photometric": "minisblack"}),
    "double": (values(9, 7, dtype=np.float64), {}),
    "signed": (values(9, 7, dtype=np.int16), {}),
    "zstd": (values(9, 7), {"compression": "zstd"}),
}


@pytest.mark.parametrize("small", [0, 2**22], ids=["header first", "at once"])
@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_file_is_read_as_by_the_full_reader(tmp_path, monkeypatch, name, small):
    monkeypatch.setattr("segbench.data.files.plain_tiff.SMALL", small)
    image, options = PLAIN[name]
    tifffile.imwrite(tmp_path / "a.tif", image, **options)
    read = read_plain(tmp_path / "a.tif")
    assert read.dtype == image.dtype
    np.testing.assert_array_equal(read, image.reshape(*image.shape[:2], -1))
    with TiffImages(tmp_path / "a.tif") as full:
        assert len(full) == 1
        np.testing.assert_array_equal(read, full.read(0))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), read)


@pytest.mark.parametrize("name", OTHERS)
def test_any_other_file_is_left_to_the_full_reader(tmp_path, name):
    image, options = OTHERS[name]
    tifffile.imwrite(tmp_path / "a.tif", image, **options)
    assert read_plain(tmp_path / "a.tif") is None
    with TiffImages(tmp_path / "a.tif") as full:
        for page, read in enumerate(images_of(tmp_path / "a.tif")):
            np.testing.assert_array_equal(read, full.read(page))


SHAPED = (b'{"shape": [3, 9, 7], "truncated": true}', b'{"truncated": true, "shape": [3, 9, 7]}', b"shape=(3,9,7)")


@pytest.mark.parametrize("description", SHAPED)
def test_a_stack_cut_down_to_one_header_is_no_picture(tmp_path, description):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values(3, 9, 7), photometric="minisblack", truncate=True)
    content = path.read_bytes()
    (written,) = (each for each in SHAPED if each in content)
    path.write_bytes(content.replace(written, description.ljust(len(written), b"\0")))
    assert read_plain(path) is None
    with TiffImages(path) as full:
        assert len(full) == 3


def test_a_large_file_is_left_to_the_full_reader(tmp_path, monkeypatch):
    monkeypatch.setattr("segbench.data.files.plain_tiff.LARGEST", 100)
    tifffile.imwrite(tmp_path / "a.tif", values(9, 70))
    assert read_plain(tmp_path / "a.tif") is None


@pytest.mark.parametrize("options", [{}, {"compression": "lzw"}, {"compression": "zlib", "rowsperstrip": 8}])
def test_a_cut_file_is_never_read(tmp_path, options):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values(60, 50), metadata=None, **options)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 37):
        path.write_bytes(whole[:cut])
        assert read_plain(path) is None
        with pytest.raises(SegbenchError, match=r"a\.tif"):
            read_image(path)


def test_bytes_of_any_kind_are_no_picture(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values(20, 30), compression="lzw")
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, 250, 6):
            damaged[place] = rng.integers(256)
        path.write_bytes(bytes(damaged))
        read = read_plain(path)
        assert read is None or read.ndim == 3


def test_a_tile_far_larger_than_its_picture_is_not_decoded(tmp_path):
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, values(40, 30), tile=(16, 16), compression="lzw")
    with tifffile.TiffFile(file, mode="r+") as tiff:
        tiff.pages[0].tags["TileWidth"].overwrite(1_442_840_592)
    assert read_plain(file) is None
    with pytest.raises(SegbenchError, match="too large to decode"):
        read_image(file)
