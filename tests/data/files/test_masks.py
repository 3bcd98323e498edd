import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from segbench.data.files.masks import masks_of, read_mask
from segbench.errors import SegbenchError

IDS = np.array([[0, 1, 2], [2, 1, 7]], np.uint8)


def save(path, array, mode=None, palette=None, **options):
    image = Image.fromarray(np.asarray(array))
    if mode:
        image = image.convert(mode)
    if palette is not None:
        image.putpalette(palette)
    image.save(path, **options)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64])
def test_values_of_one_channel_are_ids(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", IDS.astype(dtype))
    mask = read_mask(tmp_path / "a.tif")
    assert mask.kind == "ids"
    np.testing.assert_array_equal(mask.codes_HW, IDS)
    assert np.issubdtype(mask.codes_HW.dtype, np.integer)


def test_one_bit_is_zero_and_one_in_tiff_and_the_whole_range_in_png(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", IDS > 1, photometric="minisblack")
    assert read_mask(tmp_path / "a.tif").codes_HW.tolist() == [[0, 0, 1], [1, 0, 1]]
    save(tmp_path / "a.png", IDS > 1)
    assert read_mask(tmp_path / "a.png").codes_HW.tolist() == [[0, 0, 255], [255, 0, 255]]


def test_negative_values_stay(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", IDS.astype(np.int16) - 1)
    assert read_mask(tmp_path / "a.tif").codes_HW.min() == -1


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_indices_are_kept_and_the_colours_told(tmp_path, bits):
    indices = np.array([[0, 1], [1, 0]], np.uint8)
    palette = [10, 20, 30, 200, 100, 0]
    save(tmp_path / "a.png", indices, palette=palette, bits=bits)
    mask = read_mask(tmp_path / "a.png")
    assert mask.kind == "palette"
    np.testing.assert_array_equal(mask.codes_HW, indices)
    assert mask.palette[:2] == (0x0A141E, 0xC86400)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_colours_become_one_number(tmp_path, suffix):
    colours = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [1, 2, 3]]], np.uint8)
    path = save(tmp_path / f"a{suffix}", colours)
    mask = read_mask(path)
    assert mask.kind == "colours"
    assert mask.codes_HW.tolist() == [[0xFF0000, 0x00FF00], [0x0000FF, 0x010203]]


def test_opaque_alpha_and_sixteen_bits_of_eight_say_nothing_more(tmp_path):
    colours = np.array([[[255, 0, 0, 255], [9, 8, 7, 255]]], np.uint8)
    save(tmp_path / "a.png", colours)
    assert read_mask(tmp_path / "a.png").codes_HW.tolist() == [[0xFF0000, 0x090807]]
    cv2.imwrite(str(tmp_path / "b.png"), colours[..., 2::-1].astype(np.uint16) * 257)
    assert read_mask(tmp_path / "b.png").codes_HW.tolist() == [[0xFF0000, 0x090807]]


def test_pages_of_a_stack(tmp_path):
    stack = np.stack([IDS, IDS[::-1]])
    tifffile.imwrite(tmp_path / "a.tif", stack, metadata=None, photometric="minisblack")
    assert [mask.codes_HW.tolist() for mask in masks_of(tmp_path / "a.tif")] == stack.tolist()
    assert read_mask(tmp_path / "a.tif", 1).codes_HW.tolist() == IDS[::-1].tolist()


def test_lossy_and_transparent_masks_are_refused(tmp_path):
    path = save(tmp_path / "a.jpg", IDS)
    with pytest.raises(SegbenchError, match=r"a\.jpg is a JPEG, whose compression changes[^\n]*\n.*PNG or TIFF"):
        read_mask(path)
    path = save(tmp_path / "b.png", np.zeros((2, 2, 4), np.uint8))
    with pytest.raises(SegbenchError, match=r"b\.png is transparent in places"):
        read_mask(path)


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((4, 5, 2), np.uint8), "has 2 channels"),
        (np.full((4, 5), 0.25, np.float32), r"has 20 values that are not integers, such as 0\.25"),
        (np.array([[np.nan, 1]], np.float32), "has 1 values that are not integers, such as nan"),
        (np.full((4, 5, 3), 1000, np.uint16), "has colours of type uint16"),
    ],
    ids=["channels", "probabilities", "nan", "colours"],
)
def test_what_is_no_mask_is_refused(tmp_path, array, found):
    photometric = "rgb" if array.shape[2:] == (3,) else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", array, photometric=photometric, planarconfig="contig")
    with pytest.raises(SegbenchError, match=rf"a\.tif {found}"):
        read_mask(tmp_path / "a.tif")


def test_a_cut_palette_png_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 250, (60, 60), dtype=np.uint8)
    path = save(tmp_path / "a.png", noise, palette=list(range(250)) * 3)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(SegbenchError, match=r"a\.png cannot be decoded"):
        read_mask(path)
