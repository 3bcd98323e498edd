import statistics
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.data.folder.facts import ImageFacts, mean_and_std


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=9), min_size=1, max_size=6), st.randoms())
def test_mean_and_deviation_are_those_of_all_pixels_in_any_order(images, random):
    pages = [ImageFacts(1, len(each), "uint8", ((sum(each), sum(v * v for v in each)),)) for each in images]
    values = [Fraction(value) for each in images for value in each]
    mean, std = mean_and_std(pages)
    assert mean == (float(statistics.mean(values)),)
    assert std == pytest.approx((float(statistics.pstdev(values)),), rel=1e-15)
    random.shuffle(pages)
    assert mean_and_std(pages) == (mean, std)
