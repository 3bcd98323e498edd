from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from segbench.compare.counts import ImageCounts, reduced
from segbench.compare.resampling import (
    bootstrap_scores,
    holm,
    image_draws,
    image_swaps,
    interval,
    permutation_test,
)
from segbench.errors import SegbenchError
from segbench.metrics import Overlap

ACC = "test/pixel_acc"
MIU = "test/mean_iu"


def counts_of(matrix_NKK):
    measure = Overlap(tuple("abcdefgh"[: matrix_NKK.shape[-1]]))
    images = len(matrix_NKK)
    counts = {"matrix": matrix_NKK, "image_mean_iu": np.zeros(images), "images": np.ones(images, np.int64)}
    key = ("semantic", "pixel_acc")
    return ImageCounts(
        "", "test", tuple(map(str, range(images))), {key: measure}, {key: reduced(measure, counts)}, False
    )


def two_class_runs(rng, images):
    """Two runs of two classes without a difference between them: images differ, and both meet by chance."""
    hardness = rng.normal(0, 0.5, images)
    # Images of one size, as those of a benchmark nearly are, and of any share of the classes.
    first = rng.integers(50, 550, images)
    labelled = np.stack([first, 600 - first], axis=1)

    def run():
        logit = 2 + hardness + rng.normal(0, 0.3, images)
        right = rng.binomial(labelled, (1 / (1 + np.exp(-logit)))[:, None])
        matrix = np.zeros((images, 2, 2), np.int64)
        matrix[:, [0, 1], [0, 1]] = right
        matrix[:, [0, 1], [1, 0]] = labelled - right
        return counts_of(matrix)

    return run(), run()


