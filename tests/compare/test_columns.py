import math

import numpy as np
import pytest
from scipy import stats

from segbench.compare.columns import Summary


def test_the_interval_of_a_mean_is_students():
    values = [0.5, 0.6, 0.55, 0.7]
    summary = Summary(float(np.mean(values)), float(np.std(values, ddof=1)), len(values))
    expected = stats.t.interval(0.9, 3, loc=summary.mean, scale=stats.sem(values))
    assert summary.interval(0.9) == pytest.approx(expected)


def test_one_run_has_none():
    assert all(map(math.isnan, Summary(0.5, math.nan, 1).interval(0.95)))
