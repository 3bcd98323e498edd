"""The drawn tissue: its labels, its difficulty, its determinism."""

import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.data.drawn_em.parameters import EMParameters
from segbench.data.drawn_em.slices import draw_slice
from segbench.errors import SegbenchError


def best_threshold_mean_iu(images: list[np.ndarray], cells: list[np.ndarray]) -> float:
    """Mean IU of `cell = image > t` or `image <= t`, the best of all t, over one confusion matrix."""
    grey, cell = np.concatenate([i.ravel() for i in images]), np.concatenate([c.ravel() for c in cells])
    best = 0.0
    for level in range(256):
        for guess in (grey > level, grey <= level):
            both, guessed = int((guess & cell).sum()), int(guess.sum())
            neither = grey.size - guessed - int(cell.sum()) + both
            either = grey.size - neither
            best = max(best, (both / either + neither / (grey.size - both)) / 2)
    return best


def test_threshold_by_hand():
    # Cells 9, 9 and membranes 1, 9: above 1, two of three cells' union are right and one of two membranes'.
    image, cell = np.array([[9, 9, 1, 9]], np.uint8), np.array([[True, True, False, False]])
    assert best_threshold_mean_iu([image], [cell]) == pytest.approx((2 / 3 + 1 / 2) / 2)


@pytest.mark.parametrize(("seed", "size"), [(0, 256), (1, 256), (0, 128), (1, 128), (2, 128), (3, 128)])
def test_a_threshold_is_no_solution(seed, size):
    drawn = [draw_slice(seed, index, size, size) for index in range(8)]
    score = best_threshold_mean_iu([image for image, _ in drawn], [ids > 0 for _, ids in drawn])
    assert 0.52 <= score <= 0.70


def assert_tissue(image: np.ndarray, ids: np.ndarray, height: int, width: int) -> None:
    assert image.shape == ids.shape == (height, width)
    assert image.dtype == np.uint8
    assert ids.dtype == np.int32
    for axis in (0, 1):
        here, there = (np.take(ids, range(a, ids.shape[axis] - 1 + a), axis) for a in (0, 1))
        assert not ((here != there) & (here > 0) & (there > 0)).any(), "two cells touch"
    present = np.unique(ids)
    assert present[0] >= 0
    count, _ = cv2.connectedComponents((ids > 0).astype(np.uint8), connectivity=4)
    # Cells do not touch, so as many components as ids means one component an id.
    assert count - 1 == np.count_nonzero(present)
    assert list(present[present > 0]) == list(range(1, count))


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(0, 2**40), st.integers(0, 3_000_000), st.integers(16, 150), st.integers(16, 150))
def test_every_size_is_tissue(seed, index, height, width):
    image, ids = draw_slice(seed, index, height, width)
    assert_tissue(image, ids, height, width)
    assert ids.max() >= 1


@pytest.mark.parametrize("index", range(6))
def test_shares_and_sizes(index):
    image, ids = draw_slice(11, index, 256, 256)
    assert_tissue(image, ids, 256, 256)
    assert 0.15 <= (ids == 0).mean() <= 0.25
    areas = np.bincount(ids.ravel())[1:]
    assert 12 <= len(areas) <= 90
    assert np.percentile(areas, 90) > 6 * np.percentile(areas, 10), "cells of much the same size"
    assert image[ids == 0].mean() < image[ids > 0].mean() - 25
    assert 0.3 < np.median(thickness(ids)) / 4.7 < 1.5


def thickness(ids: np.ndarray) -> np.ndarray:
    """Twice the distance to the nearest cell, where that is greatest across the membrane."""
    distance = cv2.distanceTransform((ids == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    ridge = (distance == cv2.dilate(distance, np.ones((3, 3)))) & (distance > 0)
    return 2 * distance[ridge] - 1


def test_order_and_process_change_nothing():
    first = [draw_slice(3, index, 40, 50) for index in (0, 1, 2)]
    again = [draw_slice(3, index, 40, 50) for index in (2, 1, 0)][::-1]
    for (image, ids), (image_again, ids_again) in zip(first, again, strict=True):
        np.testing.assert_array_equal(image, image_again)
        np.testing.assert_array_equal(ids, ids_again)
    program = (
        "import zlib; from segbench.data.drawn_em.slices import draw_slice;"
        "print([zlib.crc32(array.tobytes()) for array in draw_slice(3, 2, 40, 50)])"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str([zlib.crc32(array.tobytes()) for array in first[2]])


def test_seeds_and_indices_differ():
    images = [draw_slice(seed, index, 32, 32)[0].tobytes() for seed in (0, 1, 2) for index in (0, 1, 2)]
    assert len(set(images)) == len(images)


def test_parameters_change_the_slice():
    plain = EMParameters(mitochondria=0, vesicles=0, microtubules=0, synapses=0, noise=0, texture=0)
    image, ids = draw_slice(0, 0, 64, 64, plain)
    assert_tissue(image, ids, 64, 64)
    assert (image != draw_slice(0, 0, 64, 64)[0]).any()


@pytest.mark.parametrize(("seed", "index", "height"), [(-1, 0, 32), (0, -1, 32), (0, 0, 15)])
def test_draw_slice_refuses(seed, index, height):
    with pytest.raises(SegbenchError, match="expected"):
        draw_slice(seed, index, height, 32)
