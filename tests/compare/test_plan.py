import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import segbench.compare.plan as module
from segbench.compare.components import MeanSquares, mean_squares, seeds_and_images
from segbench.compare.plan import (
    POWER,
    Plan,
    PlanRow,
    Spread,
    plan,
    plan_sentences,
    power,
    seeds_needed,
    smallest_difference,
)


def test_examples():
    assert doctest.testmod(module).failed == 0


class TestPower:
    @pytest.mark.parametrize("freedom", [1.5, 4, 30])
    @pytest.mark.parametrize("difference", [0.5, 2.0, 6.0])
    def test_it_is_that_of_scipy_s_noncentral_t(self, freedom, difference):
        bound = stats.t.ppf(0.975, freedom)
        theirs = stats.nct.sf(bound, freedom, difference)
        if difference < 3:
            theirs += stats.nct.cdf(-bound, freedom, difference)
        assert power(-difference, 1.0, freedom, 0.95) == pytest.approx(theirs)

    def test_where_nothing_varies_every_difference_is_shown(self):
        assert (power(0.1, 0.0, np.inf, 0.95), power(0.0, 0.0, np.inf, 0.95)) == (1.0, 0.0)
        assert smallest_difference(0.0, np.inf, 0.95) == 0.0

    @given(st.floats(1e-4, 10), st.floats(1, 500), st.sampled_from([0.8, 0.95, 0.99]))
    def test_the_smallest_difference_has_just_the_power(self, error, freedom, confidence):
        difference = smallest_difference(error, freedom, confidence)
        assert power(difference, error, freedom, confidence) == pytest.approx(POWER, abs=1e-4)


class TestSpread:
    def test_components_by_hand(self):
        # a = 5 - 40 / 20 and 1 - 40 / 20, which is cut off; b = 10 - 40 / 4 - 40 / 8 likewise.
        squares = MeanSquares((5.0, 1.0), (40.0, 40.0), 10.0, 0.0)
        assert Spread.of(squares, (4, 8), 20) == Spread((3.0, 0.0), (40.0, 40.0), 0.0, 0.0)

    def test_what_was_found_is_expected_again(self):
        rng = np.random.default_rng(0)
        tables = [rng.normal(size=(5, 1)) + rng.normal(size=30) + rng.normal(size=(5, 30)) for _ in range(2)]
        squares = mean_squares(tables)
        assert Spread.of(squares, (5, 5), 30).error((5, 5), 30) == pytest.approx(squares.error((5, 5), 30))

    def test_shares_of_the_variance_by_hand(self):
        # 4 / 2 + 4 / 4 of seeds, 40 / 20 of images, (20 / 2 + 60 / 4) / 20 of both.
        shares = Spread((4.0, 4.0), (20.0, 60.0), 40.0, 0.0).shares((2, 4), 20)
        assert shares == pytest.approx((3 / 6.25, 2 / 6.25, 1.25 / 6.25))
        assert Spread((0.0,), (0.0,), 0.0, 0.0).shares((3,), 20) == (0.0, 0.0, 0.0)

    def test_single_runs_vary_by_images_alone(self):
        squares = mean_squares([np.zeros((1, 9)), np.arange(9.0)[None]])
        spread = Spread.of(squares, (1, 1), 9)
        assert spread.error((1, 1), 9)[0] == pytest.approx(np.arange(9.0).std(ddof=1) / 3)


class TestSeedsNeeded:
    SEEDS = Spread((1e-4, 1e-4), (0.0, 0.0), 0.0, 0.0)

    def test_of_seeds_alone_it_is_that_of_the_t_test(self):
        needed = seeds_needed(self.SEEDS, 0.01, 100, 0.95)

        def reached(seeds):
            size = 0.01 / np.sqrt(2e-4 / seeds)
            return stats.nct.sf(stats.t.ppf(0.975, 2 * seeds - 2), 2 * seeds - 2, size)

        # The textbook's 17 per group for a difference of one standard deviation.
        assert needed == 17
        assert reached(17) >= 0.8 > reached(16)

    def test_no_number_of_seeds_makes_up_for_too_few_images(self):
        assert seeds_needed(Spread((1e-4, 1e-4), (0.0, 0.0), 0.1, 0.0), 0.01, 100, 0.95) is None

    def test_two_are_the_least(self):
        assert seeds_needed(self.SEEDS, 10.0, 100, 0.95) == 2
        assert seeds_needed(Spread((0.0, 0.0), (0.0, 0.0), 0.0, 0.0), 0.01, 100, 0.95) == 2


