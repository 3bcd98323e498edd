"""Objects from probabilities: by hand, beside scikit-image's watershed, and back from labels made of objects."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import label
from skimage.morphology import disk, local_maxima, reconstruction

from segbench.errors import SegbenchError
from segbench.metrics import Decoding, decode_instances, regions
from segbench.metrics.decoding import watershed


def probabilities(classes_HW, classes=3):
    """Certain ones."""
    return np.eye(classes, dtype=np.float32)[np.asarray(classes_HW)].transpose(2, 0, 1)


def discs(seed, count=12, shape=(80, 90)):
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    for _ in range(count):
        centre = int(rng.integers(0, shape[1])), int(rng.integers(0, shape[0]))
        cv2.circle(mask, centre, int(rng.integers(4, 14)), 1, -1)
    return mask


def dumbbell(gap=20, radius=10):
    mask = np.zeros((40, 80), np.uint8)
    for x in (30 - gap // 2, 30 + gap // 2 + gap % 2):
        cv2.circle(mask, (x, 20), radius, 1, -1)
    return mask


def test_components_by_hand():
    classes = [[1, 1, 0, 1], [0, 0, 1, 1], [1, 0, 0, 2]]
    assert decode_instances(probabilities(classes), Decoding()).tolist() == [[1, 1, 0, 2], [0, 0, 2, 2], [3, 0, 0, 0]]


def test_the_result_is_int32_also_without_an_object():
    nothing = decode_instances(probabilities(np.zeros((3, 4), int)), Decoding("watershed", grow=2, fill_holes=True))
    assert nothing.dtype == np.int32
    assert not nothing.any()


def test_a_threshold_is_strict_and_lies_on_the_cell_probability():
    prob = np.array([[[0.5, 0.4, 0.7]], [[0.4, 0.5, 0.2]], [[0.1, 0.1, 0.1]]], np.float32)
    assert decode_instances(prob, Decoding(threshold=0.4)).tolist() == [[0, 1, 0]]
    assert decode_instances(prob, Decoding(threshold=0.3)).tolist() == [[1, 1, 0]]
    assert decode_instances(prob, Decoding()).tolist() == [[0, 1, 0]]


def test_small_objects_are_left_out_and_the_others_numbered_anew():
    classes = [[1, 0, 1, 1, 0, 1, 1, 1]]
    assert decode_instances(probabilities(classes), Decoding(min_size=2)).tolist() == [[0, 0, 1, 1, 0, 2, 2, 2]]


def test_border_pixels_go_to_the_nearest_object_in_reach():
    classes = [[1, 2, 2, 2, 1, 0, 2, 0, 1, 2]]
    grown = decode_instances(probabilities(classes), Decoding(grow=1))
    # Background between stays; so does a border pixel that is two pixels from both.
    assert grown.tolist() == [[1, 1, 0, 2, 2, 0, 0, 0, 3, 3]]


def test_a_hole_of_one_object_is_filled_and_another_object_in_it_is_kept():
    classes = np.ones((9, 9), int)
    classes[2:7, 2:7] = 0
    classes[4, 4] = 1
    filled = decode_instances(probabilities(classes), Decoding(fill_holes=True))
    assert filled[4, 4] == 2
    assert (np.delete(filled.ravel(), 40) == 1).all()
    assert (decode_instances(probabilities(classes), Decoding())[2:7, 2:7] == 0).sum() == 24


def test_a_bay_is_no_hole():
    classes = np.array([[1, 1, 1], [1, 0, 0], [1, 1, 1]])
    assert decode_instances(probabilities(classes), Decoding(fill_holes=True))[1, 1] == 0


def test_the_watershed_cuts_a_dumbbell_at_its_neck():
    mask = dumbbell()
    assert regions(mask).max() == 1
    cut = watershed(mask)
    assert cut.max() == 2
    assert ((cut > 0) == (mask > 0)).all()
    # The neck is at x = 30: both halves are mirror images but for the pixels on it.
    assert set(np.unique(cut[:, :30])) == {0, 1}
    assert set(np.unique(cut[:, 31:])) == {0, 2}


def test_depth_is_the_dynamic_of_the_flatter_bulge():
    mask = dumbbell(gap=14)
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    dynamic = float(distance.max() - distance[20, 30])
    assert watershed(mask, dynamic - 0.01).max() == 2
    assert watershed(mask, dynamic + 0.01).max() == 1


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("depth", [0.7, 1.5, 3.0])
def test_as_many_objects_as_scikit_image_finds_summits(seed, depth):
    mask = discs(seed)
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).astype(np.float64)
    # Not h_maxima, which marks two summits of one height that a shallow saddle joins.
    lowered = np.maximum(distance - depth, 0)
    summits = label(local_maxima(reconstruction(lowered, distance, footprint=disk(1)), connectivity=1), connectivity=1)
    cut = watershed(mask, depth)
    assert cut.max() == summits.max()
    assert len(np.unique(cut[summits > 0])) == summits.max()  # one in each


@given(seed=st.integers(0, 10**6), depth=st.floats(0, 5))
def test_a_watershed_parts_the_mask_into_connected_pieces(seed, depth):
    mask = discs(seed, count=8, shape=(40, 45))
    cut = watershed(mask, depth)
    assert ((cut > 0) == (mask > 0)).all()
    assert (regions(mask)[cut > 0] > 0).all()
    for number in range(1, cut.max() + 1):
        assert regions(cut == number).max() == 1
    assert watershed(mask, np.inf).max() == regions(mask).max()


def test_a_mask_without_an_outside():
    assert (watershed(np.ones((5, 6), np.uint8)) == 1).all()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"method": "level sets"}, "decoding.method=level sets"),
        ({"threshold": 1.0}, "decoding.threshold=1.0"),
        ({"depth": -1.0}, "decoding.depth=-1.0"),
        ({"grow": float("inf")}, "decoding.grow=inf"),
        ({"min_size": -3}, "decoding.min_size=-3"),
    ],
)
def test_values_out_of_range(change, found):
    with pytest.raises(SegbenchError, match=found):
        Decoding(**change)


def test_a_class_that_is_not_there():
    with pytest.raises(SegbenchError, match="cell_class=2 for 2 classes"):
        decode_instances(probabilities([[0, 1]], 2), Decoding(cell_class=2))
