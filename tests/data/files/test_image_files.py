import io
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from segbench.data.files.image_files import images_of, open_images, read_image
from segbench.errors import SegbenchError


def values(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)


@pytest.mark.parametrize(
    ("mode", "shape"), [("L", (9, 7)), ("RGB", (9, 7, 3)), ("RGBA", (9, 7, 4))], ids=lambda v: v if v is str else None
)
def test_png_gives_its_channels_in_the_order_that_pillow_wrote(tmp_path, mode, shape):
    image = values(*shape)
    Image.fromarray(image, mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image.reshape(9, 7, -1))


def test_sixteen_bits_stay(tmp_path):
    image = values(9, 7, dtype=np.uint16) * 256
    Image.fromarray(image).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read[..., 0], image)


def test_sixteen_bit_colours_are_red_first(tmp_path):
    image = np.zeros((4, 5, 3), np.uint16)
    image[..., 2] = 60000
    assert cv2.imwrite(str(tmp_path / "a.png"), image)
    assert read_image(tmp_path / "a.png")[0, 0].tolist() == [60000, 0, 0]


def test_a_palette_is_replaced_by_its_colours(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(tmp_path / "a.png")
    expected = [[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [40, 50, 60]]]
    assert read_image(tmp_path / "a.png").tolist() == expected


def test_jpeg_is_decoded_as_by_pillow_and_never_turned(tmp_path):
    smooth = cv2.resize(values(3, 4, 3), (40, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95, exif=exif)
    with Image.open(tmp_path / "a.jpg") as reference:
        assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - np.asarray(reference)).max() <= 3


def test_tiff_pages_are_images_and_may_differ(tmp_path):
    pages = [values(9, 7), values(5, 6, dtype=np.uint16), values(4, 4, 3)]
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in pages:
            writer.write(page, metadata=None, photometric="rgb" if page.ndim == 3 else "minisblack")
    assert len(list(images_of(tmp_path / "a.tif"))) == 3
    for number, page in enumerate(pages):
        read = read_image(tmp_path / "a.tif", number)
        assert read.dtype == page.dtype
        np.testing.assert_array_equal(read, page.reshape(*page.shape[:2], -1))


def test_the_only_page_needs_no_number_and_several_do(tmp_path):
    tifffile.imwrite(tmp_path / "one.tif", values(9, 7))
    tifffile.imwrite(tmp_path / "two.TIFF", values(2, 9, 7))
    assert read_image(tmp_path / "one.tif").shape == (9, 7, 1)
    with pytest.raises(SegbenchError, match=r"two\.TIFF has 2 pages, requested is the only one\n.*one page\n.*split"):
        read_image(tmp_path / "two.TIFF")
    with pytest.raises(SegbenchError, match=r"has 2 pages, requested is 2\n.*0 to 1"):
        read_image(tmp_path / "two.TIFF", 2)
    Image.fromarray(values(4, 4)).save(tmp_path / "a.png")
    with pytest.raises(SegbenchError, match=r"a\.png has 1 page, requested is 1\n"):
        read_image(tmp_path / "a.png", 1)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"GIF89a" + b[6:]])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_damaged_files_are_named(tmp_path, name, damage):
    if name == "a.tif":
        tifffile.imwrite(tmp_path / name, values(40, 40), compression="zlib", rowsperstrip=4)
    else:
        Image.fromarray(values(40, 40)).save(tmp_path / name)
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    with pytest.raises(SegbenchError, match=rf"{name} (cannot be decoded )?\(\d+ bytes\).*\n.*a whole .*file\n"):
        read_image(tmp_path / name)


def test_a_missing_file_and_another_kind_are_told(tmp_path):
    Image.fromarray(values(4, 4)).save(tmp_path / "a.png")
    with pytest.raises(SegbenchError, match=r"no file .*b\.png; beside it: a\.png\n"):
        read_image(tmp_path / "b.png")
    with pytest.raises(SegbenchError, match=r"a\.xyz ends in \.xyz\n.*\.png \.jpg .*\.tiff .*\n"):
        open_images(tmp_path / "a.xyz")


