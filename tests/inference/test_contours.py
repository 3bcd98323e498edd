import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, label
from skimage.segmentation import watershed

from segbench.inference.contours import contour_map, merge_heights, watershed_basins


def same_partition(one, other):
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1).shape[1]
    return pairs == len(np.unique(one)) == len(np.unique(other))


@given(st.integers(0, 999), st.sampled_from([(1, 9), (7, 1), (12, 17)]))
def test_basins_are_those_of_another_watershed(seed, shape):
    # No value twice: then the definition leaves nothing open.
    height_HW = np.random.default_rng(seed).permutation(shape[0] * shape[1]).reshape(shape).astype(float)
    assert same_partition(watershed_basins(height_HW), watershed(height_HW, connectivity=1))


def test_a_flat_minimum_is_one_basin():
    height_HW = np.ones((5, 7))
    # A U, whose arms are begun apart.
    height_HW[1:4, 1] = height_HW[3, 1:6] = height_HW[1:4, 5] = 0
    assert watershed_basins(height_HW).max() == 0
    assert watershed_basins(np.zeros((4, 4))).max() == 0


def brute_force(pairs, sums, counts, areas, full):
    """All costs again after each merge."""
    region, heights, reached = list(range(len(areas))), np.zeros(len(pairs)), 0.0

    def cost(key, total, count):
        smaller = min(sum(area for area, at in zip(areas, region, strict=True) if at == each) for each in key)
        return total / count * min(1, smaller / full) ** 0.125

    while True:
        borders = {}
        for (i, j), total, count in zip(pairs, sums, counts, strict=True):
            key = tuple(sorted((region[i], region[j])))
            if key[0] != key[1]:
                old = borders.get(key, (0.0, 0))
                borders[key] = (old[0] + total, old[1] + count)
        if not borders:
            return heights
        lowest, key = min((cost(key, *border), key) for key, border in borders.items())
        reached = max(reached, lowest)
        for edge, (i, j) in enumerate(pairs):
            if tuple(sorted((region[i], region[j]))) == key:
                heights[edge] = reached
        region = [key[0] if each == key[1] else each for each in region]


@given(st.integers(0, 999), st.sampled_from([1, 60, 1e4]))
def test_heights_are_those_of_merging_the_lowest_cost_again_and_again(seed, full):
    rng = np.random.default_rng(seed)
    all_pairs = np.array([(i, j) for i in range(7) for j in range(i)])
    pairs = all_pairs[rng.random(len(all_pairs)) < 0.6]
    # No mean twice.
    counts = rng.integers(1, 9, len(pairs))
    sums = rng.permutation(4096)[: len(pairs)] / 4096.0 * counts
    areas = rng.integers(1, 50, 7)
    given = pairs, sums, counts, areas, full
    np.testing.assert_allclose(merge_heights(*given), brute_force(*given))


def test_merging_by_hand():
    # 0 and 1 first, at 0.1. What is left between them and 2: (0.9 + 0.9 + 0.3) / 3.
    edges = np.array([[0, 1], [0, 2], [1, 2]]), np.array([0.1, 1.8, 0.3]), np.array([1, 2, 1])
    assert merge_heights(*edges, np.array([9, 9, 9]), 9) == pytest.approx([0.1, 0.7, 0.7])
    # 2 is a 256th of a full region, so half its means count: 1 and 2 at 0.15; 0 and 1 before, at 0.1, as both are full.
    assert merge_heights(*edges, np.array([512, 512, 2]), 512) == pytest.approx([0.1, 0.35, 0.35])
    # With 1.0 between 0 and 1, 1 and 2 go first: then (1.0 + 1.8) / 3.
    edges[1][0] = 1.0
    assert merge_heights(*edges, np.array([512, 512, 2]), 512) == pytest.approx([2.8 / 3, 2.8 / 3, 0.15])


def wall_with_a_gap():
    cell_HW = np.full((21, 31), 0.95, np.float32)
    cell_HW[:, 15] = 0.05
    cell_HW[10, 15] = 0.9
    return cell_HW


def test_a_gap_in_a_membrane_is_closed():
    cell_HW = wall_with_a_gap()
    assert label(cell_HW > 0.5)[1] == 1
    made_HW = contour_map(cell_HW, 2.0)
    assert label(made_HW > 0.5)[1] == 2
    # 20 pixels of 0.95 and one of 0.1 on one side of the wall; the smaller region has 15 columns of 21 pixels.
    assert made_HW[10].min() == pytest.approx(1 - (20 * 0.95 + 0.1) / 21 * (15 * 21 / 2500) ** 0.125)


@given(st.integers(0, 999), st.floats(0.5, 2))
def test_a_threshold_separates_what_merges_above_it_and_nothing_else(seed, sigma):
    cell_HW = gaussian_filter(np.random.default_rng(seed).random((20, 16), np.float32), 1)
    made_HW = contour_map(cell_HW, sigma)
    assert made_HW.dtype == np.float32 and made_HW.min() >= 0 and made_HW.max() <= 1
    basins_HW = watershed_basins(gaussian_filter(1 - cell_HW.astype(np.float64), sigma))
    right, below = basins_HW[:, :-1] != basins_HW[:, 1:], basins_HW[:-1] != basins_HW[1:]
    border_HW = np.pad(right, ((0, 0), (0, 1))) | np.pad(below, ((0, 1), (0, 0)))
    np.testing.assert_array_equal(made_HW < 1, border_HW)
    # The highest threshold that has lines everywhere leaves no region that reaches over a border.
    inside_HW = label(made_HW >= 1)[0]
    assert all(len(np.unique(basins_HW[inside_HW == number])) == 1 for number in range(1, inside_HW.max() + 1))
    # Below the lowest contour all is one.
    assert label(made_HW >= made_HW.min())[1] == 1


def test_a_map_of_one_value_has_no_contours():
    for shape in ((1, 1), (1, 6), (5, 4)):
        assert contour_map(np.full(shape, 0.3, np.float32), 2.0).min() == 1
