"""The distance transform against scipy's, bit by bit, wherever the mask lies in memory."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, gaussian_filter

import segbench
from segbench.metrics.distance import distance_inside


@pytest.mark.parametrize("side", [60, 200])
@pytest.mark.parametrize("threads", [1, 2])
def test_distances_are_exact_wherever_the_mask_lies(side, threads):
    rng = np.random.default_rng(0)
    mask_HW = gaussian_filter(rng.random((side, side)), 6) > 0.5
    expected_HW = distance_transform_edt(mask_HW).astype(np.float32)
    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        for offset in range(0, 64, 7):
            moved_HW = np.zeros(mask_HW.size + 64, np.uint8)[offset : offset + mask_HW.size].reshape(mask_HW.shape)
            moved_HW[:] = mask_HW
            # Arrays of other sizes in between, so that the result lies elsewhere too.
            between = [np.ones(int(size), np.uint8) for size in rng.integers(1, 10**5, 5)]
            np.testing.assert_array_equal(distance_inside(moved_HW), expected_HW)
            del between
    finally:
        cv2.setNumThreads(before)


def test_what_uses_ipp_beside_it_is_left_alone():
    before = cv2.ipp.useIPP()
    distance_inside(np.eye(3, dtype=bool))
    assert cv2.ipp.useIPP() == before


def test_no_other_file_takes_opencvs_exact_transform():
    files = (path for path in Path(segbench.__file__).parent.rglob("*.py") if path.name != "distance.py")
    assert not [path for path in files if "cv2.distanceTransform(" in path.read_text()]
