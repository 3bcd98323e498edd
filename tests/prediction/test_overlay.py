import numpy as np
import pytest

from segbench.prediction.overlay import Brush, as_picture, backdrop, grey_range
from segbench.spec import HeadSpec


def test_classes_are_tinted_outlined_and_black_ones_left_alone():
    head = HeadSpec(("background", "cat"), ((0, 0, 0), (200, 0, 100)))
    label = np.zeros((5, 5), np.uint8)
    label[1:4, 1:4] = 1
    picture = np.full((5, 5, 3), 100, np.uint8)
    drawn = Brush(head, 0.25).draw(picture, label)
    assert drawn[0, 0].tolist() == [100, 100, 100]
    # A quarter of the way from 100 to 200, 0 and 100.
    assert drawn[2, 2].tolist() == [125, 75, 100]
    assert (drawn[label == 1].reshape(3, 3, 3)[[0, 0, 2, 1], [0, 1, 2, 0]] == [200, 0, 100]).all()


@pytest.mark.parametrize("opacity", [0, 1])
def test_opacity_goes_from_outlines_alone_to_flat_colour(opacity):
    head = HeadSpec(("a", "b"), ((10, 200, 10), (200, 10, 10)))
    picture = np.full((4, 4, 3), 50, np.uint8)
    drawn = Brush(head, opacity).draw(picture, np.ones((4, 4), np.uint8))
    assert (drawn == ([200, 10, 10] if opacity else 50)).all()


def test_white_and_grey_classes_get_hues_that_are_seen_on_grey():
    head = HeadSpec(("membrane", "cell", "other"), ((0, 0, 0), (255, 255, 255), (128, 128, 128)))
    drawn = Brush(head, 1).draw(np.zeros((1, 3, 3), np.uint8), np.array([[0, 1, 2]], np.uint8))[0]
    assert drawn[0].tolist() == [0, 0, 0]
    assert all(int(colour.max()) - int(colour.min()) > 200 for colour in drawn[1:])
    assert drawn[1].tolist() != drawn[2].tolist()


def test_8_bit_images_are_drawn_as_they_are_and_others_between_their_percentiles():
    grey = np.array([[3, 250]], np.uint8)
    assert grey_range(grey) is None
    assert as_picture(grey, None).tolist() == [[[3] * 3, [250] * 3]]
    deep = np.linspace(1000, 2000, 101, dtype=np.float32)[None]
    levels = grey_range(deep)
    assert levels == pytest.approx((1010, 1990))
    picture = as_picture(deep, levels)[0, :, 0]
    assert (picture[0], picture[50], picture[100]) == (0, 128, 255)
    assert grey_range(np.full((2, 2), 7.0))[1] > 7


def test_of_many_channels_three_are_drawn():
    assert as_picture(np.zeros((2, 2, 5), np.uint8), None).shape == (2, 2, 3)
    assert as_picture(np.arange(8, dtype=np.uint8).reshape(2, 2, 2), None)[0, 1].tolist() == [2, 2, 2]


def test_the_modality_with_colours_is_drawn_on(spec):
    assert backdrop(spec("depth", "rgb")) == "rgb"
    assert backdrop(spec("depth", "em")) == "depth"
