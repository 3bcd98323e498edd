from pathlib import Path

import numpy as np
import pytest

from segbench.data.files.statements import Decoded, empty_pixels
from segbench.data.nyudv2 import MODALITIES, log_depth
from segbench.data.pascal_voc import voc_palette
from segbench.errors import SegbenchError
from segbench.prediction.values import LOG_DEPTH, check_kind, check_range, in_unit
from segbench.spec import ModalitySpec

PATH = Path("a.tif")


def unit(text, channels=1):
    return ModalitySpec(channels, (0.0,) * channels, (1.0,) * channels, text)


GREY, RGB = unit("grey level, 0 to 255"), unit("R, G, B, 0 to 255", 3)
SIXTEEN, FREE = unit("value, 0 to 65535"), unit("counts")
FLOAT, BIT, SIGNED = unit("value, float32"), unit("value, 0 or 1"), unit("value, -32768 to 32767")


def check(image, spec):
    check_kind(PATH, image.shape[2], image.dtype, "em", spec)
    check_range(PATH, Decoded(image, empty_pixels(image, ())), spec)


def image(low, high, dtype, channels=1):
    values = np.full((4, 5, channels), low, dtype)
    values[2, 2] = high
    return values


@pytest.mark.parametrize(
    ("given", "spec"),
    [
        (image(0, 255, np.uint8), GREY),
        (image(0, 1, np.uint8), GREY),
        (image(0, 255, np.uint16), GREY),
        (image(0, 255, np.float32), GREY),
        (image(0, 0, np.float32), GREY),
        (image(0, 255, np.uint8, 3), RGB),
        (image(0, 255, np.uint8, 4), RGB),
        (image(0, 255, np.uint8, 1), RGB),
        (image(0, 65535, np.uint16), SIXTEEN),
        (image(0, 2000, np.float32), SIXTEEN),
        (image(-1e6, 1e6, np.float32), FREE),
        (image(0, 1, np.float64), FREE),
        (image(0, 65535, np.uint16), unit(LOG_DEPTH)),
        (image(-1, 1, np.float64), FLOAT),
        (image(0, 1, bool), BIT),
        (image(0, 1, np.uint8), BIT),
        (image(-32768, 32767, np.int16), SIGNED),
        (image(0, 32767, np.uint16), SIGNED),
    ],
)
def test_images_of_the_runs_scale_are_taken(given, spec):
    check(given, spec)


@pytest.mark.parametrize(
    ("given", "spec", "told"),
    [
        (image(0, 4000, np.uint16), GREY, r"a\.tif holds values from 0 to 4000 \(uint16\)\n.*255, as .*\n.*8 bits"),
        (image(-3, 3, np.float32), GREY, r"values from -3 to 3 \(float32\)"),
        (image(0, 1, np.float32), GREY, r"values from 0 to 1 \(float32\)\n.*0 to 255.*\n.*multiply it by 255"),
        (image(0, 0.5, np.float64, 3), RGB, r"to 0\.5 \(float64\)\n.*R, G, B, 0 to 255.*\n.*multiply it by 255"),
        (image(0, 1, np.float32), SIXTEEN, r"multiply it by 65535"),
        (image(0, 70000, np.int32), SIXTEEN, r"values from 0 to 70000 \(int32\)\n.*\n.*first to 0 to 65535"),
        (image(np.nan, np.inf, np.float32), FLOAT, r"values from inf"),
        (image(0, 255, np.uint8), BIT, r"values from 0 to 255 \(uint8\)\n.*0 or 1, as"),
        (image(0, 40000, np.uint16), SIGNED, r"values from 0 to 40000 \(uint16\)\n.*\n.*first to -32768 to 32767"),
        (image(0, np.inf, np.float32), FREE, r"values from 0 to inf"),
    ],
)  # fmt: skip
def test_values_of_another_scale_are_refused(given, spec, told):
    with pytest.raises(SegbenchError, match=told):
        check(given, spec)


@pytest.mark.parametrize(
    ("given", "spec", "told"),
    [
        (image(0, 1, bool), GREY, r"holds values of type bool\n.*grey level, 0 to 255, as the network was trained\n"),
        (image(0, 9, np.uint8), SIXTEEN, r"holds values of type uint8\n.*0 to 65535"),
        (image(0, 9, np.complex64), FREE, r"holds values of type complex64"),
        (image(0, 9, np.uint8), FLOAT, r"holds values of type uint8\n.*value, float32, as"),
        (image(0, 9, np.int8), SIGNED, r"holds values of type int8\n"),
        (image(0, 9, np.uint8, 3), GREY, r"has 3 channels\n.*1 \(em, grey level, 0 to 255\)\n.*convert it"),
        (image(0, 9, np.uint8, 2), RGB, r"has 2 channels\n.*3 \(em, R, G, B, 0 to 255\)"),
        (image(0, 9, np.uint8, 4), unit("levels, 0 to 255", 3), r"has 4 channels\n"),
        (image(0, 9, np.uint8), unit(LOG_DEPTH), r"has 1 channels of uint8\n.*16-bit channel, depth in millimetres"),
        (image(0, 9, np.uint16, 3), unit(LOG_DEPTH), r"has 3 channels of uint16\n"),
    ],
)
def test_another_kind_of_image_is_refused_by_its_header(given, spec, told):
    with pytest.raises(SegbenchError, match=told):
        check_kind(PATH, given.shape[2], given.dtype, "em", spec)


def test_a_dark_part_of_a_large_image_is_no_fraction():
    check_range(PATH, Decoded(image(0, 1, np.float32)), GREY, whole=False)


def test_depth_becomes_what_the_data_set_makes_of_it():
    depth = np.array([[[0], [1000]], [[2550], [65535]]], np.uint16)
    np.testing.assert_array_equal(in_unit(depth, MODALITIES["depth"]), log_depth(depth[..., 0]))


def test_colours_become_what_the_data_sets_decode():
    grey = np.array([[[7], [9]]], np.uint8)
    np.testing.assert_array_equal(in_unit(grey, RGB), np.repeat(grey, 3, axis=2))
    rgba = np.array([[voc_palette()[1] + (50,)]], np.uint8)
    assert in_unit(rgba, RGB).tolist() == [[list(voc_palette()[1])]]
    assert in_unit(grey, GREY).shape == (1, 2)


def test_types_that_opencv_cannot_split_become_float():
    assert in_unit(np.full((2, 3, 2), 7, np.uint32), unit("counts", 2)).dtype == np.float32
    assert in_unit(np.full((2, 3, 2), 7, np.uint16), unit("counts", 2)).dtype == np.uint16
