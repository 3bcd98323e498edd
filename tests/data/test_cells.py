import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import label as scipy_label

from segbench.data.cells import connected_cells, cores, label_parts, near_others, two_nearest


def same_partition(a, b):
    pairs = set(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    return len(pairs) == len(set(a.ravel().tolist())) == len(set(b.ravel().tolist()))


def brute_distances(instances):
    """Each background pixel's distances to all cells, pixel by pixel, sorted."""
    cells = [np.argwhere(instances == cell) for cell in np.unique(instances[instances > 0])]
    result = np.full((2, *instances.shape), np.inf)
    for place in np.argwhere(instances == 0):
        nearest = sorted(float(np.sqrt(((cell - place) ** 2).sum(1).min())) for cell in cells)[:2]
        result[: len(nearest), place[0], place[1]] = nearest
    return result


def test_corners_do_not_connect_and_classes_do_not_merge():
    label = np.array([[1, 0, 2, 2], [0, 1, 1, 2], [255, 0, 0, 1]], np.uint8)
    expected = np.array([[1, 0, 4, 4], [0, 2, 2, 4], [0, 0, 0, 3]])
    found = connected_cells(label)
    assert found.dtype == np.int32
    assert same_partition(found, expected)
    assert (found[label == 255] == 0).all()


@settings(deadline=None, max_examples=50)
@given(arrays(np.uint8, (7, 9), elements=st.sampled_from([0, 1])))
def test_cells_are_scipys_components(label):
    assert same_partition(connected_cells(label), scipy_label(label)[0])


def test_another_background():
    label = np.array([[0, 1, 0]])
    assert connected_cells(label, background=1).tolist() == [[1, 0, 2]]


def test_touching_cells_are_near_along_their_border():
    instances = np.array([[1, 1, 1, 7, 7, 7]] * 3 + [[0] * 6], np.int32)
    expected = np.array([[0, 0, 1, 1, 0, 0]] * 3 + [[0] * 6], bool)
    assert (near_others(instances) == expected).all()
    assert not near_others(np.where(expected, 0, instances)).any()


def test_a_cell_between_two():
    # The middle cell is neither the highest nor the lowest id around.
    instances = np.array([[1, 1, 2, 2, 2, 3, 3]] * 3, np.int32)
    assert near_others(instances)[1].tolist() == [False, True, True, False, True, True, False]


def test_distances_on_a_line_by_hand():
    d1, d2 = two_nearest(np.array([[4, 0, 0, 0, 9]], np.int32), reach=10)
    assert d1[0, 1:4].tolist() == [1, 2, 1]
    assert d2[0, 1:4].tolist() == [3, 2, 3]
    assert np.isinf(d1[0, [0, 4]]).all()


def test_a_diagonal_distance_is_euclidean():
    instances = np.zeros((5, 5), np.int32)
    instances[0, 0], instances[4, 3] = 1, 2
    d1, d2 = two_nearest(instances, reach=10)
    assert d1[2, 2] == pytest.approx(np.sqrt(5))
    assert d2[2, 2] == pytest.approx(np.sqrt(8))


@settings(deadline=None, max_examples=150)
@given(
    arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 0, 0, 1, 2, 3, 4])),
    st.floats(0.5, 15),
)
def test_distances_are_those_of_brute_force_within_reach(instances, reach):
    found = np.stack(two_nearest(instances, reach))
    expected = brute_distances(instances)
    near = (instances == 0) & (expected[1] <= reach)
    assert np.allclose(found[:, near], expected[:, near], rtol=1e-6)
    # Beyond, a distance is either right or not given.
    given_ = np.isfinite(found[1])
    assert np.allclose(found[:, given_], expected[:, given_], rtol=1e-6)
    assert np.isinf(found[:, instances > 0]).all()


def test_blobs_at_every_scale_against_brute_force():
    rng = np.random.default_rng(0)
    for trial in range(5):
        centres = rng.uniform(0, 24, (2 + 3 * trial, 2))
        places = np.argwhere(np.ones((24, 24)))
        distances = np.sqrt(((places[:, None] - centres) ** 2).sum(-1))
        instances = np.where(distances.min(1) < 3, distances.argmin(1) + 1, 0).reshape(24, 24).astype(np.int32)
        found, expected = np.stack(two_nearest(instances, 40)), brute_distances(instances)
        outside = instances == 0
        assert np.allclose(found[:, outside], expected[:, outside], rtol=1e-6)


