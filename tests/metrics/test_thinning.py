"""Thinning: by hand, and what holds for any mask."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segbench.metrics import contingency, regions, thin

MASKS = arrays(bool, st.tuples(st.integers(1, 10), st.integers(1, 10)))


def test_a_thick_border_becomes_a_line():
    binary = np.zeros((3, 7), bool)
    binary[:, :2] = binary[:, 5:] = True
    assert thin(binary).tolist() == [[1, 1, 1, 0, 2, 2, 2]] * 3


def test_membrane_inside_a_region_disappears():
    binary = np.ones((5, 5), bool)
    binary[2, 1:4] = False
    assert (thin(binary) == 1).all()


def test_regions_that_touch_at_a_corner_stay_apart():
    assert thin(np.array([[1, 0], [0, 1]])).tolist() == [[1, 0], [0, 2]]


def test_a_slice_without_cells_is_one_region():
    assert (thin(np.zeros((3, 4))) == 1).all()


@settings(deadline=None)
@given(MASKS)
def test_every_region_survives_and_only_grows(mask):
    thinned, before = thin(mask), regions(mask)
    assert thinned.shape == mask.shape
    assert thinned.dtype == np.int32
    if mask.any():
        pairs = contingency(before, thinned, skip_background=True)
        assert len(pairs.rows) == before.max() == thinned.max()
        assert (pairs.columns > 0).all()


@settings(deadline=None)
@given(MASKS)
def test_regions_stay_apart(mask):
    thinned = thin(mask)
    across = (thinned[:, 1:], thinned[:, :-1]), (thinned[1:], thinned[:-1])
    for one, two in across:
        assert ((one == two) | (one == 0) | (two == 0)).all()
