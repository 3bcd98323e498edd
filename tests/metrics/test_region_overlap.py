"""Regions and contingency tables, beside scikit-image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import label as skimage_label
from skimage.metrics import contingency_table

from segbench.metrics import contingency, regions
from segbench.metrics.region_runs import overlap, region_runs


def dense(table, shape):
    filled = np.zeros(shape, np.int64)
    filled[table.rows, table.columns] = table.pixels
    return filled


@pytest.mark.parametrize(
    ("size", "ids"),
    [(1, 3), (1023, 2), (1024, 2), (1025, 2), (5000, 50), (30_000, 3000), (4097, 1)],  # around the length of a block
)
@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_contingency_as_in_scikit_image(size, ids, kind):
    rng = np.random.default_rng(size)
    first, second = rng.integers(0, ids, size), rng.integers(0, ids, size).astype(kind)
    expected = contingency_table(first, second).toarray()
    table = contingency(first, second)
    assert (dense(table, expected.shape) == expected).all()
    assert len(table.pixels) == np.count_nonzero(expected)
    expected[0] = 0
    assert (dense(contingency(first, second, skip_background=True), expected.shape) == expected).all()


def test_ids_may_be_large():
    table = contingency(np.array([2**31 - 1, 0, 5]), np.array([7, 2**31 - 1, 7], np.int32))
    assert table.rows.tolist() == [2**31 - 1, 0, 5]
    assert table.columns.tolist() == [7, 2**31 - 1, 7]


def test_nothing_meets_nothing():
    assert contingency(np.zeros(0, np.int32), np.zeros(0, np.int32)).pixels.size == 0


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"shape \(2,\) and \(3,\)"):
        contingency(np.zeros(2, int), np.zeros(3, int))


MASKS = st.shared(st.tuples(st.integers(1, 20), st.integers(1, 20)))


@settings(deadline=None)
@given(arrays(bool, MASKS), arrays(bool, MASKS))
def test_overlap_of_regions_is_their_contingency(one, two):
    table = overlap(region_runs(one), region_runs(two))
    expected = contingency(regions(one), regions(two), skip_background=True)
    shape = one.size + 1, one.size + 1
    assert (dense(table, shape) == dense(expected, shape)).all()
    assert (table.pixels > 0).all()


def test_regions_are_numbered_as_rows_meet_them():
    mask = np.array([[0, 1, 0, 1], [1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 1]])
    assert regions(mask).tolist() == [[0, 1, 0, 2], [3, 0, 0, 2], [3, 3, 0, 0], [0, 0, 0, 4]]
    assert regions(np.zeros((0, 3))).shape == (0, 3)


@settings(deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 20))))
def test_regions_are_four_connected_components(mask):
    ours, theirs = regions(mask), skimage_label(mask, connectivity=1)
    pairs = contingency(ours, theirs)
    assert ((ours == 0) == ~mask).all()
    assert len(pairs.rows) == len(np.unique(pairs.rows)) == len(np.unique(pairs.columns))
