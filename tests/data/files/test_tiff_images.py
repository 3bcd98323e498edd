import io
import json
import struct

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.data.files import tiff_images
from segbench.data.files.tiff_images import TiffImages
from segbench.errors import SegbenchError


def values(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


LAYOUTS = {
    "one strip": {},
    "strips": {"rowsperstrip": 7},
    "compressed strips": {"rowsperstrip": 7, "compression": "zlib"},
    "compressed, predicted": {"rowsperstrip": 16, "compression": "lzw", "predictor": True},
    "tiles": {"tile": (16, 32)},
    "compressed tiles": {"tile": (32, 16), "compression": "zlib"},
    "one tile": {"tile": (64, 112), "compression": "zlib"},
}


@pytest.fixture(scope="module", params=LAYOUTS)
def written(request, tmp_path_factory):
    """A file of each layout: two pages of 50 x 99, of three channels, 16 bits."""
    path = tmp_path_factory.mktemp("layouts") / "a.tif"
    stack = values(2, 50, 99, 3, dtype=np.uint16)
    tifffile.imwrite(path, stack, photometric="rgb", metadata=None, **LAYOUTS[request.param])
    with TiffImages(path) as images:
        yield images, stack


def window(size):
    return st.integers(0, size - 1).flatmap(lambda a: st.tuples(st.just(a), st.integers(a + 1, size)))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1), window(50), window(99))
def test_any_part_of_any_layout_is_that_of_the_whole(written, page, rows, columns):
    images, stack = written
    assert len(images) == 2
    assert images.shape(page) == (50, 99, 3)
    part = images.read(page, *rows, *columns)
    assert part.dtype == images.dtype(page) == np.uint16
    np.testing.assert_array_equal(part, stack[page, slice(*rows), slice(*columns)])


@pytest.mark.parametrize("layout", ["one strip", "compressed tiles"])
def test_samples_in_planes_of_their_own_are_channels(tmp_path, layout):
    image = values(5, 40, 33)
    tifffile.imwrite(
        tmp_path / "a.tif", image, photometric="minisblack", planarconfig="separate", metadata=None, **LAYOUTS[layout]
    )
    with TiffImages(tmp_path / "a.tif") as images:
        assert images.shape(0) == (40, 33, 5)
        np.testing.assert_array_equal(images.read(0, 3, 39, 5, 30), np.moveaxis(image, 0, 2)[3:39, 5:30])


def test_big_endian_values_come_in_the_machines_order(tmp_path):
    image = values(40, 33, dtype=np.uint16) + 1000
    tifffile.imwrite(tmp_path / "a.tif", image, byteorder=">", photometric="minisblack")
    with TiffImages(tmp_path / "a.tif") as images:
        read = images.read(0)
    assert read.dtype.isnative
    np.testing.assert_array_equal(read[..., 0], image)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", ["ome", "imagej", "shaped"])
def test_channels_that_are_pages_belong_to_one_image(tmp_path, kind, compression):
    stack = values(4, 2, 16, 24)
    path = tmp_path / ("a.ome.tif" if kind == "ome" else "a.tif")
    options = {"ome": {"ome": True}, "imagej": {"imagej": True}, "shaped": {}}[kind]
    tifffile.imwrite(
        path, stack, photometric="minisblack", metadata={"axes": "TCYX"}, compression=compression, **options
    )
    with TiffImages(path) as images:
        assert [images.shape(i) for i in range(len(images))] == [(16, 24, 2)] * 4
        np.testing.assert_array_equal(images.read(3), np.moveaxis(stack[3], 0, 2))


def test_channels_before_time_are_found_by_their_axis(tmp_path):
    stack = values(2, 3, 16, 24)
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, photometric="minisblack", ome=True, metadata={"axes": "CTYX"})
    with TiffImages(tmp_path / "a.ome.tif") as images:
        assert len(images) == 3
        np.testing.assert_array_equal(images.read(1), np.moveaxis(stack[:, 1], 0, 2))


def test_a_stack_behind_one_page_header_has_all_its_images(tmp_path):
    stack = values(6, 16, 24)
    tifffile.imwrite(
        tmp_path / "a.tif", stack, photometric="minisblack", imagej=True, truncate=True, metadata={"axes": "ZYX"}
    )
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert len(tiff.pages) == 1
    with TiffImages(tmp_path / "a.tif") as images:
        assert len(images) == 6
        np.testing.assert_array_equal(images.read(4, 2, 9, 3, 20)[..., 0], stack[4, 2:9, 3:20])


