import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbench.display import digits
from segbench.display.digits import number, span, spread


def test_the_examples_hold():
    assert doctest.testmod(digits).failed == 0


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.5, "0.5000"),
        (-0.5, "-0.5000"),
        (0.0382, "0.0382"),
        (0.0022, "0.00220"),
        (0.000353, "0.000353"),
        (1e-9, "0.0000"),
        (-1e-9, "0.0000"),
        (175.0, "175.0"),
        (float("nan"), "undefined"),
        (float("inf"), "undefined"),
    ],
)
def test_a_number(value, shown):
    assert number(value) == shown


def test_a_deviation_of_which_four_decimals_show_nothing_gets_more():
    assert spread(0.8, 0.00001) == "0.80000 ± 0.00001"
    assert spread(0.8, 0.0) == "0.8000 ± 0.0000"
    assert spread(0.8, float("nan")) == "0.8000"


def test_an_interval_shows_on_which_side_of_zero_it_ends():
    assert span(0.000012, 0.05) == "+0.00001 to +0.05000"
    assert span(float("nan"), float("nan")) == "undefined to undefined"


@given(st.floats(-2, 2), st.floats(-2, 2))
def test_what_is_written_is_the_value_and_both_ends_align(low, high):
    first, second = (each.split(".") for each in span(low, high).split(" to "))
    assert len(first[1]) == len(second[1])
    assert abs(float(".".join(first)) - low) <= 0.5 * 10.0 ** -len(first[1]) + 1e-12
