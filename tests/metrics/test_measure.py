"""What every measure keeps: additive counts, scores over leading axes, and the function's value on the whole stack."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.errors import SegbenchError
from segbench.metrics import (
    BoundaryF1,
    ImageResult,
    InstanceOverlap,
    Measure,
    Overlap,
    PixelError,
    RandError,
    Seg,
    ThresholdBaseline,
    VInfo,
    VRand,
    WarpingError,
    challenge_scores,
    regions,
)

CHALLENGE = [PixelError(), RandError(), VRand(), VInfo(), WarpingError()]
MEASURES = [
    *CHALLENGE,
    ThresholdBaseline(),
    Seg(),
    InstanceOverlap(),
    Overlap(("membrane", "cell")),
    BoundaryF1(("membrane", "cell")),
]


def image(seed, shape=(24, 31), void=False):
    """A drawn image with everything that a measure may ask for."""
    rng = np.random.default_rng(seed)
    label = (rng.random(shape) > 0.3).astype(np.int64)
    cell = np.clip(label + rng.normal(0, 0.4, shape), 0, 1).astype(np.float32)
    if void:
        label[3:9, 5:12] = 255
    return ImageResult(
        label_HW=label,
        pred_HW=(cell > 0.5).astype(np.int64),
        prob_KHW=np.stack([1 - cell, cell]),
        raw_CHW=np.rint(cell * 255)[None],
        instances_HW=regions(label == 1),
    )


def total(measure, images):
    counts = [measure.counts(one) for one in images]
    return {key: np.sum([one[key] for one in counts], axis=0) for key in counts[0]}


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
class TestContract:
    def test_it_is_a_measure_with_described_scores(self, measure):
        assert isinstance(measure, Measure)
        scores = measure.scores(total(measure, [image(0)]))
        assert [info.name for info in measure.infos()] == list(scores)
        for info in measure.infos():
            assert info.range[0] <= scores[info.name] <= info.range[1]
            assert info.version == measure.version
            assert info.test_only == measure.test_only

    def test_counts_have_one_shape_and_type_whatever_the_image(self, measure):
        small, large = measure.counts(image(0)), measure.counts(image(1, (9, 50), void=True))
        for key in small:
            assert np.asarray(small[key]).dtype in (np.int64, np.float64)
            assert np.shape(small[key]) == np.shape(large[key])
            assert np.asarray(small[key]).dtype == np.asarray(large[key]).dtype

    def test_leading_axes(self, measure):
        draws = [total(measure, [image(seed), image(seed + 1)]) for seed in range(3)]
        together = measure.scores({key: np.stack([draw[key] for draw in draws]) for key in draws[0]})
        for index, draw in enumerate(draws):
            for name, value in measure.scores(draw).items():
                assert np.shape(value) == ()
                assert together[name].shape == (3,)
                assert together[name].dtype == np.float64
                np.testing.assert_equal(together[name][index], value)

    def test_no_image_at_all(self, measure):
        empty = {key: np.zeros_like(value) for key, value in total(measure, [image(0)]).items()}
        assert all(np.isnan(value) for value in measure.scores(empty).values())

    def test_no_labelled_pixel(self, measure):
        drawn = image(3)
        void = replace(drawn, label_HW=np.full_like(drawn.label_HW, 255))
        scores = measure.scores(total(measure, [void, void]))
        assert [name for name, value in scores.items() if not np.isnan(value)] == []

    def test_counts_of_version_0_1_0_give_the_same_scores(self, measure):
        counts = total(measure, [image(0), image(1)])
        without = {key: value for key, value in counts.items() if key != "labelled"}
        assert measure.scores(without) == measure.scores(counts)

    @settings(deadline=None, max_examples=15)
    @given(st.integers(0, 99), st.integers(1, 3))
    def test_any_split_into_batches(self, measure, seed, first):
        images = [image(seed + index, void=index % 2 == 1) for index in range(4)]
        whole = total(measure, images)
        parts = total(measure, images[:first]), total(measure, images[first:])
        for key in whole:
            np.testing.assert_allclose(whole[key], parts[0][key] + parts[1][key], rtol=1e-14)

    def test_missing_input_is_named(self, measure):
        bare = ImageResult(np.ones((4, 4), np.int64), np.ones((4, 4), np.int64))
        needs = measure.needs_prob or measure.needs_raw or measure.name in ("seg", "instances")
        if needs:
            with pytest.raises(SegbenchError, match=r"no probabilities|no raw image|without reference objects"):
                measure.counts(bare)
        else:
            measure.counts(bare)


def test_measures_of_a_split_are_the_functions_of_its_stack():
    images = [image(seed) for seed in range(3)]
    prob, label = np.stack([one.prob_KHW[1] for one in images]), np.stack([one.label_HW for one in images])
    expected = challenge_scores(prob, label).values()
    ours = {}
    for measure in CHALLENGE:
        ours |= measure.scores(total(measure, images))
    assert ours == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("measure", CHALLENGE, ids=lambda measure: measure.name)
def test_another_class_may_be_the_cell(measure):
    one = image(5)
    turned = ImageResult(1 - one.label_HW, 1 - one.pred_HW, one.prob_KHW[::-1].copy())
    other = type(measure)(cell_class=0)
    assert other.scores(total(other, [turned])) == measure.scores(total(measure, [one]))
    with pytest.raises(SegbenchError, match="cell_class=2 for a head of 2 classes"):
        type(measure)(cell_class=2).counts(one)


@pytest.mark.parametrize("measure", CHALLENGE, ids=lambda measure: measure.name)
def test_prediction_on_void_pixels_counts_for_nothing(measure):
    # A void strip at the edge, a membrane away from all else: whatever is predicted there, the counts are the same.
    label, cell = np.ones((12, 12), np.int64), np.full((12, 12), 0.9, np.float32)
    label[:, 5] = cell[:, 5] = 0
    label[:, 8], cell[:, 8] = 0, 0
    label[:, 9:] = 255
    counts = []
    for value in (0.9, 0.35):
        cell[:, 9:] = value
        counts.append(measure.counts(ImageResult(label, (cell > 0.5).astype(int), np.stack([1 - cell, cell]))))
    for key in counts[0]:
        if key == "pixels" and measure.name == "warping_error":
            assert counts[0][key] == 12 * 9
        np.testing.assert_array_equal(counts[0][key], counts[1][key])


def test_shapes_of_probability_and_label_must_agree():
    with pytest.raises(SegbenchError, match=r"of \(4, 5\) and a label of \(4, 4\) for pixel_error"):
        PixelError().counts(ImageResult(np.ones((4, 4), int), np.ones((4, 4), int), np.ones((2, 4, 5), np.float32)))


class TestThresholdBaseline:
    def test_by_hand(self):
        # Cell is dark: 10 and 20 against 30, one bright cell pixel lost. Cells IU 2/3, rest IU 2/3.
        label, raw = np.array([[1, 1, 1, 0, 0]]), np.array([[[10, 20, 99, 30, 40]]], np.float32)
        measure = ThresholdBaseline()
        score = measure.scores(measure.counts(ImageResult(label, label, raw_CHW=raw)))["threshold_mean_iu"]
        assert score == pytest.approx(2 / 3)

    @settings(deadline=None, max_examples=20)
    @given(st.integers(0, 999))
    def test_by_trying_every_threshold(self, seed):
        rng = np.random.default_rng(seed)
        label, raw = rng.integers(0, 2, (4, 5)), rng.integers(0, 256, (1, 4, 5)).astype(np.float32)
        label[0, :2] = 255
        overlap, measure = Overlap(("rest", "cell")), ThresholdBaseline()
        best = 0.0
        for threshold in range(257):
            for pred in (raw[0] >= threshold, raw[0] < threshold):
                totals = overlap.counts(ImageResult(label, pred.astype(int)))
                best = max(best, float(overlap.scores(totals)["mean_iu"]))
        ours = measure.scores(measure.counts(ImageResult(label, label, raw_CHW=raw)))["threshold_mean_iu"]
        assert ours == pytest.approx(best)

    @pytest.mark.parametrize(
        ("raw", "message"),
        [
            (np.full((1, 2, 2), 300.0), "from 300 to 300[\\s\\S]*from 0 to 255[\\s\\S]*low and high"),
            (np.full((1, 2, 2), np.nan), "from nan to nan"),
            (np.zeros((3, 2, 2)), "a raw image of 3 channels"),
        ],
    )
    def test_what_is_out_of_range_is_refused(self, raw, message):
        with pytest.raises(SegbenchError, match=message):
            ThresholdBaseline().counts(ImageResult(np.ones((2, 2), int), np.ones((2, 2), int), raw_CHW=raw))