def test_of_a_pyramid_the_largest_level_counts(tmp_path):
    image = values(64, 96)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(image, subifds=2, tile=(16, 16), photometric="minisblack")
        writer.write(image[::2, ::2], subfiletype=1, tile=(16, 16), photometric="minisblack")
        writer.write(image[::4, ::4], subfiletype=1, tile=(16, 16), photometric="minisblack")
    with TiffImages(tmp_path / "a.tif") as images:
        assert [images.shape(i) for i in range(len(images))] == [(64, 96, 1)]
        np.testing.assert_array_equal(images.read(0)[..., 0], image)


def test_a_palette_becomes_colours_but_a_grey_ramp_stays_grey(tmp_path):
    image = values(8, 9)
    ramp = np.repeat(np.arange(256, dtype=np.uint16)[None] * 257, 3, axis=0)
    tifffile.imwrite(tmp_path / "grey.tif", image, photometric="palette", colormap=ramp, metadata=None)
    tifffile.imwrite(tmp_path / "red.tif", image, photometric="palette", colormap=ramp * [[1], [0], [0]], metadata=None)
    with TiffImages(tmp_path / "grey.tif") as images:
        np.testing.assert_array_equal(images.read(0)[..., 0], image)
    with TiffImages(tmp_path / "red.tif") as images:
        np.testing.assert_array_equal(images.read(0), np.stack([image, 0 * image, 0 * image], axis=2))
        assert images.dtype(0) == np.uint8


def test_decoded_tiles_are_kept_up_to_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff_images, "CACHE_BYTES", 3 * 256)
    image = values(64, 64)
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(16, 16), compression="zlib", photometric="minisblack")
    with TiffImages(tmp_path / "a.tif") as images:
        images.read(0)
        assert list(images._cache) == [(0, 13), (0, 14), (0, 15)]


def test_a_compressed_strip_too_large_to_decode_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff_images, "LARGEST_SEGMENT", 1000)
    tifffile.imwrite(tmp_path / "a.tif", values(64, 64), compression="zlib", rowsperstrip=64, photometric="minisblack")
    with pytest.raises(SegbenchError, match=r"compressed parts of 4096 pixels each.*tiles of 512"):
        TiffImages(tmp_path / "a.tif")


def test_tiles_that_are_left_out_are_zero(tmp_path):
    image = values(48, 48)
    tiles = [image[:16, :16], None, None, *[image[:16, :16]] * 6]
    tifffile.imwrite(
        tmp_path / "a.tif", iter(tiles), shape=(48, 48), dtype=np.uint8, tile=(16, 16), compression="zlib",
        photometric="minisblack",
    )  # fmt: skip
    with TiffImages(tmp_path / "a.tif") as images:
        assert not images.read(0, 0, 16, 16, 48).any()
        np.testing.assert_array_equal(images.read(0, 0, 16, 0, 16)[..., 0], image[:16, :16])


