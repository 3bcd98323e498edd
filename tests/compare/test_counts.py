from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from segbench.compare.counts import EXACT, weighted_sums
from segbench.compare.per_image import read_counts
from segbench.compare.reading import read_run
from segbench.errors import SegbenchError
from segbench.metrics import Overlap


def counts_of(path):
    return read_counts(read_run(path))


class TestWeightedSums:
    @given(
        arrays.arrays(np.int64, (5, 3), elements=st.integers(0, 10**6)),
        arrays.arrays(np.int64, (4, 5), elements=st.integers(0, 5)),
    )
    def test_integers_are_summed_exactly(self, counts, weights):
        sums = weighted_sums(counts, weights.astype(np.float64))
        assert sums.dtype == np.int64
        np.testing.assert_array_equal(sums, weights @ counts)

    @given(
        arrays.arrays(np.int64, (4, 2), elements=st.integers(2**50, 2**60)),
        arrays.arrays(np.int64, (3, 4), elements=st.integers(0, 1)),
    )
    def test_also_those_that_float64_does_not_hold(self, counts, weights):
        # Pairs of pixels of a large image: sums of Python's integers are the reference.
        sums = weighted_sums(counts, weights.astype(np.float64))
        for row, weight in zip(sums, weights, strict=True):
            exact = [sum(int(w) * int(c) for w, c in zip(weight, column, strict=True)) for column in counts.T]
            assert row.tolist() == exact

    def test_the_limit_is_where_a_float_would_round(self):
        counts = np.array([[2**53], [1]])
        assert weighted_sums(counts, np.ones((1, 2)))[0, 0] == 2**53 + 1
        assert float(2**53) + 1.0 == 2.0**53 == EXACT

    def test_shapes_and_floats(self):
        counts = np.arange(24, dtype=np.float64).reshape(2, 3, 4) / 7
        sums = weighted_sums(counts, np.array([[1.0, 0.0], [2.0, 1.0]]))
        np.testing.assert_allclose(sums, np.stack([counts[0], 2 * counts[0] + counts[1]]))
        assert weighted_sums(np.array([3, 4]), np.array([[1.0, 2.0]])).tolist() == [11]

    def test_sums_that_no_integer_holds_are_refused(self):
        with pytest.raises(SegbenchError, match=r"sums reach .*\n.*64-bit integers"):
            weighted_sums(np.full((4, 1), 2**62), np.ones((1, 4)))


class TestInfluences:
    def test_of_a_mean_they_are_the_values_minus_it(self, make_run):
        # Images of one size: the pixel accuracy is the mean of the images' accuracies.
        counts = counts_of(make_run("run"))
        each, mean = counts.of_each()["test/pixel_acc"], counts.of_all()["test/pixel_acc"]
        np.testing.assert_allclose(counts.influences()["test/pixel_acc"], each - mean, atol=1e-9)

    def test_of_an_overlap_by_hand(self, make_run):
        # The derivative of h / u by an image's weight is (h_n - h / u u_n) / u.
        path = make_run("run", images=7)
        matrix = np.load(path / "per_image.npz")["semantic/confusion/matrix"]
        hit_N, union_N = matrix[:, 1, 1], matrix[:, 1].sum(-1) + matrix[:, :, 1].sum(-1) - matrix[:, 1, 1]
        hit, union = hit_N.sum(), union_N.sum()
        by_hand = 7 * (hit_N - hit / union * union_N) / union
        np.testing.assert_allclose(counts_of(path).influences()["test/iu/cat"], by_hand, atol=1e-6)

    def test_of_every_score_they_are_the_derivatives_by_an_image_s_weight(self, tiny_run):
        counts = counts_of(tiny_run)
        weights = np.full((10, 5), 1000.0) + np.kron([[1.0], [-1.0]], np.eye(5))
        for key, scores in counts.scores(weights).items():
            slopes = (scores[:5] - scores[5:]) / 2e-3 * 5
            np.testing.assert_allclose(counts.influences()[key], slopes - slopes.mean(), atol=2e-4, err_msg=key)

    def test_their_variance_is_the_bootstrap_s(self, make_run):
        counts = counts_of(make_run("run", images=200))
        weights = np.random.default_rng(0).multinomial(200, np.full(200, 1 / 200), size=4000).astype(np.float64)
        drawn = counts.scores(weights)["test/mean_iu"]
        influence = counts.influences()["test/mean_iu"]
        assert np.sqrt((influence**2).mean() / 200) == pytest.approx(drawn.std(), rel=0.05)

    def test_sums_that_no_integer_holds_are_refused(self, tiny_run):
        counts = counts_of(tiny_run)
        key = ("semantic", "rand_error")
        huge = {name: np.full_like(array, 2**59) for name, array in counts.counts[key].items()}
        with pytest.raises(SegbenchError, match=r"sums reach .*\n.*64-bit integers"):
            replace(counts.only({key}), counts={key: huge}).influences()


