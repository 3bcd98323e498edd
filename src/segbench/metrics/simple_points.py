"""Pixels that can flip without changing topology, as their 8-neighbourhoods decide.

A pixel is simple for foreground connectivity 4 and background connectivity 8 where its 8 neighbours hold exactly one
4-connected piece of foreground that touches it by an edge and one 8-connected piece of background. The pixel's colour
does not matter, so a table of 256 entries is enough.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segbench.compiled import compiled

RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
"""The 8 neighbours around the pixel, in the order of a code's bits; even bits share an edge with it."""


def simple_table() -> NDArray[np.bool_]:
    """Whether a pixel is simple, by the code of its neighbours: bool (256,).

    By the connectivity number sum_k x_k - x_k x_{k+1} x_{k+2} over the edge neighbours x_k (Yokoi et al. 1975, the case
    of 4-connected foreground), which is 1 exactly for simple pixels.
    """
    x = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(np.int64)
    edge, corner, following = x[:, 0::2], x[:, 1::2], np.roll(x[:, 0::2], -1, axis=1)
    return np.asarray((edge - edge * corner * following).sum(1) == 1)


SIMPLE = simple_table()


@compiled
def neighbour_codes(padded: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The code of every pixel: bit k is set where neighbour `RING[k]` is foreground.

    Args:
        padded: (A + 2, B + 2) with a border of background.

    Returns:
        uint8 of the same shape; 0 on the border.
    """
    rows, columns = padded.shape
    codes = np.zeros((rows, columns), np.uint8)
    for row in range(1, rows - 1):
        for column in range(1, columns - 1):
            codes[row, column] = (
                np.uint8(padded[row - 1, column])
                | np.uint8(padded[row - 1, column + 1]) << 1
                | np.uint8(padded[row, column + 1]) << 2
                | np.uint8(padded[row + 1, column + 1]) << 3
                | np.uint8(padded[row + 1, column]) << 4
                | np.uint8(padded[row + 1, column - 1]) << 5
                | np.uint8(padded[row, column - 1]) << 6
                | np.uint8(padded[row - 1, column - 1]) << 7
            )
    return codes
