from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segbench.data.folder.counts import count_codes, count_runs, whole_sums


@settings(deadline=None)  # the first call compiles
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int16, np.int32, np.int64]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=20),
        elements=st.integers(0, 120),
    )
)
def test_codes_are_counted_as_numpy_counts_them(codes):
    values, pixels = np.unique(codes, return_counts=True)
    assert count_codes(codes) == (values.tolist(), pixels.tolist())
    rows = codes.reshape(-1)
    assert count_runs(codes) == 1 + sum(a != b for a, b in pairwise(rows))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("pixels", [1, 7, 8, 2048 * 8, 2049 * 8, 2049 * 4, 4096 * 8 + 3, 50_001])
def test_long_rows_are_counted_across_blocks(dtype, pixels):
    rng = np.random.default_rng(pixels)
    codes = rng.integers(0, 250, pixels).repeat(rng.integers(1, 40, pixels))[:pixels].astype(dtype)
    values, counts = np.unique(codes, return_counts=True)
    assert count_codes(codes[np.newaxis]) == (values.tolist(), counts.tolist())


def test_negative_codes_and_long_runs_are_counted():
    codes = np.full((300, 1000), -1, np.int16)
    codes[7, 3:5] = 9
    assert count_codes(codes) == ([-1, 9], [299998, 2])
    assert count_codes(np.asfortranarray(codes)[:, ::3]) == ([-1, 9], [100199, 1])


@settings(deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=9),
        elements=st.integers(0, 255),
    ),
    st.sampled_from([1, 257]),
)
def test_sums_are_those_of_whole_numbers(image, factor):
    image = image * factor if image.dtype == np.uint16 else image
    for channel, sums in enumerate(whole_sums(image)):
        values = image[..., channel].ravel().tolist()
        assert sums == (sum(values), sum(value * value for value in values))


def test_sums_of_parts_of_larger_images():
    image = np.arange(600, dtype=np.uint16).reshape(10, 20, 3)
    part = image[::2, 3:9]
    assert whole_sums(part) == whole_sums(part.copy())
