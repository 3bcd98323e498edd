import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.data.warp import bicubic_basis, rigid_matrix, sample, sampling_map
from segbench.errors import SegbenchError

PICTURE = np.arange(25, dtype=np.float32).reshape(5, 5)


def rigid(array, interpolation="linear", **motion):
    height, width = array.shape[:2]
    return sample(array, *sampling_map(height, width, rigid_matrix(height, width, **motion), None), interpolation)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 7), st.integers(7, 40), st.integers(7, 40), st.integers(0, 99))
def test_the_field_is_pytorchs_bicubic_interpolation_with_aligned_corners(grid, height, width, seed):
    nodes = np.random.default_rng(seed).normal(0, 10, (2, grid, grid))
    plain = sampling_map(height, width, None, None)
    field = sampling_map(height, width, None, nodes) - plain
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(nodes)[None], size=(height, width), mode="bicubic", align_corners=True
    )[0]
    assert np.allclose(field, expected, atol=1e-4)


def test_nodes_lie_on_the_corner_pixels_and_in_the_middle():
    nodes = np.arange(18.0).reshape(2, 3, 3)
    field = sampling_map(9, 5, None, nodes) - sampling_map(9, 5, None, None)
    assert np.allclose(field[:, ::4, ::2], nodes, atol=1e-5)


@given(st.integers(1, 50), st.data())
def test_a_constant_grid_is_a_constant_field(size, data):
    grid = data.draw(st.integers(1, size))
    assert np.allclose(bicubic_basis(size, grid).sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("grid", [0, 6])
def test_a_grid_that_does_not_fit_is_refused(grid):
    with pytest.raises(SegbenchError, match=f"an elastic grid of {grid} nodes on an image side of"):
        sampling_map(9, 5, None, np.zeros((2, grid, grid)))


def test_without_motion_the_map_is_the_identity():
    map_x, map_y = sampling_map(300, 513, None, None)
    assert (map_x == np.arange(513)).all()
    assert (map_y == np.arange(300)[:, None]).all()


@pytest.mark.parametrize("turns", [-1, 1, 2])
def test_positive_angles_turn_counter_clockwise(turns):
    assert np.allclose(rigid(PICTURE, angle=90 * turns), np.rot90(PICTURE, turns), atol=1e-4)


def test_the_picture_moves_by_the_shift():
    moved = rigid(PICTURE, shift=(2, -1))
    assert (moved[:4, 2:] == PICTURE[1:, :3]).all()


def test_what_comes_from_outside_is_mirrored_about_the_border_pixel():
    assert rigid(PICTURE, shift=(2, 0))[0].tolist() == [2, 1, 0, 1, 2]


def test_zoom_enlarges_about_the_centre():
    assert np.allclose(rigid(PICTURE, zoom=2)[2], [11, 11.5, 12, 12.5, 13])


def test_rotation_comes_before_shift_and_keeps_the_centre():
    turned = rigid_matrix(5, 7, angle=30, shift=(2, 1)) @ [3 + 2, 2 + 1, 1]
    assert np.allclose(turned, [3, 2])


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.int32, np.int64, np.uint64, np.float32, np.float64])
def test_nearest_copies_values_of_any_type(dtype):
    values = np.array([0, 1, 255, 2**15 - 1, 2**24 + 1, 2**31 - 1, 2**53 + 1], np.uint64).astype(dtype)
    array = np.random.default_rng(0).choice(values, (9, 12))
    copied = sample(array, *sampling_map(9, 12, None, np.full((2, 1, 1), 1.0)), "nearest")
    assert copied.dtype == array.dtype
    assert (copied[:-1, :-1] == array[1:, 1:]).all()


@pytest.mark.parametrize("channels", [(), (1,), (2,), (3,), (4,), (5,), (7,)])
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_channels_are_kept_and_warped_alike(channels, interpolation, dtype):
    slope = 1 + np.arange(channels[0]) if channels else 1
    array = np.multiply.outer(np.add.outer(np.arange(8), np.arange(9)), slope).astype(dtype)
    maps = sampling_map(8, 9, rigid_matrix(8, 9, angle=20), None)
    warped = sample(array, *maps, interpolation)
    assert warped.shape == array.shape and warped.dtype == dtype
    if channels:
        each = np.stack([sample(array[..., c], *maps, interpolation) for c in range(channels[0])], -1)
        # OpenCV rounds places to 1/32 pixel for some numbers of channels.
        assert np.abs(warped.astype(float) - each).max() <= (1 if dtype == np.uint8 else 2 * 7 / 64 + 1e-3)


def test_linear_sampling_is_linear():
    ramp = np.add.outer(3.0 * np.arange(20), 5.0 * np.arange(30)).astype(np.float32)
    maps = np.random.default_rng(2).uniform(2, 17, (2, 6, 6)).astype(np.float32)
    # OpenCV 4 rounds places to 1/32 pixel.
    assert np.allclose(sample(ramp, *maps, "linear"), 5 * maps[0] + 3 * maps[1], atol=8 / 64 + 1e-3)


def test_the_map_can_be_written_in_place():
    out = np.empty((2, 5, 6), np.float32)
    nodes = np.ones((2, 2, 2))
    assert sampling_map(5, 6, None, nodes, out=out) is out
    assert (out == sampling_map(5, 6, None, nodes)).all()
