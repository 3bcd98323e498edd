import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from segbench.compare import components
from segbench.compare.components import MeanSquares, mean_squares, seeds_and_images, t_test
from segbench.compare.counts import ImageCounts
from segbench.metrics import Overlap

SIMULATIONS = 4000
KINDS = ("seeds", "images", "equal", "interaction")
SHARES = {
    "seeds": (0.8, 0.1, 0.1),
    "images": (0.1, 0.8, 0.1),
    "equal": (1 / 3, 1 / 3, 1 / 3),
    "interaction": (0.1, 0.1, 0.8),
}
"""Of the variance of a difference: seeds, images, interaction."""


def tables(seed, runs=(3, 4), images=12, spread=1.0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(count, 1)) * spread + rng.normal(size=(count, images)) for count in runs]


def test_examples():
    assert doctest.testmod(components).failed == 0


class TestMeanSquares:
    def test_by_hand(self):
        # Rows 1, 3 and 5, 5 against zeros: seeds' means 2 and 5, images' means 3 and 4, rests of 0.5.
        squares = mean_squares([np.zeros((2, 2)), np.array([[1.0, 3.0], [5.0, 5.0]])])
        assert squares.seeds == (0.0, 4.5)
        assert squares.both == (0.0, 1.0)
        assert squares.images == 0.5
        # A = 4.5 / 2, B = 0.5 / 2 and E = 1 / 4: A + B - E = 2.25.
        error, freedom = squares.error((2, 2), 2)
        assert error == 1.5
        assert freedom == pytest.approx(2.25**2 / (2.25**2 + 0.25**2 + 0.25**2))

    def test_they_are_those_of_a_two_way_analysis_of_variance(self):
        (table_SN,) = tables(0, runs=(4,), images=7)
        squares = mean_squares([table_SN])
        total = ((table_SN - table_SN.mean()) ** 2).sum()
        between_seeds = 7 * 3 * squares.seeds[0]
        between_images = 4 * 6 * squares.images
        assert between_seeds + between_images + 3 * 6 * squares.both[0] == pytest.approx(total)

    def test_a_single_run_takes_the_spread_of_the_other_side(self):
        single, several = tables(1, runs=(1, 5))
        squares = mean_squares([single, several])
        assert squares.seeds == (several.mean(1).var(ddof=1),) * 2
        assert squares.both[0] == squares.both[1] > 0
        assert squares.of_seeds((1, 5)) == pytest.approx((np.sqrt(squares.seeds[0] * (1 + 1 / 5)), 4))

    def test_kurtosis_lowers_the_degrees_of_freedom_of_images(self):
        even = MeanSquares((0.0, 0.0), (0.0, 0.0), 1.0, 0.0)
        uneven = MeanSquares((0.0, 0.0), (0.0, 0.0), 1.0, 3.0)
        assert even.error((2, 2), 30) == pytest.approx((np.sqrt(1 / 30), 29))
        assert uneven.error((2, 2), 30) == pytest.approx((np.sqrt(1 / 30), 2 / (2 / 29 + 3 / 30)))

    def test_never_below_what_the_interaction_alone_explains(self):
        assert MeanSquares((1.0, 1.0), (30.0, 30.0), 1.0, 0.0).error((2, 2), 10) == pytest.approx((np.sqrt(3), 18))