class TestSwapped:
    def test_a_swapped_image_counts_for_the_other_run(self, make_run):
        first, second = (counts_of(make_run(name, accuracy=a, images=4)) for name, a in (("a", 0.7), ("b", 0.9)))
        ours, theirs = first.swapped(second, np.array([[0.0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]]))
        for key, value in first.of_all().items():
            other = second.of_all()[key]
            assert (ours[key][0], theirs[key][0]) == pytest.approx((value, other))
            assert (ours[key][1], theirs[key][1]) == pytest.approx((other, value))
        matrices = [run.counts["semantic", "pixel_acc"]["hit"].sum(1) for run in (first, second)]
        mixed = np.where([False, True, False, False], matrices[1], matrices[0]).sum()
        assert ours["test/pixel_acc"][2] == pytest.approx(mixed / (4 * 132))

    def test_what_only_one_of_them_counts_is_left(self, tiny_run):
        counts = counts_of(tiny_run)
        key = ("semantic", "pixel_error")
        more = {key: counts.counts[key] | {"more": np.ones(5, np.int64)}}
        first, second = counts.only({key}), replace(counts.only({key}), counts=more)
        for one, other in ((first, second), (second, first)):
            assert one.swapped(other, np.zeros((1, 5)))[0]["test/pixel_error"][0] == first.of_all()["test/pixel_error"]


class TestScores:
    def test_weights_of_one_are_all_images_and_a_weight_of_two_is_an_image_twice(self, tiny_run):
        counts = counts_of(tiny_run)
        weights = np.array([[1.0, 1, 1, 1, 1], [2, 0, 1, 0, 0]])
        scores = counts.scores(weights)
        twice = counts.take(np.array([0, 0, 2])).of_all()
        for key, value in counts.of_all().items():
            assert scores[key][0] == pytest.approx(value, abs=1e-15)
            assert scores[key][1] == pytest.approx(twice[key], abs=1e-15)

    def test_a_score_of_summed_counts_is_no_mean_of_scores(self, make_run):
        counts = counts_of(make_run("run"))
        each = counts.of_each()["test/mean_iu"]
        assert each.shape == (40,)
        assert counts.of_all()["test/mean_iu"] != pytest.approx(each.mean(), abs=1e-4)
        assert counts.of_all()["test/mean_iu_per_image"] == pytest.approx(each.mean())

    def test_scores_say_what_they_are(self, tiny_run):
        infos = counts_of(tiny_run).infos
        assert infos["test/rand_error"].higher_is_better is False
        assert infos["test/mean_iu"].higher_is_better is True

    def test_images_in_the_order_of_their_ids(self, make_run):
        names = [f"image-{number:03d}" for number in range(40)]
        plain = counts_of(make_run("a"))
        shuffled = counts_of(make_run("b", ids=names[::-1])).in_order()
        assert shuffled.ids == plain.ids
        key = next(iter(plain.counts))
        np.testing.assert_array_equal(shuffled.counts[key]["hit"], plain.counts[key]["hit"][::-1])

    def test_the_reduced_matrix_gives_the_scores_of_the_whole(self, drawn_images, classes):
        measure = Overlap(classes, excluded=(1,))
        counts = [measure.counts(result) for result in drawn_images(6, 0.7, 0)]
        totals = {key: np.sum([one[key] for one in counts], axis=0) for key in counts[0]}
        reduced = [measure.reduced(one) for one in counts]
        summed = {key: np.sum([one[key] for one in reduced], axis=0) for key in reduced[0]}
        for name, value in measure.scores(totals).items():
            assert measure.scores(summed)[name] == value, name
