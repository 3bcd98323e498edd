"""The challenge's thresholds to the last bit, and the levels that replace comparing with each of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbench.metrics import THRESHOLDS, WARPING_THRESHOLDS
from segbench.metrics.thresholds import harmonic_mean, per_mask, precision_recall, threshold_levels


def test_thresholds_are_those_of_repeated_addition():
    digits = "0.0 0.1 0.2 0.30000000000000004 0.4 0.5 0.6 0.7 0.7999999999999999 0.8999999999999999 0.9999999999999999"
    assert [repr(float(t)) for t in THRESHOLDS] == digits.split()
    assert WARPING_THRESHOLDS.tolist() == THRESHOLDS[:10].tolist()


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
def test_levels_count_the_thresholds_below(values):
    prob = np.array(values, np.float32)
    expected = (prob.astype(np.float64)[:, None] > THRESHOLDS).sum(1)
    assert (threshold_levels(prob) == expected).all()


def test_levels_beside_every_threshold():
    nearest = THRESHOLDS.astype(np.float32)
    prob = np.concatenate([nearest, np.nextafter(nearest, np.float32(2)), np.nextafter(nearest[1:], np.float32(0))])
    expected = (prob.astype(np.float64)[:, None] > THRESHOLDS).sum(1)
    assert (threshold_levels(prob) == expected).all()


def test_repeated_masks_are_scored_once():
    scored = []
    levels = np.array([[0, 3, 3, 11]], np.uint8)
    results = per_mask(levels, lambda mask: scored.append(mask.tolist()) or int(mask.sum()))
    assert results == [3, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1]
    assert results == [int((levels > k).sum()) for k in range(11)]
    assert len(scored) == 2


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((6, 2, 3), (0.75, 2 / 3)), ((0, 0, 5), (1.0, 0.0)), ((0, 5, 0), (0.0, 1.0)), ((0, 0, 0), (1.0, 1.0))],
)
def test_precision_and_recall_without_counts(counts, expected):
    assert precision_recall(*np.array(counts)) == pytest.approx(expected)


def test_harmonic_mean_of_nothing_is_zero():
    first, second = np.array([0.0, 1.0, np.nan, 0.5]), np.array([0.0, 0.5, np.nan, 1.0])
    assert harmonic_mean(first, second) == pytest.approx([0, 2 / 3, 0, 2 / 3])