def test_all_images_of_a_file_are_those_read_one_by_one(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in (values(9, 7), values(5, 6, dtype=np.uint16)):
            writer.write(page, metadata=None, photometric="minisblack")
    Image.fromarray(values(4, 3, 3)).save(tmp_path / "b.png")
    for name in ("a.tif", "b.png"):
        read = list(images_of(tmp_path / name))
        images = open_images(tmp_path / name)
        assert len(read) == len(images) == (2 if name == "a.tif" else 1)
        images.close()
        for page, image in enumerate(read):
            np.testing.assert_array_equal(image, read_image(tmp_path / name, page))
    with pytest.raises(SegbenchError, match=r"no file .*gone\.png"):
        next(images_of(tmp_path / "gone.png"))


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [*((".png", mode) for mode in ("1", "L", "P", "RGB", "RGBA")), *((".jpg", mode) for mode in ("L", "RGB", "CMYK"))],
)
def test_every_mode_is_read_as_opencv_reads_it_unchanged(tmp_path, suffix, mode):
    path = tmp_path / f"a{suffix}"
    smooth = Image.fromarray(cv2.resize(values(3, 4, 3), (40, 30))).convert(mode)
    smooth.save(path, progressive=True) if suffix == ".jpg" else smooth.save(path)
    reference = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if reference.ndim == 3:
        reference = reference[..., [2, 1, 0, 3][: reference.shape[2]]]
    np.testing.assert_array_equal(read_image(path), reference.reshape(30, 40, -1))


def test_a_colour_that_stands_for_transparency_makes_a_fourth_channel(tmp_path):
    image = np.zeros((4, 5, 3), np.uint8)
    image[0, 0] = 9, 8, 7
    Image.fromarray(image).save(tmp_path / "a.png", transparency=(9, 8, 7))
    read = read_image(tmp_path / "a.png")
    assert read[0, 0].tolist() == [9, 8, 7, 0] and read[1, 1].tolist() == [0, 0, 0, 255]


def png(width, height, pixels, chunks=b""):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunks
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


def tagged(content, tag, value):
    """A little-endian TIFF whose first page has another value of a tag."""
    (at,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, at)
    for place in range(at + 2, at + 2 + 12 * count, 12):
        if struct.unpack_from("<H", content, place)[0] == tag:
            return content[: place + 2] + struct.pack("<HII", 4, 1, value) + content[place + 12 :]
    raise KeyError(tag)


def tiff(**options):
    file = io.BytesIO()
    tifffile.imwrite(file, values(40, 30), **options)
    return file.getvalue()


BOMBS = {
    "a.png": png(60_000, 60_000, bytes(1000)),
    "a.bmp": b"BM" + struct.pack("<IIIIiiHH", 90, 0, 54, 40, 30_000, -30_000, 1, 24) + bytes(60),
    "a.gif": b"GIF89a" + struct.pack("<HH", 65_000, 65_000) + bytes(40),
    "a.webp": b"RIFF" + struct.pack("<I", 60) + b"WEBPVP8L" + struct.pack("<IBI", 48, 47, 2**28 - 1) + bytes(43),
    "a.jpg": b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03" + bytes(20) + b"\xff\xda" + bytes(20) + b"\xff\xd9",
    "strips.tif": tagged(tagged(tagged(tiff(compression="zlib"), 257, 60_000), 256, 60_000), 278, 4000),
    "rows.tif": tagged(tagged(tiff(compression="lzw", predictor=2), 257, 2**30), 278, 2**30),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_declares_more_than_it_can_hold_is_refused_before_memory_is_taken(tmp_path, name):
    (tmp_path / name).write_bytes(BOMBS[name])
    tracemalloc.start()
    try:
        with pytest.raises(SegbenchError, match=r"declares [\d,]+ bytes in memory|too large to decode|cannot be read"):
            list(images_of(tmp_path / name))
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_a_mask_of_15000_by_15000_is_no_bomb(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((15_000, 15_000), np.uint8))
    assert read_image(tmp_path / "a.png").shape == (15_000, 15_000, 1)


def test_a_chunk_that_ends_beyond_the_file_takes_no_memory(tmp_path):
    (tmp_path / "a.png").write_bytes(png(9, 9, bytes(90), b"\x7f\xff\xff\xfftEXt"))
    with pytest.raises(SegbenchError, match=r"a\.png cannot be decoded .*its chunk b'tEXt' ends beyond the file"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"II",
        b"II*\0",
        tagged(tiff(compression="lzw"), 278, 0),
        tagged(tiff(compression="lzw"), 258, 77),
        tagged(tiff(compression="zlib"), 277, 0),
        tagged(tiff(compression="zlib", tile=(16, 16)), 322, 0),
        tagged(tiff(), 257, 0),
        tagged(tiff(compression="zlib", predictor=2), 317, 9),
        tiff(compression="zlib", description='{"shape": [99999999999, 40, 30]}', metadata=None),
        tiff(compression="zlib", description='{"shape": ' + "[" * 5000, metadata=None),
    ],
)
def test_a_tiff_with_anything_inside_is_read_or_named(tmp_path, content):
    (tmp_path / "a.tif").write_bytes(content)
    try:
        for image in images_of(tmp_path / "a.tif"):
            assert image.ndim == 3
    except SegbenchError as error:
        assert "a.tif" in error.found
