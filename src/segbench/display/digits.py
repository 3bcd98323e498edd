"""How scores are printed: with just enough digits to tell them apart."""

from __future__ import annotations

import math


def decimals(*values: float) -> int:
    """Decimals, 4 to 6, that show three digits of the largest value and one of every other; 1 from 100 up.

    Args:
        values: printed together, such as the ends of an interval; 0 and those that are not finite do not count.
    """
    sizes = [abs(value) for value in values if math.isfinite(value) and abs(value) >= 5e-7]
    if not sizes:
        return 4
    largest, smallest = max(sizes), min(sizes)
    if largest >= 100:
        return 1
    # The place of the first digit is -3 for 0.0021.
    first, last = (math.floor(math.log10(size)) for size in (largest, smallest))
    return min(6, max(4, 2 - first, -last))


def number(value: float, sign: bool = False, beside: tuple[float, ...] = ()) -> str:
    """Four decimals, up to six for what is small; `undefined` for NaN.

    Args:
        value: to print.
        sign: with a plus if positive.
        beside: values printed beside it, with as many decimals.

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
    """Mean and standard deviation with the same decimals; only the mean if there is no deviation.

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
    """A share in percent, with its own decimals.

    Example:
        >>> percent(0.95), percent(0.995)
        ('95 %', '99.5 %')
    """
    return f"{100 * share:.10g} %"