def test_near_others_is_the_square_neighbourhood():
    rng = np.random.default_rng(0)
    ids = (rng.random((20, 25)) < 0.2) * rng.integers(1, 5, (20, 25)).astype(np.int32)
    for width in (1, 2, 4):
        padded = np.pad(ids, width)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * width + 1, 2 * width + 1))
        other = (windows > 0) & (windows != ids[..., None, None])
        assert (near_others(ids, width) == (other.any((2, 3)) & (ids > 0))).all()


@settings(deadline=None, max_examples=50)
@given(arrays(np.uint8, (7, 9), elements=st.sampled_from([0, 1, 2, 7, 255])))
def test_the_ids_of_a_class_follow_those_of_the_class_before(label):
    found, count = np.zeros(label.shape, np.int32), 0
    for value in (1, 2, 7):
        components = connected_cells((label == value).astype(np.uint8))
        found += np.where(components > 0, components + count, 0).astype(np.int32)
        count += int(components.max())
    np.testing.assert_array_equal(connected_cells(label), found)


def test_a_core_by_hand():
    ids = np.zeros((9, 12), np.int32)
    ids[1:8, 1:8] = 4  # 7 x 7, so depths 1 to 4 in rings
    ids[1:8, 8:11] = 9  # beside it, 3 wide: depths 1 and 2
    core = cores(ids, 0.5)
    # Depth 2 or more of 4; the narrow cell is core from 1 on, but where the other one is beside it.
    assert core[:, 1:8].sum() == core[2:7, 2:7].sum() == 25
    assert core[1:8, 9:11].all() and not core[:, 8].any()
    assert np.flatnonzero(cores(ids, 1.0)[:, :8]).tolist() == [4 * 8 + 4]
    assert not (core & (ids == 0)).any()


def test_beyond_the_image_does_not_count():
    ids = np.zeros((4, 6), np.int32)
    ids[:, :4] = 1
    # Depths 4, 3, 2, 1 from the image's edge.
    assert cores(ids, 0.75).tolist() == [[True, True, False, False, False, False]] * 4
    assert cores(np.ones((3, 3), np.int32), 0.5).all()
    assert not cores(np.zeros((3, 3), np.int32), 0.5).any()


@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.3, 0.5, 0.8, 1.0]))
@settings(max_examples=15)
def test_cores_are_those_of_brute_force(seed, share):
    rng = np.random.default_rng(seed)
    ids = np.kron(rng.integers(0, 4, (3, 4)), np.ones((4, 4), int)).astype(np.int32)
    places = np.argwhere(np.ones(ids.shape, bool))
    core, near = cores(ids, share), near_others(ids)
    for number in range(1, 4):
        others = places[ids[tuple(places.T)] != number]
        inside = places[ids[tuple(places.T)] == number]
        squares = ((inside[:, None] - others[None]) ** 2).sum(-1).min(1) if len(others) else np.ones(len(inside))
        deep = np.sqrt(squares) >= share * np.sqrt(squares.max(initial=0))
        assert (core[tuple(inside.T)] == (deep & ~near[tuple(inside.T)])).all()


def test_parts_of_touching_cells_by_hand():
    ids = np.array([[1] * 5 + [2] * 5 + [0]], np.int32).repeat(3, 0)
    label = np.uint8(ids > 0)
    label_parts(label, ids, border=2, core=0.6)
    # Above and below nothing counts. Depths of 1 are 5 to 1, of 2 are 1 2 3 2 1; the core goes before the border.
    assert label[1].tolist() == [3, 3, 3, 2, 2, 2, 3, 3, 3, 1, 0]
    label = np.uint8(ids > 0)
    label_parts(label, ids, border=0, core=0.6)
    assert label[1].tolist() == [2, 2, 2, 1, 0, 0, 2, 2, 2, 1, 0]
