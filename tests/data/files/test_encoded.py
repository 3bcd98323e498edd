import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segbench.data.files.encoded import decode, decode_palette, read_bytes
from segbench.data.files.image_files import read_image
from segbench.data.files.labelled import read_indices
from segbench.errors import SegbenchError


def palette_png(indices_HW, **options):
    image = Image.fromarray(indices_HW)
    image.putpalette([(7 * value + channel) % 256 for value in range(256) for channel in range(3)])
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


@given(bits=st.sampled_from([1, 2, 4, 8]), data=st.data())
def test_indices_are_those_that_pillow_reads(bits, data):
    width = data.draw(st.integers(1, 9))
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=width, max_size=width))
    content = palette_png(np.array([values], np.uint8), bits=bits)
    indices_HW, colours_K3 = decode_palette(None, content)
    with Image.open(io.BytesIO(content)) as image:
        np.testing.assert_array_equal(indices_HW, np.asarray(image))
        np.testing.assert_array_equal(colours_K3[indices_HW], np.asarray(image.convert("RGB")))


def test_only_a_palette_png_has_a_palette():
    for suffix in (".png", ".bmp", ".jpg"):
        assert decode_palette(None, cv2.imencode(suffix, np.zeros((4, 4), np.uint8))[1].tobytes()) is None


@given(at=st.integers(33, 90), bit=st.integers(0, 7))
def test_a_damaged_palette_png_is_refused_or_right(at, bit):
    indices_HW = np.arange(64, dtype=np.uint8).reshape(8, 8)
    content = bytearray(palette_png(indices_HW, bits=8))
    at += content.index(b"IDAT")
    content[min(at, len(content) - 1)] ^= 1 << bit
    try:
        found = decode_palette("a.png", bytes(content))
    except SegbenchError as error:
        assert "a.png cannot be decoded" in str(error)
    else:
        np.testing.assert_array_equal(found[0], indices_HW)


def test_a_fault_names_the_image_where_there_is_one(tmp_path):
    with pytest.raises(SegbenchError, match=r"a\.png cannot be read: No such.*\n.*this user may read"):
        read_bytes(tmp_path / "a.png")
    with pytest.raises(SegbenchError, match=r"a\.png, of image x, cannot be read: No such.*\n.*in the data set"):
        read_bytes(tmp_path / "a.png", "x")
    with pytest.raises(SegbenchError, match=r"a\.png cannot be decoded \(0 bytes\): no image.*\n.*whole image file"):
        decode(tmp_path / "a.png", b"", cv2.IMREAD_UNCHANGED)
    with pytest.raises(SegbenchError, match=r"a\.png, of image x, cannot be decoded \(3 bytes\)(.|\n)*data check"):
        decode(tmp_path / "a.png", b"abc", cv2.IMREAD_UNCHANGED, "x")


def test_black_and_white_is_no_label(tmp_path):
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "a.png")
    with pytest.raises(SegbenchError, match=r"a\.png, of image a, is one bit per pixel\n.*8-bit palette or grey"):
        read_indices(tmp_path / "a.png", "a")


@pytest.mark.parametrize("suffix", ["png", "webp", "gif"])
def test_an_animation_is_refused_and_one_frame_is_a_picture(tmp_path, suffix):
    frames = [Image.fromarray(np.full((8, 9), level, np.uint8)) for level in (0, 90, 200)]
    frames[0].save(tmp_path / f"one.{suffix}")
    frames[0].save(tmp_path / f"all.{suffix}", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / f"one.{suffix}").shape[:2] == (8, 9)
    with pytest.raises(SegbenchError, match="is an animation of 3 frames"):
        read_image(tmp_path / f"all.{suffix}")


_ASKED = (
    cv2.IMREAD_UNCHANGED,
    cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION,
    cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION,
)


def smooth(height=48, width=64):
    y, x = np.mgrid[:height, :width]
    return np.stack([2 * x + y, 255 - 3 * y, (x * y) // 12], axis=-1).clip(0, 255).astype(np.uint8)


def jpeg(image=None, **options):
    file = io.BytesIO()
    Image.fromarray(smooth() if image is None else image).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("flags", _ASKED)
@pytest.mark.parametrize("size", [(48, 64), (33, 17), (1, 9), (1, 1)])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"restart_marker_blocks": 2}, None]
)
def test_jpeg_has_the_values_that_opencv_reads(flags, size, options):
    image = smooth(*size)
    content = jpeg(image[..., 0]) if options is None else jpeg(image, **options)
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    found = decode("a.jpg", content, flags)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def scan_of(content):
    """Where the coded pixels of a JPEG begin."""
    return content.rindex(b"\xff\xda") + 14


def test_a_jpeg_damaged_inside_is_refused_and_a_padded_one_is_not(tmp_path, capfd):
    content = jpeg()
    half = (scan_of(content) + len(content)) // 2
    cut_out = content[:half] + content[-60:]
    hole = content[:half] + bytes(60) + content[half + 60 :]
    unused = content[:-2] + bytes(range(1, 40)) + content[-2:]
    for damaged in (cut_out, hole, unused):
        (tmp_path / "a.jpg").write_bytes(damaged)
        with pytest.raises(SegbenchError, match=r"a\.jpg cannot be decoded \(\d+ bytes\): .*Corrupt JPEG data"):
            read_image(tmp_path / "a.jpg")
    for padding in (bytes(3), b"\x20" * 5):
        (tmp_path / "a.jpg").write_bytes(content[:-2] + padding + content[-2:])
        np.testing.assert_array_equal(
            read_image(tmp_path / "a.jpg"), cv2.cvtColor(cv2.imdecode(np.frombuffer(content, np.uint8), 1), 4)
        )
    # The reference's own is not counted.
    assert "Corrupt" not in capfd.readouterr().err


@pytest.mark.parametrize("flags", _ASKED)
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1"])
def test_a_png_is_read_without_its_profiles_and_text(flags, mode, capfd):
    from PIL import PngImagePlugin

    image, text, plain, told = (
        Image.fromarray(smooth()).convert(mode),
        PngImagePlugin.PngInfo(),
        io.BytesIO(),
        io.BytesIO(),
    )
    text.add_text("a", "b")
    image.save(plain, "PNG")
    # A profile that libpng complains of.
    image.save(told, "PNG", icc_profile=b"none" * 50, pnginfo=text, dpi=(99, 99))
    expected = cv2.imdecode(np.frombuffer(plain.getvalue(), np.uint8), flags)
    np.testing.assert_array_equal(decode("a.png", told.getvalue(), flags), expected)
    assert capfd.readouterr().err == ""


def test_a_png_damaged_inside_is_refused_in_one_sentence(tmp_path, capfd):
    content = bytearray(cv2.imencode(".png", smooth())[1].tobytes())
    content[content.index(b"IDAT") + 200] ^= 1
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(SegbenchError, match=r"chunk IDAT is not what its check sum says"):
        read_image(tmp_path / "a.png")
    assert capfd.readouterr().err == ""
