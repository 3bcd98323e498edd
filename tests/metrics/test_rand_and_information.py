"""Rand error, V_Rand and V_Info: by hand, by brute force over pixel pairs, and beside scikit-image."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import label as skimage_label
from skimage.metrics import adapted_rand_error, variation_of_information

from segbench.metrics import THRESHOLDS, pixel_error, rand_error, v_info, v_rand

SHAPE = st.shared(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)))
STACKS = st.tuples(arrays(np.uint8, SHAPE, elements=st.integers(0, 9)), arrays(bool, SHAPE))


def test_a_merge_by_hand():
    # Cells of 2 and 3 pixels become one of 6; its membrane pixel is outside the label's foreground.
    # TP = 2^2 + 3^2 = 13, TP + FP = 5^2, TP + FN = 13. In pairs: 1 + 3 = 4 of 10.
    label, prob = np.array([[[1, 1, 0, 1, 1, 1]]]), np.ones((1, 1, 6), np.float32)
    now, pairs = rand_error(prob, label), rand_error(prob, label, pairs=True)
    assert (now.tp[0], now.fp[0], now.fn[0]) == (13, 12, 0)
    assert (pairs.tp[0], pairs.fp[0], pairs.fn[0]) == (4, 6, 0)
    assert now.value == pytest.approx(1 - 2 * 13 / (13 + 25))
    assert pairs.value == pytest.approx(1 - 2 * 4 / (4 + 10))


def test_a_split_by_hand():
    # One cell of 5 pixels, parted by a membrane pixel into 2 and 2: that pixel is a region of its own.
    label, prob = np.ones((1, 1, 5)), np.array([[[1, 1, 0, 1, 1]]], np.float32)
    now, pairs = rand_error(prob, label), rand_error(prob, label, pairs=True)
    assert (now.tp[0], now.fp[0], now.fn[0]) == (4 + 4 + 1, 0, 25 - 9)
    assert (pairs.tp[0], pairs.fp[0], pairs.fn[0]) == (2, 0, 10 - 2)


def test_v_info_by_hand():
    # Two cells of equal size, joined: the prediction says nothing of the label.
    label, joined = np.array([[[1, 1, 0, 1, 1]]]), np.ones((1, 1, 5), np.float32)
    score = v_info(joined, label)
    assert score.label_entropy[0, 0] == pytest.approx(np.log(2))
    assert (score.prediction_entropy[0, 0], score.value) == (0.0, 0.0)
    assert np.isnan(score.split[0, 0])
    # Taken apart at the right place it says all.
    apart = v_info(label.astype(np.float32), label)
    assert (apart.merge[0, 0], apart.split[0, 0], apart.value) == (1.0, 1.0, 1.0)


@settings(deadline=None)
@given(STACKS)
def test_pairs_by_brute_force(stacks):
    tenths, label = stacks
    prob = (tenths / 10).astype(np.float32)
    score = rand_error(prob, label, pairs=True)
    for t in (0, 5):
        counts = np.zeros(3, int)
        for prob_HW, label_HW in zip(prob, label, strict=True):
            truth = skimage_label(label_HW, connectivity=1).ravel()
            found = skimage_label(prob_HW > THRESHOLDS[t], connectivity=1).ravel()
            for one, two in combinations(np.flatnonzero(truth), 2):
                together = found[one] > 0 and found[one] == found[two]
                same = truth[one] == truth[two]
                counts += [together and same, together and not same, same and not together]
        assert [score.tp[t], score.fp[t], score.fn[t]] == counts.tolist()


@settings(deadline=None)
@given(STACKS)
def test_both_definitions_follow_from_the_same_counts(stacks):
    tenths, label = stacks
    prob = (tenths / 10).astype(np.float32)
    now, pairs = rand_error(prob, label), rand_error(prob, label, pairs=True)
    assert (now.tp == 2 * pairs.tp + np.count_nonzero(label)).all()
    assert (now.fp == 2 * pairs.fp).all()
    assert (now.fn == 2 * pairs.fn).all()


@settings(deadline=None)
@given(STACKS, st.randoms(use_true_random=False))
def test_slices_in_any_order(stacks, random):
    tenths, label = stacks
    prob = (tenths / 10).astype(np.float32)
    order = random.sample(range(len(prob)), len(prob))
    for metric in (pixel_error, rand_error):
        assert metric(prob[order], label[order]).value == metric(prob, label).value
    for metric in (v_rand, v_info):
        assert metric(prob[order], label[order]).value == pytest.approx(metric(prob, label).value, abs=1e-12)


def cells_and_prediction(seed):
    rng = np.random.default_rng(seed)
    label = rng.random((40, 50)) > 0.3
    return np.where(rng.random((40, 50)) < 0.9, label, ~label), label


@pytest.mark.parametrize("seed", range(3))
def test_rand_beside_scikit_image(seed):
    pred, label = cells_and_prediction(seed)
    truth, found = skimage_label(label, connectivity=1), skimage_label(pred, connectivity=1)
    # scikit-image knows no regions of one pixel each: they are numbered here.
    lone = (found == 0) & label
    found[lone] = found.max() + 1 + np.arange(lone.sum())
    error, first, second = adapted_rand_error(truth, found)
    ours = rand_error(pred[None].astype(np.float32), label[None])
    # It leaves a pixel out of each square (n instead of n^2 in the sums): pairs with itself, as 2014 did, times two.
    both = rand_error(pred[None].astype(np.float32), label[None], pairs=True)
    assert {round(first, 9), round(second, 9)} == {round(float(both.precision[5]), 9), round(float(both.recall[5]), 9)}
    assert error == pytest.approx(1 - both.per_threshold[5])
    assert ours.value <= both.value


@pytest.mark.parametrize("seed", range(3))
def test_information_beside_scikit_image(seed):
    pred, label = cells_and_prediction(seed)
    truth, found = skimage_label(label, connectivity=1), skimage_label(pred, connectivity=1)
    lone = (found == 0) & label
    found[lone] = found.max() + 1 + np.arange(lone.sum())
    # Label background is left out by giving both the same region there, apart from n: so it is cut out beforehand.
    splits, merges = variation_of_information(truth[label], found[label]) * np.log(2)
    ours = v_info(pred[None].astype(np.float32), label[None], thinned=False)
    assert ours.prediction_entropy[0, 5] - ours.information[0, 5] == pytest.approx(splits)
    assert ours.label_entropy[0, 5] - ours.information[0, 5] == pytest.approx(merges)


def test_pooled_and_mean_of_slices_differ():
    rng = np.random.default_rng(0)
    prob, label = rng.random((4, 16, 16), np.float32), rng.random((4, 16, 16)) > 0.3
    prob[0] = label[0]
    score = v_rand(prob, label)
    assert score.per_slice.shape == (4, 11)
    assert score.per_threshold == pytest.approx(score.per_slice.mean(0))
    assert score.value == score.per_threshold.max()
    assert score.pooled != pytest.approx(score.value, abs=1e-3)
    assert (score.merge == score.precision).all()
    assert (score.split == score.recall).all()