class TestReferences:
    @pytest.mark.parametrize("runs", [(3, 3), (2, 7)])
    def test_without_noise_of_images_it_is_welch_s_test(self, runs):
        rng = np.random.default_rng(0)
        scores = [rng.normal(size=count) for count in runs]
        image_N = rng.normal(size=20)
        found = seeds_and_images(*(score_S[:, None] + image_N for score_S in scores), False, 0.95)
        theirs = stats.ttest_ind(scores[1], scores[0], equal_var=False)
        interval = theirs.confidence_interval(0.95)
        for test in (found.both, found.seeds):
            assert test.p == pytest.approx(theirs.pvalue)
            assert (test.low, test.high) == pytest.approx((interval.low, interval.high))

    def test_without_noise_of_seeds_it_is_the_paired_test_of_images(self):
        # Evenly spread values have no excess kurtosis.
        first_N, second_N = np.random.default_rng(1).normal(size=40), np.linspace(-1, 1.2, 40)
        found = seeds_and_images(np.tile(first_N, (3, 1)), np.tile(first_N + second_N, (5, 1)), False, 0.95)
        theirs = stats.ttest_1samp(second_N, 0)
        assert found.both.p == pytest.approx(theirs.pvalue)
        assert found.both.error == pytest.approx(second_N.std(ddof=1) / np.sqrt(40))

    def test_pairs_of_seeds_are_those_of_the_paired_test(self):
        first, second = tables(2, runs=(6, 6), spread=3.0)
        second = second * 0 + first + np.random.default_rng(3).normal(size=(6, 1))
        found = seeds_and_images(first, second, True, 0.9)
        theirs = stats.ttest_rel(second.mean(1), first.mean(1))
        assert found.both.p == pytest.approx(theirs.pvalue)
        assert found.seeds.p == pytest.approx(theirs.pvalue)
        assert found.both.freedom == pytest.approx(5)


class TestTTest:
    def test_by_the_table(self):
        found = t_test(2.776445, 1.0, 4, 0.95)
        assert found.p == pytest.approx(0.05, abs=1e-6)
        assert found.low == pytest.approx(0, abs=1e-5)

    def test_nothing_varies(self):
        assert (t_test(0.0, 0.0, np.inf, 0.95).p, t_test(0.1, 0.0, np.inf, 0.95).p) == (1.0, 0.0)
        still = seeds_and_images(np.full((2, 5), 0.3), np.full((2, 5), 0.4), False, 0.95).both
        assert (still.low, still.high) == pytest.approx((0.1, 0.1))

    def test_what_is_not_defined_has_no_p(self):
        table_SN = np.full((2, 5), np.nan)
        found = seeds_and_images(table_SN, np.ones((3, 5)), False, 0.95)
        assert np.isnan([found.both.p, found.both.low, found.seeds.p]).all()

    def test_single_runs_are_not_its_business(self):
        with pytest.raises(ValueError, match="not known from single runs"):
            seeds_and_images(np.zeros((1, 5)), np.ones((1, 5)), False, 0.95)

    def test_one_image_leaves_the_test_over_seeds(self):
        found = seeds_and_images(*tables(4, images=1), False, 0.95)
        assert found.both == found.seeds


class TestProperties:
    @given(st.integers(0, 10**6), st.sampled_from([(2, 2), (3, 5), (1, 4), (6, 2)]), st.floats(0, 3))
    def test_swapped_groups_swap_the_sign(self, seed, runs, spread):
        first, second = tables(seed, runs, spread=spread)
        forth, back = (seeds_and_images(*pair, False, 0.95).both for pair in ((first, second), (second, first)))
        assert (back.low, back.high, back.p) == pytest.approx((-forth.high, -forth.low, forth.p))

    @given(st.integers(0, 10**6), st.sampled_from([(2, 2), (3, 5)]))
    def test_the_order_of_runs_and_images_changes_nothing(self, seed, runs):
        rng = np.random.default_rng(seed)
        both = tables(seed, runs)
        order = rng.permutation(12)
        shuffled = [rng.permutation(table_SN)[:, order] for table_SN in both]
        found, again = (seeds_and_images(*pair, False, 0.95).both for pair in (both, shuffled))
        assert (again.low, again.high, again.freedom) == pytest.approx((found.low, found.high, found.freedom))

    @given(st.integers(0, 10**6), st.floats(1e-3, 1e3), st.booleans())
    def test_it_scales(self, seed, factor, paired):
        both = tables(seed, (4, 4))
        found = seeds_and_images(*both, paired, 0.95).both
        scaled = seeds_and_images(*(factor * table_SN for table_SN in both), paired, 0.95).both
        assert scaled.p == pytest.approx(found.p)
        assert (scaled.low, scaled.high) == pytest.approx((factor * found.low, factor * found.high))

    @given(st.integers(0, 10**6), st.floats(-3, 3))
    def test_p_agrees_with_the_interval(self, seed, shift):
        first, second = tables(seed)
        for test in vars(seeds_and_images(first, second + shift, False, 0.9)).values():
            if not isinstance(test, MeanSquares) and abs(test.p - 0.1) > 1e-9:
                assert (test.p < 0.1) == (test.low > 0 or test.high < 0)


