import cv2
import numpy as np
import pytest

from segbench.display.panels import (
    RIGHT,
    VOID_GREY,
    WRONG_FALSE,
    WRONG_MISSED,
    colour_labels,
    draw_panel,
    draw_sample,
    error_map,
    grey_to_rgb,
    montage,
    write_png,
)
from segbench.metrics import ImageResult
from segbench.spec import HeadSpec

CELLS = HeadSpec(("membrane", "cell"), ((0, 0, 0), (255, 255, 255)))
SCENE = HeadSpec(("sky", "road", "tree"), ((0, 0, 255), (128, 128, 128), (0, 255, 0)))
LABEL = np.array([[0, 1, 1, 255]])
PRED = np.array([[1, 1, 0, 1]])


def pixels(picture):
    return [tuple(pixel) for pixel in picture[0].tolist()]


def test_errors_of_two_classes_are_told_apart():
    assert pixels(error_map(LABEL, PRED, CELLS)) == [WRONG_FALSE, RIGHT, WRONG_MISSED, VOID_GREY]


def test_errors_of_more_classes_are_red():
    assert pixels(error_map(LABEL, PRED, SCENE)) == [WRONG_FALSE, RIGHT, WRONG_FALSE, VOID_GREY]


def test_labels_bear_the_palette_and_void_is_grey():
    assert pixels(colour_labels(np.array([[2, 0, 255]]), SCENE)) == [(0, 255, 0), (0, 0, 255), VOID_GREY]


def test_a_raw_image_is_stretched_whatever_its_unit():
    depth = np.linspace(1.0, 9.0, 1000, dtype=np.float32).reshape(1, 20, 50)
    shown = grey_to_rgb(depth)
    assert (shown.shape, shown.dtype, shown.min(), shown.max()) == ((20, 50, 3), np.uint8, 0, 255)
    assert grey_to_rgb(np.full((1, 4, 4), 7.0, np.float32)).shape == (4, 4, 3)


def test_colours_stay_colours():
    raw = np.zeros((3, 10, 10), np.float32)
    raw[0] = 255
    assert pixels(grey_to_rgb(raw))[0] == (255, 0, 0)


@pytest.mark.parametrize("prob", [None, np.full((2, 40, 50), 0.5, np.float32)], ids=["classes", "probability"])
def test_a_panel_is_four_pictures_in_a_row_and_a_probability(prob):
    label = np.zeros((40, 50), np.int64)
    panel = draw_panel(np.zeros((1, 40, 50), np.float32), ImageResult(label, label, prob), CELLS, "x")
    # Enlarged eightfold to 320 pixels, captions of 24 above, gaps of 6 between.
    count = 4 if prob is None else 5
    assert panel.shape == (24 + 8 * 40, count * 8 * 50 + (count - 1) * 6, 3)
    assert panel.dtype == np.uint8
    third = panel[24 + 5, 2 * (400 + 6) + 5]
    assert third.tolist() == ([0] * 3 if prob is None else [127] * 3)
    assert panel[24 + 5, (count - 2) * (400 + 6) + 5].tolist() == [0] * 3


def test_a_sample_shows_its_weight_where_it_has_one():
    raw, label = np.zeros((1, 40, 50), np.float32), np.zeros((40, 50), np.int64)
    weight = np.ones((40, 50), np.float32)
    weight[0, 0] = 9
    plain, weighted = draw_sample(raw, label, None, CELLS, "x"), draw_sample(raw, label, weight, CELLS, "x")
    assert (plain.shape[1], weighted.shape[1]) == (2 * 400 + 6, 3 * 400 + 2 * 6)
    red, _, blue = weighted[24, 2 * 406].tolist()
    assert red > blue


def test_large_pictures_are_not_enlarged():
    assert montage([np.zeros((400, 330, 3), np.uint8)], ["x"]).shape == (424, 330, 3)


def test_a_png_comes_back_as_it_was(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    write_png(tmp_path / "a" / "b.png", picture)
    read = cv2.cvtColor(cv2.imread(str(tmp_path / "a" / "b.png")), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(read, picture)
