"""Objects from probabilities: by hand, beside scikit-image's watershed, and back from labels made of objects."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import label
from skimage.morphology import disk, local_maxima, reconstruction
from skimage.segmentation import watershed as reference_watershed

from segbench.errors import SegbenchError
from segbench.metrics import Decoding, decode_instances, regions
from segbench.metrics.decoding import flood_from, from_cores, watershed


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


def test_an_object_is_divided_among_its_cores_at_the_neck():
    mask = dumbbell()
    seeds = np.zeros_like(mask, np.int32)
    # The flood of the right core begins first; each still gets its own half.
    seeds[20, 15], seeds[20, 40] = 7, 3
    cut = from_cores(mask, seeds)
    assert ((cut > 0) == (mask > 0)).all()
    assert set(np.unique(cut[:, :30])) == {0, 1}
    assert set(np.unique(cut[:, 31:])) == {0, 2}
    # One core, one object; so is an object without any.
    seeds[20, 40] = 0
    assert from_cores(mask, seeds).max() == 1
    assert (from_cores(mask, np.zeros_like(seeds)) == mask).all()
    # A core outside does not count.
    seeds[0, 0] = 5
    assert from_cores(mask, seeds).max() == 1


def test_cores_in_a_mask_without_an_outside_share_it_evenly():
    seeds = np.zeros((3, 8), np.int32)
    seeds[1, 0], seeds[1, 7] = 1, 2
    assert from_cores(np.ones((3, 8), np.uint8), seeds).tolist() == [[1] * 4 + [2] * 4] * 3


@pytest.mark.parametrize("seed", range(10))
def test_a_flood_from_seeds_is_scikit_images_watershed(seed):
    rng = np.random.default_rng(seed)
    # No two pixels of one height, whose order is each one's own affair.
    heights = rng.permutation(30 * 40).reshape(30, 40).astype(np.float32)
    mask = (rng.random((30, 40)) < 0.8).astype(np.uint8)
    seeds = np.zeros((30, 40), np.int32)
    seeds.ravel()[rng.choice(1200, 6, replace=False)] = np.arange(1, 7)
    seeds *= mask
    expected = reference_watershed(-heights, seeds, mask=mask, connectivity=1)
    assert (flood_from(heights, mask, seeds) == expected).all()


@given(seed=st.integers(0, 10**6))
def test_from_cores_parts_a_mask_into_connected_pieces_with_one_core_each(seed):
    mask = discs(seed, count=8, shape=(40, 45))
    points = np.random.default_rng(seed).choice(mask.size, 9, replace=False)
    seeds = np.zeros(mask.shape, np.int32)
    seeds.ravel()[points] = np.arange(1, 10)
    cut = from_cores(mask, seeds)
    assert ((cut > 0) == (mask > 0)).all()
    for number in range(1, cut.max() + 1):
        assert regions(cut == number).max() == 1
        assert np.count_nonzero(seeds[cut == number]) <= 1
    inside = seeds[mask > 0]
    assert len(np.unique(cut[(seeds > 0) & (mask > 0)])) == np.count_nonzero(inside)


def test_a_core_is_part_of_its_cell_for_every_method():
    # Classes background, cell, border, core; P(cell) + P(core) decides what is cell.
    prob = np.array(
        [
            [[0.1, 0.4, 0.1, 0.1, 0.6]],
            [[0.5, 0.3, 0.1, 0.5, 0.1]],
            [[0.1, 0.0, 0.0, 0.1, 0.1]],
            [[0.3, 0.3, 0.8, 0.3, 0.2]],
        ]
    )
    for method in ("components", "watershed", "cores"):
        found = decode_instances(prob, Decoding(method, core_class=-1, threshold=0.55))
        assert found.tolist() == [[1, 1, 1, 1, 0]]
    assert decode_instances(prob, Decoding(core_class=3)).tolist() == [[1, 0, 2, 2, 0]]
    assert decode_instances(prob, Decoding()).tolist() == [[1, 0, 0, 2, 0]]


def test_the_core_is_a_share_of_the_cell_and_specks_are_passed_over():
    core = np.array([[0.5, 0.5, 0.1, 0.1, 0.3, 0.1, 0.1]])
    cell = 0.9 - core
    prob = np.stack([np.full_like(core, 0.1), cell, core])

    def found(**settings):
        return decode_instances(prob, Decoding("cores", core_class=-1, **settings)).max()

    # 0.5 of 0.9 is above a half, 0.3 of 0.9 is a third.
    assert found() == 1
    assert found(core_threshold=0.3) == 2
    assert found(core_threshold=0.3, min_core=2) == 1


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"method": "cores"}, "decoding.core_class=null"),
        ({"core_threshold": 1.0}, "decoding.core_threshold=1.0"),
        ({"min_core": -1}, "decoding.min_core=-1"),
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


@pytest.mark.parametrize("core_class", [1, -1, 2, -2, -3])
def test_a_class_of_cores_that_is_not_there(core_class):
    with pytest.raises(SegbenchError, match=f"decoding.core_class={core_class} for 2 classes, of which 1 is cell"):
        decode_instances(probabilities([[0, 1]], 2), Decoding("cores", core_class=core_class))
