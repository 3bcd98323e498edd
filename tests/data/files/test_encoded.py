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
