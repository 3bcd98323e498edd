"""What the challenge metrics refuse, and what they say; and that memory does not grow with the slices."""

import tracemalloc

import numpy as np
import pytest

from segbench.errors import SegbenchError
from segbench.metrics import challenge_scores, pixel_error, rand_error, thin, v_info, v_rand, warp, warping_error

METRICS = [pixel_error, rand_error, v_rand, v_info, warping_error, challenge_scores]
LABEL = np.ones((2, 3, 4), np.uint8)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("prob", "label", "message"),
    [
        (np.full((2, 3, 4), np.nan, np.float32), LABEL, r"slice 0 of the probabilities holds 12 NaN"),
        (np.full((2, 3, 4), -0.5), LABEL, r"reaches from -0.5 to 0[\s\S]*sigmoid or softmax"),
        (np.full((2, 3, 4), 200.0), LABEL, r"reaches from 0 to 200[\s\S]*divide bytes by 255"),
        (np.full((2, 3, 4), 200, np.uint8), LABEL, r"type uint8[\s\S]*astype\(np.float32\) / 255"),
        (np.ones((2, 3, 5), np.float32), LABEL, r"\(2, 3, 5\) and labels of shape \(2, 3, 4\)"),
        (np.ones((3, 4), np.float32), LABEL[0], r"shape \(3, 4\)[\s\S]*prob\[None\]"),
        (np.ones((0, 3, 4), np.float32), LABEL[:0], r"without a pixel[\s\S]*files or slices"),
        (np.ones((2, 0, 4), np.float32), LABEL[:, :0], r"without a pixel"),
        (np.ones((2, 3, 4), np.float32), LABEL * np.nan, r"label slice 0 holds NaN"),
    ],
)
def test_bad_input_names_the_remedy(metric, prob, label, message):
    with pytest.raises(SegbenchError, match=message):
        metric(prob, label)


def test_the_slice_at_fault_is_named():
    prob = np.ones((2, 3, 4), np.float32)
    prob[1, 0, 0] = 3.0
    with pytest.raises(SegbenchError, match="slice 1 of the probabilities reaches"):
        pixel_error(prob, LABEL)


def test_rounding_above_one_is_taken():
    prob = np.full((1, 3, 4), np.float32(1.0000002))
    assert challenge_scores(prob, LABEL[:1]).values()["pixel_error"] == 0.0


def test_a_label_without_cells():
    label, prob = np.zeros((2, 6, 6)), np.full((2, 6, 6), 0.25, np.float32)
    assert pixel_error(prob, label).value == 0.0  # from t = 0.3 on nothing is predicted, and that is right
    assert rand_error(prob, label).value == 1.0
    assert rand_error(prob, label, pairs=True).value == 0.0
    assert v_rand(prob, label).value == v_info(prob, label).value == 0.0
    assert warping_error(prob, label).value == 0.0


def test_a_label_that_is_one_cell():
    label, prob = np.ones((1, 6, 6)), np.ones((1, 6, 6), np.float32)
    scores = challenge_scores(prob, label).values()
    assert scores == {
        "pixel_error": 0.0,
        "rand_error": 0.0,
        "rand_error_pairs": 0.0,
        "v_rand": 1.0,
        "v_rand_pooled": 1.0,
        "v_info": 0.0,
        "warping_error": 0.0,
    }


def test_a_slice_without_cells_adds_nothing_to_pooled_counts():
    rng = np.random.default_rng(0)
    prob, label = rng.random((1, 9, 9), np.float32), rng.integers(0, 2, (1, 9, 9))
    both = [np.concatenate([stack, np.zeros_like(stack)]) for stack in (prob, label)]
    assert rand_error(*both).value == rand_error(prob, label).value
    assert v_rand(*both).value == pytest.approx(v_rand(prob, label).value / 2)


@pytest.mark.parametrize("kind", [np.float16, np.float64, bool])
def test_other_types_of_probabilities(kind):
    prob = np.array([[[0, 1, 1], [1, 0, 1]]]).astype(kind)
    assert pixel_error(prob, prob).value == 0.0


def test_probabilities_are_compared_as_float32():
    # In float64 0.3 is not above 0.1 + 0.1 + 0.1; as float32 it is.
    assert pixel_error(np.full((1, 1, 1), 0.3), np.ones((1, 1, 1))).tp.tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]


def test_inputs_may_be_views():
    rng = np.random.default_rng(1)
    prob, label = rng.random((3, 8, 10), np.float32), rng.integers(0, 2, (3, 8, 10))
    turned = challenge_scores(prob.T.copy().T, np.asfortranarray(label)).values()
    assert turned == challenge_scores(prob, label).values()


def test_thin_and_warp_refuse_what_is_no_slice():
    with pytest.raises(SegbenchError, match=r"mask of shape \(1, 2, 2\)"):
        thin(np.ones((1, 2, 2)))
    with pytest.raises(SegbenchError, match=r"threshold of 1.5"):
        warp(LABEL[0], np.ones((3, 4), np.float32), 1.5)
    with pytest.raises(SegbenchError, match=r"holds 1 NaN"):
        warp(LABEL[0, :1, :1], np.full((1, 1), np.nan), 0.5)


def test_memory_is_flat_in_the_number_of_slices():
    rng = np.random.default_rng(2)
    prob, label = rng.random((1, 128, 128), np.float32), rng.integers(0, 2, (1, 128, 128), np.uint8)

    def peak(slices):
        # Broadcast stacks own one slice whatever their length.
        stacks = np.broadcast_to(prob, (slices, 128, 128)), np.broadcast_to(label, (slices, 128, 128))
        tracemalloc.start()
        challenge_scores(*stacks)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(8)  # compiles, where nothing is cached
    # Which loops meet in time moves the peak by a few slices; keeping anything of each slice would add 64.
    assert peak(72) - peak(8) < 24 * prob.nbytes