def test_a_truncated_file_is_told_when_it_is_read(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", values(64, 64), photometric="minisblack", metadata=None)
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: len(whole) // 2])
    with (
        pytest.raises(SegbenchError, match=r"a\.tif \(\d+ bytes\) cannot be read as TIFF: .*\n.*whole TIFF file\n"),
        TiffImages(tmp_path / "a.tif") as images,
    ):
        images.read(0)


def test_shapes_that_tifffile_notes_are_pages_not_channels(tmp_path):
    # An axis that nobody named is no channel.
    tifffile.imwrite(tmp_path / "a.tif", values(5, 16, 16), photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert json.loads(tiff.pages[0].description)["shape"] == [5, 16, 16]
    with TiffImages(tmp_path / "a.tif") as images:
        assert [images.shape(i) for i in range(len(images))] == [(16, 16, 1)] * 5


def test_resolution_and_geotiff_tags_are_told_as_the_writer_takes_them(tmp_path):
    geo = [
        (33550, "d", 3, (0.5, 0.5, 0.0), True),
        (33922, "d", 6, (0, 0, 0, 440720.0, 3751320.0, 0), True),
        (34735, "H", 4, (1, 1, 0, 0), True),
        (34737, "s", 0, "WGS 84 / UTM 11N|", True),
    ]
    options = {"photometric": "minisblack", "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", values(8, 9), resolution=(25400, 12700), extratags=geo, **options)
    with TiffImages(tmp_path / "a.tif") as images:
        tifffile.imwrite(tmp_path / "b.tif", values(8, 9), **images.placement, **options)
    for name in "ab":
        with tifffile.TiffFile(tmp_path / f"{name}.tif") as tiff:
            tags = tiff.pages[0].tags
            assert tags[33922].value == (0, 0, 0, 440720.0, 3751320.0, 0)
            assert tags[33550].value == (0.5, 0.5, 0.0)
            assert tags[34735].value == (1, 1, 0, 0)
            assert tags[34737].value == "WGS 84 / UTM 11N|"
            assert [tags[code].value for code in (282, 283)] == [(25400, 1), (12700, 1)]
            assert tiff.pages[0].resolutionunit == 2
    tifffile.imwrite(tmp_path / "c.tif", values(8, 9), photometric="minisblack")
    with TiffImages(tmp_path / "c.tif") as images:
        assert "extratags" not in images.placement


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(("stored", "axes"), [("separate", "CYX"), ("contig", "YXC")])
@pytest.mark.parametrize("metadata", [None, {}])
def test_axes_agree_with_samples_that_are_channels_already(tmp_path, compression, stored, axes, metadata):
    image_CHW = np.random.default_rng(0).integers(0, 255, (5, 12, 16), np.uint8)
    written = image_CHW if stored == "separate" else np.moveaxis(image_CHW, 0, -1)
    how = {"photometric": "minisblack", "planarconfig": stored, "compression": compression, "metadata": metadata}
    tifffile.imwrite(tmp_path / "a.tif", written, **how)
    for asked in (None, axes):
        with TiffImages(tmp_path / "a.tif", axes=asked) as images:
            assert len(images) == 1
            assert images.shape(0) == (12, 16, 5)
            assert np.array_equal(images.read(0), np.moveaxis(image_CHW, 0, -1))
            assert np.array_equal(images.read(0, 2, 9, 3, 8), np.moveaxis(image_CHW, 0, -1)[2:9, 3:8])


def _tiled(**options):
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 9, (40, 30), np.uint8)
    tifffile.imwrite(file, pixels, tile=(16, 16), **options)
    return file.getvalue()


def test_a_damaged_tile_of_lzw_is_refused_and_others_go_on(tmp_path):
    content = bytearray(_tiled(compression="lzw", predictor=True))
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        first, size = tiff.pages[0].dataoffsets[1], tiff.pages[0].databytecounts[1]
    rng = np.random.default_rng(0)
    for number in range(50):
        content[first : first + size] = rng.integers(0, 256, size, np.uint8).tobytes()
        content[first] = 0x80
        path = tmp_path / f"{number}.tif"
        path.write_bytes(content)
        with TiffImages(path) as images:
            with pytest.raises(SegbenchError, match="TIFF"):
                images.read(0)
            assert images.read(0, 0, 16, 0, 16).shape == (16, 16, 1)


def _directories(*nexts, side=1, tags=()):
    """A TIFF of directories with the tags of a square picture; each names the place of the next by its number."""
    tags = sorted(
        [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 1), *tags]
    )
    size = 2 + 12 * len(tags) + 4
    places = [8 + number * size for number in range(len(nexts))]
    content = struct.pack("<2sHI", b"II", 42, 8)
    for following in nexts:
        content += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        content += struct.pack("<I", 0 if following is None else places[following])
    return content


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (_directories(0), "in a circle"),
        (_directories(1, 2, 1), "in a circle"),
        (_directories(None, tags=[(330, 4, 100_000, 8)]) + bytes(400_000), "states 100,001 directories"),
    ],
)
def test_directories_in_a_circle_or_without_end_are_refused(content, why, tmp_path):
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(SegbenchError, match=why):
        TiffImages(tmp_path / "a.tif")


def test_images_that_share_few_bytes_are_refused_before_they_are_decoded(tmp_path):
    content = _directories(*range(1, 40), None, side=25_000, tags=[(259, 3, 1, 5)])
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(SegbenchError, match="declares 25,000,000,000 bytes"):
        TiffImages(tmp_path / "a.tif")


def test_an_unknown_compression_is_named(tmp_path):
    (tmp_path / "a.tif").write_bytes(_directories(None, tags=[(259, 3, 1, 5000)]))
    with TiffImages(tmp_path / "a.tif") as images, pytest.raises(SegbenchError, match="5000 is not a known"):
        images.read(0)
