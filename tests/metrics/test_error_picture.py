"""The overlay of splits and merges."""

import numpy as np
import pytest

from segbench.errors import SegbenchError
from segbench.metrics import overlay
from segbench.metrics.error_picture import COLOURS
from segbench.metrics.mismatches import HOLE_ADDITION, MERGE, SPLIT


def test_a_merge_is_marked_and_ringed():
    raw, mismatch = np.linspace(5, 9, 41 * 41).reshape(41, 41), np.zeros((41, 41), np.uint8)
    mismatch[20, 20] = MERGE
    picture = overlay(raw, mismatch)
    assert (picture.shape, picture.dtype) == ((41, 41, 3), np.uint8)
    red = (picture == COLOURS[MERGE]).all(-1)
    assert red[19:22, 19:22].all()
    assert red[20, 15] and red[15, 20]
    assert not red[20, 17]  # what lies inside the ring stays visible
    # Elsewhere the image, in grey from its smallest to its largest value.
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert picture[-1, -1].tolist() == [255, 255, 255]


def test_splits_and_merges_are_drawn_over_the_rest():
    mismatch = np.full((30, 30), HOLE_ADDITION, np.uint8)
    mismatch[10, 10], mismatch[20, 20] = SPLIT, MERGE
    picture = overlay(np.zeros((30, 30)), mismatch)
    assert tuple(picture[10, 10]) == COLOURS[SPLIT]
    assert tuple(picture[20, 20]) == COLOURS[MERGE]
    assert tuple(picture[0, 29]) == COLOURS[HOLE_ADDITION]


def test_a_flat_image_and_no_mismatch():
    assert not overlay(np.full((4, 5), 7), np.zeros((4, 5), np.uint8)).any()


def test_shapes_must_agree():
    with pytest.raises(SegbenchError, match=r"shape \(4, 5, 3\) and a mismatch map of shape \(4, 5\)"):
        overlay(np.zeros((4, 5, 3)), np.zeros((4, 5), np.uint8))
