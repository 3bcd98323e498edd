"""Boundary F1: by hand, and by brute force over pairs of boundary pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from segbench.errors import SegbenchError
from segbench.metrics import BoundaryF1, ImageResult, boundary_f1
from segbench.metrics.boundary import boundary

SHAPE = st.shared(st.tuples(st.integers(2, 9), st.integers(2, 9)))


def test_the_edge_of_the_image_is_no_boundary():
    mask = np.zeros((4, 4), bool)
    mask[:, :2] = True
    assert np.argwhere(boundary(mask)).tolist() == [[0, 1], [1, 1], [2, 1], [3, 1]]


def test_a_shift_within_the_tolerance_is_free():
    label, pred = np.zeros((30, 40), bool), np.zeros((30, 40), bool)
    label[:, :20] = pred[:, :22] = True
    # The diagonal is 50: two pixels are 4 % of it.
    assert boundary_f1(label, pred, tolerance=0.04) == 1.0
    assert boundary_f1(label, pred, tolerance=0.039) == 0.0


@settings(deadline=None)
@given(arrays(bool, SHAPE), arrays(bool, SHAPE), st.sampled_from([0.0, 0.1, 0.2]))
def test_by_brute_force(label, pred, tolerance):
    ours = boundary_f1(label, pred, tolerance)
    edges = [np.argwhere(boundary(mask)) for mask in (pred, label)]
    if not all(len(edge) for edge in edges):
        assert ours == float((label == pred).all())
        return
    near = cdist(*edges) <= tolerance * np.hypot(*label.shape) + 1e-9
    precision, recall = near.any(1).mean(), near.any(0).mean()
    assert ours == pytest.approx(0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall))


def score(measure, *pairs):
    counts = [measure.counts(ImageResult(label, pred)) for label, pred in pairs]
    return measure.scores({key: np.sum([one[key] for one in counts], axis=0) for key in counts[0]})["boundary_f1"]


def test_mean_over_the_images_that_hold_a_class():
    half, third = np.zeros((8, 8), int), np.zeros((8, 8), int)
    half[:, 4:], third[:4, :4] = 1, 2
    names = ("a", "b", "c", "never")
    # b is right where it occurs; c is predicted in the second image for nothing, a has its boundary moved there.
    assert score(BoundaryF1(names), (half, half)) == 1.0
    moved = boundary_f1(half == 0, third == 0)
    expected = ((1 + moved) / 2 + (1 + 0) / 2 + 0) / 3
    assert score(BoundaryF1(names), (half, half), (half, third)) == pytest.approx(expected)
    assert score(BoundaryF1(names, excluded=(0, 2)), (half, half), (half, third)) == pytest.approx(0.5)


def test_a_void_band_decides_nothing():
    label, pred = np.zeros((20, 20), int), np.zeros((20, 20), int)
    label[:, 10:] = 1
    label[:, 8:12] = 255
    for start in (8, 10, 12):
        pred[:] = 0
        pred[:, start:] = 1
        assert score(BoundaryF1(("a", "b")), (label, pred)) == 1.0
    pred[:] = 0
    pred[:, 14:] = 1
    assert score(BoundaryF1(("a", "b")), (label, pred)) == 0.0


def test_shapes_must_agree():
    with pytest.raises(SegbenchError, match=r"label of \(2, 2\) and a prediction of \(2, 3\)"):
        boundary_f1(np.ones((2, 2), bool), np.ones((2, 3), bool))
