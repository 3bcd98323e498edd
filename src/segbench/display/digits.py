"""How a score is written: enough digits to tell it from another, no more."""

from __future__ import annotations

import math

_MOST = 6


def decimals(*values: float) -> int:
    """Decimals that show three digits of the largest value, one of every other; at most six.

    Four show any score from 0.01 up; of an error, more are needed.

    Args:
        values: that stand together, such as the ends of an interval; those that are not finite, or 0, do not count.
    """
    sizes = [abs(value) for value in values if math.isfinite(value) and abs(value) >= 5e-7]
    if not sizes:
        return 4
    largest, smallest = max(sizes), min(sizes)
    if largest >= 100:
        return 1
    return min(_MOST, max(4, 2 - _place(largest), -_place(smallest)))


def _place(size: float) -> int:
    # Of the first digit: -3 for 0.0021.
    return math.floor(math.log10(size))


def number(value: float, sign: bool = False, beside: tuple[float, ...] = ()) -> str:
    """Four decimals, up to six for what is small; `undefined` for NaN.

    Args:
        value: to be written.
        sign: with a plus where it is positive.
        beside: values that stand beside it and are written with as many decimals.

    Example:
        >>> number(0.71234), number(0.00215), number(0.000353), number(0.02, sign=True)
        ('0.7123', '0.00215', '0.000353', '+0.0200')
    """
    if not math.isfinite(value):
        return "undefined"
    if abs(value) < 5e-7:
        value = 0.0
    return f"{value:{'+' if sign else ''}.{decimals(value, *beside)}f}"


def spread(mean: float, sd: float | None) -> str:
    """Mean and standard deviation, to the same decimals; the mean alone where there is no deviation.

    Example:
        >>> spread(0.0021052, 0.0000863), spread(0.7273, 0.0113), spread(0.5, None)
        ('0.00211 ± 0.00009', '0.7273 ± 0.0113', '0.5000')
    """
    if sd is None or not math.isfinite(sd):
        return number(mean)
    return f"{number(mean, beside=(sd,))} ± {number(sd, beside=(mean,))}"


def span(low: float, high: float) -> str:
    """The ends of an interval of differences.

    Example:
        >>> span(-0.0572, -0.000892), span(-0.000004, 0.0107)
        ('-0.0572 to -0.0009', '-0.000004 to +0.010700')
    """
    return f"{number(low, sign=True, beside=(high,))} to {number(high, sign=True, beside=(low,))}"


def percent(share: float) -> str:
    """A share in percent, with the decimals that it was given with.

    Example:
        >>> percent(0.95), percent(0.995)
        ('95 %', '99.5 %')
    """
    return f"{100 * share:.10g} %"