class TestImageDraws:
    def test_every_draw_is_of_n_images_and_all_draws_come(self):
        draws = np.concatenate(list(image_draws(7, 2500, 0)))
        assert draws.shape == (2500, 7)
        assert (draws.sum(1) == 7).all()
        assert ((draws >= 0) & (draws == draws.astype(int))).all()

    def test_counts_are_multinomial(self):
        draws = np.concatenate(list(image_draws(5, 20_000, 0)))
        np.testing.assert_allclose(draws.mean(0), 1, atol=0.03)
        np.testing.assert_allclose(np.cov(draws.T), np.eye(5) - 1 / 5, atol=0.04)

    def test_a_seed_gives_the_same_draws_and_another_gives_others(self):
        first, again, other = (np.concatenate(list(image_draws(9, 1500, seed))) for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()


class TestBootstrap:
    def test_each_draw_is_scored_from_its_summed_matrix(self):
        rng = np.random.default_rng(0)
        matrix = rng.integers(0, 50, (6, 3, 3))
        scores = bootstrap_scores([counts_of(matrix)], [ACC, MIU], 200, 3)
        weights = np.concatenate(list(image_draws(6, 200, 3)))
        for draw, weight in enumerate(weights):
            total = np.einsum("n,nij->ij", weight, matrix)
            hit = np.diag(total)
            assert scores[0, 0, draw] == pytest.approx(hit.sum() / total.sum(), abs=1e-14)
            assert scores[0, 1, draw] == pytest.approx(np.mean(hit / (total.sum(0) + total.sum(1) - hit)), abs=1e-14)

    def test_both_runs_see_the_same_draws_of_images(self):
        run = counts_of(np.random.default_rng(0).integers(0, 50, (6, 2, 2)))
        first, second = bootstrap_scores([run, run], [MIU], 300, 0)
        np.testing.assert_array_equal(first, second)

    def test_the_interval_is_that_of_scipy(self):
        rng = np.random.default_rng(1)
        first, second = two_class_runs(rng, 60)
        ours = bootstrap_scores([first, second], [ACC], 20_000, 0)
        low, high, _ = interval(ours[1, 0] - ours[0, 0], 0.95)
        key = ("semantic", "pixel_acc")
        hits = [run.counts[key]["hit"].sum(1) for run in (first, second)]
        pixels = first.counts[key]["labelled"].sum(1)

        def statistic(a, b, n, axis=-1):
            return (b.sum(axis) - a.sum(axis)) / n.sum(axis)

        theirs = stats.bootstrap(
            (*hits, pixels), statistic, paired=True, n_resamples=20_000, method="percentile", random_state=0
        ).confidence_interval
        width = theirs.high - theirs.low
        assert low == pytest.approx(theirs.low, abs=0.03 * width)
        assert high == pytest.approx(theirs.high, abs=0.03 * width)

    def test_a_class_that_a_draw_lacks_is_not_defined_in_it(self):
        matrix = np.zeros((4, 2, 2), np.int64)
        matrix[:, 0, 0], matrix[0, 1, 1] = 10, 5
        drawn = bootstrap_scores([counts_of(matrix)], ["test/iu/b"], 4000, 0)[0, 0]
        assert np.isnan(drawn).mean() == pytest.approx((3 / 4) ** 4, abs=0.03)

    def test_a_score_that_a_run_lacks_is_nan(self):
        run = counts_of(np.ones((4, 2, 2), np.int64))
        assert np.isnan(bootstrap_scores([run], ["test/other"], 100, 0)).all()

    def test_too_few_draws_are_refused(self):
        with pytest.raises(SegbenchError, match="draws=10\n"):
            bootstrap_scores([counts_of(np.ones((4, 2, 2), np.int64))], [ACC], 10, 0)


class TestInterval:
    def test_by_hand(self):
        assert interval(np.arange(-1.0, 100.0), 0.5) == (24.0, 74.0, 0.0)

    def test_undefined_draws_are_left_out_and_counted(self):
        low, high, undefined = interval(np.array([np.nan, 1.0, 2.0, 3.0]), 0.95)
        assert undefined == 0.25
        assert 1.0 <= low <= high <= 3.0
        assert np.isnan(interval(np.full(5, np.nan), 0.95)[0])


class TestPermutation:
    def test_every_swap_by_hand(self):
        # Three images of ten pixels, 9, 8, 7 right in one run and 5, 6, 7 in the other: differences 4, 2, 0.
        right = np.array([[9, 8, 7], [5, 6, 7]])
        runs = []
        for hits in right:
            matrix = np.zeros((3, 2, 2), np.int64)
            matrix[:, 0, 0], matrix[:, 0, 1] = hits, 10 - hits
            runs.append(counts_of(matrix))
        found = permutation_test(runs[0], runs[1], [ACC], 100, 0)[ACC]
        # Of the signs of 4 and 2 one pair in two reaches 6 in size, whatever the sign of 0.
        assert (found.p, found.swaps, found.exact) == (0.5, 8, True)

    def test_exact_p_is_that_of_scipy(self):
        first, second = two_class_runs(np.random.default_rng(3), 8)
        found = permutation_test(first, second, [ACC, MIU], 1000, 0)
        key = ("semantic", "pixel_acc")
        a, b = (run.counts[key] for run in (first, second))

        def statistic(which, _other):
            # SciPy permutes within pairs: 1 where a run's own result stands.
            own = np.asarray(which)
            mixed = [np.where(own[:, None] == 1, x[k], y[k]).sum(0) for x, y in ((a, b), (b, a)) for k in keys]
            iu = [h / (lab + p - h) for h, lab, p in (mixed[:3], mixed[3:])]
            return iu[1].mean() - iu[0].mean()

        keys = ("hit", "labelled", "predicted")
        theirs = stats.permutation_test(
            (np.ones(8, int), np.zeros(8, int)),
            statistic,
            permutation_type="samples",
            vectorized=False,
            n_resamples=np.inf,
        )
        assert found[MIU].exact
        assert found[MIU].p == pytest.approx(theirs.pvalue)

    def test_drawn_swaps_come_near_all_of_them(self):
        first, second = two_class_runs(np.random.default_rng(4), 12)
        exact = permutation_test(first, second, [MIU], 5000, 0)[MIU]
        drawn = permutation_test(first, second, [MIU], 4000, 0)[MIU]
        assert (exact.exact, drawn.exact) == (True, False)
        assert drawn.p == pytest.approx(exact.p, abs=0.03)

    def test_swaps_are_all_there_are_or_drawn_with_none_first(self):
        chunks, exact = image_swaps(3, 8, 0)
        assert exact
        assert sorted(map(tuple, np.concatenate(list(chunks)).astype(int))) == sorted(product((0, 1), repeat=3))
        chunks, exact = image_swaps(4, 15, 0)
        swaps = np.concatenate(list(chunks))
        assert not exact
        assert swaps.shape == (16, 4)
        assert not swaps[0].any()

    def test_all_swaps_of_many_images_come_in_chunks(self):
        chunks, exact = image_swaps(12, 5000, 0)
        swaps = np.concatenate(list(chunks))
        assert exact
        assert len(np.unique(swaps, axis=0)) == 2**12

    def test_a_score_that_is_not_defined_has_no_p(self):
        run = counts_of(np.array([[[5, 0], [0, 0]]] * 4))
        assert np.isnan(permutation_test(run, run, ["test/iu/b"], 100, 0)["test/iu/b"].p)

    def test_p_is_uniform_where_nothing_differs(self):
        rng = np.random.default_rng(6)
        found = []
        for _ in range(200):
            first, second = two_class_runs(rng, 6)
            found.append(permutation_test(first, second, [ACC], 100, 0)[ACC].p)
        # An exact test of six pairs has p of 2/64, 4/64 ...; it rejects at 5 % in one of 32 cases at most.
        assert np.mean(np.array(found) < 0.05) == pytest.approx(1 / 32, abs=0.035)
        assert np.mean(found) == pytest.approx(0.5, abs=0.08)


class TestHolm:
    def test_by_hand(self):
        # Sorted 0.005, 0.01, 0.03, 0.04 by 4, 3, 2, 1, never falling.
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_what_is_not_defined_stays_and_does_not_count(self):
        adjusted = holm([0.02, float("nan"), 0.03])
        assert adjusted[0] == pytest.approx(0.04)
        assert np.isnan(adjusted[1])

    def test_none_and_one(self):
        assert holm([]) == []
        assert holm([0.3]) == [0.3]

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
    def test_between_the_plain_p_and_bonferroni_and_in_the_same_order(self, p):
        adjusted = holm(p)
        for one, other in zip(p, adjusted, strict=True):
            assert one <= other <= min(1.0, len(p) * one) + 1e-15
        order = np.argsort(p, kind="stable")
        assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def coverage(images, trials, draws=1000, seed=0):
    """The share of trials without a difference whose 95 % interval covers zero, for two scores."""
    rng = np.random.default_rng(seed)
    covered = np.zeros(2)
    for trial in range(trials):
        scores = bootstrap_scores(two_class_runs(rng, images), [ACC, MIU], draws, trial)
        for place in range(2):
            low, high, _ = interval(scores[1, place] - scores[0, place], 0.95)
            covered[place] += low <= 0 <= high
    return covered / trials


def test_intervals_cover_zero_about_as_often_as_they_say():
    assert (np.abs(coverage(100, 60, draws=400) - 0.95) < 0.09).all()


@pytest.mark.slow
@pytest.mark.parametrize("images", [100, 736])
def test_over_many_images_intervals_cover_zero_in_93_to_97_of_100_trials(images):
    covered = coverage(images, 1000)
    assert ((covered >= 0.93) & (covered <= 0.97)).all(), covered


@pytest.mark.slow
def test_over_six_images_they_do_not_which_is_why_p_comes_from_the_permutation_test():
    covered = coverage(6, 1000)
    assert (covered < 0.90).all(), covered
