import pytest
from speed import sliding_window


def test_multiplications_by_hand():
    by_layer = [16 * 48 * 92**2, 25 * 48**2 * 42**2, 16 * 48**2 * 18**2, 16 * 48**2 * 6**2, 9 * 48 * 200, 200 * 2]
    counted = sliding_window.counted()
    assert counted["a window at every pixel"] == 512**2 * sum(by_layer)
    # At once each map is as large as the layers after it need for 512 windows a side.
    sides = [603, 594, 580, 552, 512, 512]
    kernels = [16 * 48, 25 * 48**2, 16 * 48**2, 16 * 48**2, 9 * 48 * 200, 200 * 2]
    assert counted["at once"] == sum(side**2 * each for side, each in zip(sides, kernels, strict=True))
    assert counted["a window at every pixel"] / counted["at once"] == pytest.approx(475, abs=1)
