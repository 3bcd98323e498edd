"""Simple points, warping and the kinds of mismatch: by definition, by hand, and what holds for any slice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import euler_number
from skimage.measure import label as skimage_label

from segbench.errors import SegbenchError
from segbench.metrics import regions, warp, warping_error
from segbench.metrics.mismatches import (
    HOLE_ADDITION,
    HOLE_DELETION,
    MERGE,
    OBJECT_ADDITION,
    OBJECT_DELETION,
    SPLIT,
)
from segbench.metrics.simple_points import RING, SIMPLE, neighbour_codes
from segbench.metrics.warping import Slice

SHAPE = st.shared(st.tuples(st.integers(1, 9), st.integers(1, 9)))
SLICES = st.tuples(arrays(bool, SHAPE), arrays(np.uint8, SHAPE, elements=st.integers(0, 255)))


def patch_of(code):
    patch = np.zeros((3, 3), bool)
    for bit, (row, column) in enumerate(RING):
        patch[1 + row, 1 + column] = code >> bit & 1
    return patch


@pytest.mark.parametrize("code", range(256))
def test_simple_points_by_their_definition(code):
    # One piece of foreground that touches the pixel by an edge, one of background that touches it at all.
    patch = patch_of(code)
    pieces = skimage_label(patch, connectivity=1)
    touching = {int(pieces[place]) for place in ((0, 1), (1, 0), (1, 2), (2, 1))} - {0}
    background = ~patch
    background[1, 1] = False
    assert SIMPLE[code] == (len(touching) == 1 and skimage_label(background, connectivity=2).max() == 1)


def test_codes_of_neighbours():
    rng = np.random.default_rng(0)
    inside = rng.random((6, 7)) > 0.5
    padded = np.pad(inside, 1)
    codes = neighbour_codes(padded)
    for row in range(1, 7):
        for column in range(1, 8):
            around = padded[row - 1 : row + 2, column - 1 : column + 2].copy()
            around[1, 1] = False
            assert (patch_of(codes[row, column]) == around).all()


def topology(mask):
    """Components and holes of 4-connected foreground, surrounded by background."""
    padded = np.pad(mask, 1)
    return skimage_label(padded, connectivity=1).max(), euler_number(padded, connectivity=1)


@settings(deadline=None)
@given(SLICES)
def test_warping_keeps_topology_and_ends_only_where_it_must(pair):
    label, prob = pair[0], (pair[1] / 255).astype(np.float32)
    target = prob.astype(np.float64) > 0.5
    warped = warp(label, prob, 0.5)
    assert topology(warped.label_HW) == topology(label)
    # What differs is what is marked, and none of it could still be flipped.
    assert ((warped.mismatch_HW > 0) == (warped.label_HW != target)).all()
    codes = neighbour_codes(np.pad(warped.label_HW, 1))[1:-1, 1:-1]
    assert not SIMPLE[codes[warped.mismatch_HW > 0]].any()


def test_borders_move_at_no_cost():
    label, target = np.zeros((12, 12), bool), np.zeros((12, 12), np.float32)
    label[1:4, 1:4], target[5:11, 2:11] = True, 1.0
    target[3, 3] = target[4, 3] = 1.0  # one pixel in common is enough
    score = warping_error(target[None], label[None])
    assert score.value == 0.0
    assert score.mismatches.tolist() == [0] * 10


def kinds(label, pred):
    """The kinds of the mismatches of a binary prediction, at t = 0.5."""
    mismatch = warp(np.array(label), np.array(pred, np.float32), 0.5).mismatch_HW
    return sorted(mismatch[mismatch > 0].tolist())


def framed(side=7, **marks):
    """A slice of cell in a frame of membrane, with pixels set."""
    mask = np.zeros((side, side), int)
    mask[1:-1, 1:-1] = 1
    for value, places in marks.items():
        for place in places:
            mask[place] = int(value == "cell")
    return mask


WALL = [(row, 3) for row in range(1, 6)]
GAP = [(row, 3) for row in (1, 2, 4, 5)]
NOTHING = np.zeros((5, 5), int)
DOT = np.pad([[1]], 2)


@pytest.mark.parametrize(
    ("label", "pred", "expected"),
    [
        (framed(membrane=WALL), framed(membrane=GAP), [MERGE]),
        (framed(), framed(membrane=WALL), [SPLIT]),
        (framed(), framed(membrane=[(3, 3)]), [HOLE_ADDITION]),
        (framed(membrane=[(3, 3)]), framed(), [HOLE_DELETION]),
        (NOTHING, DOT, [OBJECT_ADDITION]),
        (DOT, NOTHING, [OBJECT_DELETION]),
    ],
)
def test_one_error_of_each_kind(label, pred, expected):
    assert kinds(label, pred) == expected


def test_a_split_of_a_ring_is_none():
    # A ring that is cut once stays one cell, even though the cut pixel has cell on two sides: the window shows it.
    ring = framed(9)
    ring[3:6, 3:6] = 0
    cut = ring.copy()
    cut[1:3, 4] = 0
    assert kinds(ring, cut) == [HOLE_DELETION]
    # In a ring too wide for the window of 41 x 41 the same cut is taken for a split.
    wide = framed(61)
    wide[3:58, 3:58] = 0
    cut = wide.copy()
    cut[1:3, 30] = 0
    assert kinds(wide, cut) == [SPLIT]


def test_a_label_that_is_all_cell_has_neither_splits_nor_merges():
    pred = np.ones((1, 9, 9), np.float32)
    pred[0, :, 4] = 0.0
    score = warping_error(pred, np.ones((1, 9, 9)))
    assert score.value == 0.0
    assert score.object_additions[0] == score.mismatches[0] == 1


def test_errors_are_counted_by_pixel_over_all_slices():
    label, pred = np.array(framed(membrane=WALL)), np.array(framed(membrane=GAP), np.float32)
    score = warping_error(np.stack([pred, pred]), np.stack([label, label]))
    assert score.merges.tolist() == [2] * 10
    assert score.pixels == 98
    assert (score.value, score.threshold) == (2 / 98, 0.0)


@settings(deadline=None)
@given(SLICES)
def test_no_more_errors_than_differences(pair):
    label, prob = pair[0][None], (pair[1] / 255).astype(np.float32)[None]
    score = warping_error(prob, label)
    differing = [int(((prob.astype(np.float64) > t) != label).sum()) for t in score.thresholds]
    assert (score.mismatches <= differing).all()
    parts = (
        score.merges,
        score.splits,
        score.hole_additions,
        score.hole_deletions,
        score.object_additions,
        score.object_deletions,
    )
    assert (sum(parts) == score.mismatches).all()
    if regions(label[0]).max() == 0:
        assert not (score.merges + score.splits).any()


def test_a_slice_whose_places_do_not_fit_32_bits_is_refused_before_anything_is_copied():
    # Views of one pixel; with a border it is 46,341 pixels wide and 46,342 high.
    shape = (46_340, 46_339)
    with pytest.raises(SegbenchError, match="46340 x 46339 pixels"):
        Slice(np.broadcast_to(np.float32(0.5), shape), np.broadcast_to(np.True_, shape))