class TestPlan:
    SQUARES = MeanSquares((1e-4, 2e-4), (1e-3, 1e-3), 2e-3, 0.5)

    def test_more_runs_and_more_images_show_smaller_differences(self):
        made = plan("test/mean_iu", 0.02, self.SQUARES, (3, 4), 50, 0.95)
        assert made.runs == ((3, 4), (6, 8), (12, 16))
        assert [row.images for row in made.rows] == [50, 100, 200]
        smallest = np.array([row.smallest for row in made.rows])
        assert (np.diff(smallest, axis=0) < 0).all() and (np.diff(smallest, axis=1) < 0).all()
        needed = [row.seeds for row in made.rows]
        assert needed == sorted(needed, reverse=True)
        assert not made.seeds_unknown

    def test_the_present_runs_are_as_they_are(self):
        made = plan("test/mean_iu", 0.02, self.SQUARES, (3, 4), 50, 0.95)
        error = Spread.of(self.SQUARES, (3, 4), 50).error((3, 4), 50)
        assert made.rows[0].smallest[0] == smallest_difference(*error, 0.95)

    def test_pairs_of_seeds_have_one_spread(self):
        made = plan("test/mean_iu", 0.02, MeanSquares((1e-4,), (1e-3,), 2e-3, 0.0), (3, 3), 50, 0.95)
        assert made.runs == ((3, 3), (6, 6), (12, 12))
        assert made.rows[0].seeds is not None

    def test_one_run_against_several(self):
        made = plan("test/mean_iu", 0.02, self.SQUARES, (1, 4), 50, 0.95)
        assert made.runs == ((1, 4), (2, 8), (4, 16))

    @pytest.mark.parametrize("tables", [(np.zeros((1, 9)), np.arange(9.0)[None]), (np.arange(9.0)[None],)])
    def test_single_runs_have_no_spread_of_seeds(self, tables):
        squares = mean_squares(tables)
        made = plan("test/mean_iu", 0.02, squares, (1, 1), 9, 0.95)
        assert made.seeds_unknown
        assert [row.seeds for row in made.rows] == [None, None, None]
        assert [len(row.smallest) for row in made.rows] == [1, 1, 1]


class TestSentences:
    def said(self, *rows, runs=((3, 3),), difference=0.01):
        return plan_sentences(Plan("test/mean_iu", difference, runs, rows, (0.5, 0.3, 0.2)), "A", "B")

    def test_runs_that_are_enough_on_the_present_images(self):
        first, second = self.said(PlanRow(100, 7, (0.02,)), PlanRow(200, 5, (0.015,)))
        assert first == (
            "With 80 % power, A and B with 3 and 3 runs on 100 images show a difference in mean_iu of 0.0200 or more. "
            "To show 0.0100, train 7 runs a side and score 100 images."
        )
        assert second.startswith("Of the variance of the difference 50 % is of seeds, 30 % of images, and 20 % of what")

    def test_more_images_are_needed(self):
        said = self.said(PlanRow(100, None, (0.02,)), PlanRow(200, 5, (0.015,)))[0]
        assert "train 5 runs a side and score 200 images. On 100 images no number of runs is enough." in said

    def test_nothing_is_enough(self):
        said = self.said(PlanRow(100, None, (0.02,)), PlanRow(200, None, (0.015,)))[0]
        assert "No number of runs shows 0.0100 on up to 200 images: score more images." in said

    def test_single_runs(self):
        first, second = self.said(PlanRow(100, None, (0.02,)), runs=((1, 1),))
        assert first.endswith("between these two trained networks; 0.0100 takes about 400 images.")
        assert second.startswith("How many seeds show 0.0100 between the configurations is unknown")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("of_seeds", "of_images", "of_both"), [(1.0, 0.2, 0.2), (0.3, 2.0, 0.2), (0.5, 1.0, 20.0), (0.05, 0.1, 40.0)]
)
def test_the_planned_number_of_seeds_reaches_its_power(of_seeds, of_images, of_both):
    images, difference = 60, 1.2
    spread = Spread((of_seeds, of_seeds), (of_both, of_both), of_images * 2, 0.0)
    runs = seeds_needed(spread, difference, images, 0.95)
    rng = np.random.default_rng(0)
    shown = []
    for _ in range(4000):
        first, second = (
            rng.normal(size=(runs, 1)) * np.sqrt(of_seeds)
            + rng.normal(size=images) * np.sqrt(of_images)
            + rng.normal(size=(runs, images)) * np.sqrt(of_both)
            for _ in range(2)
        )
        shown.append(seeds_and_images(first, second + difference, False, 0.95).both.p < 0.05)
    expected = power(difference, *spread.error((runs, runs), images), 0.95)
    print(f"planned {runs} runs a side: power {np.mean(shown):.4f}, expected {expected:.4f}")
    # Rounding up to a whole run makes `expected` more than 0.8 where few are needed.
    assert expected >= POWER
    assert np.mean(shown) == pytest.approx(expected, abs=0.03)