def effects(rng, runs, images, kind, skewed=False):
    """Two groups without a difference, whose difference has a variance of 1; `runs` of both, or of each."""
    of_seeds, of_images, of_both = SHARES[kind]
    counts = (runs, runs) if isinstance(runs, int) else runs
    per_run = 1 / sum(1 / count for count in counts)
    image_N = rng.exponential(size=images) - 1 if skewed else rng.normal(size=images)
    made = [
        rng.normal(size=(count, 1)) * np.sqrt(of_seeds * per_run)
        + rng.normal(size=(count, images)) * np.sqrt(of_both * per_run * images)
        for count in counts
    ]
    hardness_N = rng.normal(size=images) * 3 * np.sqrt(of_images * images)
    return made[0] + hardness_N, made[1] + hardness_N + image_N * np.sqrt(of_images * images)


SPREADS = {
    "seeds": (0.12, 0.05, 0.05),
    "images": (0.01, 0.6, 0.05),
    "equal": (0.15, 0.4, 0.3),
    "interaction": (0.005, 0.05, 0.8),
}
"""Standard deviations of the logit of being right: of seeds (over 30 images), of images in each group, and of both."""


def counted(rng, runs, images, kind):
    """Two groups of runs without a difference, scored by mean IU from counts: images of many sizes, hard and easy."""
    of_seeds, of_images, of_both = SPREADS[kind]
    of_seeds *= np.sqrt(30 / images)
    size_N1 = np.exp(rng.normal(9, 0.8, (images, 1)))
    labelled_NK = np.round(size_N1 * rng.dirichlet(np.full(4, 0.5), images)).astype(np.int64)
    hardness_NK = rng.normal(0, 1, (images, 1)) + rng.normal(0, 0.5, (images, 4))
    tables = []
    for _ in range(2):
        group_N1 = rng.normal(0, of_images, (images, 1))
        logit_SNK = 1.5 + hardness_NK + group_N1 + rng.normal(0, of_seeds, (runs, 1, 1))
        logit_SNK = logit_SNK + rng.normal(0, of_both, (runs, images, 1))
        hit_SNK = np.round(labelled_NK / (1 + np.exp(-logit_SNK))).astype(np.int64)
        missed_SN1 = (labelled_NK - hit_SNK).sum(-1, keepdims=True)
        # Most of what is missed is taken for the first class.
        predicted_SNK = hit_SNK + missed_SN1 // 8
        predicted_SNK[..., :1] += missed_SN1 - 4 * (missed_SN1 // 8)
        tables.append(mean_iu_table(hit_SNK, labelled_NK + predicted_SNK - hit_SNK))
    return tables


def mean_iu_table(hit_SNK, union_SNK):
    """Mean IU and influences of every run at once; `ImageCounts` is one run."""
    union_S1K = union_SNK.sum(1, keepdims=True)
    iu_S1K = hit_SNK.sum(1, keepdims=True) / union_S1K
    return (iu_S1K + hit_SNK.shape[1] * (hit_SNK - iu_S1K * union_SNK) / union_S1K).mean(-1)


def test_the_simulated_tables_are_those_of_counts():
    hit_NK, missed_NK = np.random.default_rng(0).integers(1, 50, (2, 9, 4))
    counts = {"hit": hit_NK, "labelled": hit_NK + missed_NK, "predicted": hit_NK + missed_NK[:, ::-1]}
    counts |= {"image_mean_iu": np.zeros(9), "images": np.ones(9, np.int64)}
    key = ("semantic", "pixel_acc")
    run = ImageCounts("", "test", tuple("abcdefghi"), {key: Overlap(tuple("abcd"))}, {key: counts}, False)
    ours = mean_iu_table(hit_NK[None], (hit_NK + missed_NK + missed_NK[:, ::-1])[None])
    score = "test/mean_iu"
    np.testing.assert_allclose(run.of_all()[score] + run.influences()[score], ours[0], rtol=1e-5)


def rejected(draw, shift=0.0, simulations=SIMULATIONS, paired=False):
    """The share of simulations whose p is below 0.05; the share whose 95 % interval misses the truth is the same."""
    found = []
    for _ in range(simulations):
        first_SN, second_SN = draw()
        test = seeds_and_images(first_SN, second_SN + shift, paired, 0.95).both
        assert (test.p < 0.05) == (test.low > 0 or test.high < 0)
        found.append(test.p < 0.05)
    return float(np.mean(found))


def test_a_true_null_is_rejected_about_as_often_as_the_test_says():
    rng = np.random.default_rng(0)
    assert rejected(lambda: effects(rng, 5, 40, "equal"), simulations=400) == pytest.approx(0.05, abs=0.035)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("images", [30, 200])
@pytest.mark.parametrize("runs", [3, 5, 10])
@pytest.mark.parametrize("skewed", [False, True])
def test_size_with_gaussian_and_with_skewed_images(runs, images, kind, skewed):
    rng = np.random.default_rng(0)
    size = rejected(lambda: effects(rng, runs, images, kind, skewed))
    print(f"{'skewed' if skewed else 'gaussian'} {runs} seeds, {images} images, {kind}: size {size:.4f}")
    assert (0.015 if kind == "interaction" else 0.035) <= size <= (0.09 if skewed else 0.07)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("images", [30, 200])
@pytest.mark.parametrize("runs", [3, 5, 10])
def test_size_with_counts_of_images(runs, images, kind):
    rng = np.random.default_rng(0)
    size = rejected(lambda: counted(rng, runs, images, kind))
    print(f"counts {runs} seeds, {images} images, {kind}: size {size:.4f}")
    assert (0.015 if kind == "interaction" else 0.035) <= size <= 0.09


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("runs", "paired"), [((3, 10), False), ((1, 5), False), ((5, 5), True), ((2, 2), False)])
def test_size_with_other_numbers_of_runs(runs, paired, kind):
    rng = np.random.default_rng(0)

    def draw():
        first_SN, second_SN = effects(rng, runs, 30, kind)
        # What all scorings of a network share does not count.
        network_S1 = 5 * rng.normal(size=(runs[0], 1)) if paired else 0.0
        return first_SN + network_S1, second_SN + network_S1

    size = rejected(draw, paired=paired)
    print(f"{'pairs of ' if paired else ''}{runs} seeds, 30 images, {kind}: size {size:.4f}")
    assert (0.015 if kind == "interaction" else 0.035) <= size <= 0.075


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("images", [30, 200])
def test_five_seeds_have_four_fifths_of_the_power_of_a_test_that_knows_the_variances(images, kind):
    rng = np.random.default_rng(0)
    # A z test shows a difference of 2.8 standard errors with a power of 0.8.
    power = rejected(lambda: effects(rng, 5, images, kind), shift=stats.norm.ppf(0.975) + stats.norm.ppf(0.8))
    print(f"power 5 seeds, {images} images, {kind}: {power:.4f}")
    assert power >= 0.8 * 0.8


@pytest.mark.slow
@pytest.mark.parametrize(("images", "share"), [(6, 0.13), (10, 0.11), (20, 0.07)])
def test_over_few_images_it_is_as_wrong_as_the_caveat_says(images, share):
    rng = np.random.default_rng(0)
    size = rejected(lambda: counted(rng, 5, images, "images"))
    print(f"counts 5 seeds, {images} images, images: size {size:.4f}")
    assert size == pytest.approx(share, abs=0.015)
