from dataclasses import replace

from segbench.compare.comparison import Comparison, Difference, Pair, Settings
from segbench.compare.components import MeanSquares, SeedsAndImages, TTest
from segbench.compare.conclusions import caveats, conclude, conclusions, method, overview, p_value
from segbench.compare.grouping import RunTable
from segbench.compare.plan import Plan, PlanRow
from segbench.compare.resampling import Permutation
from segbench.spec import ScoreInfo

CLEAR = Difference(
    key="test/mean_iu",
    info=ScoreInfo("mean_iu", (0.0, 1.0), True, "fcn-1"),
    first="A",
    second="B",
    scores=(0.70, 0.72),
    low=0.01,
    high=0.03,
    p=0.002,
    p_adjusted=0.002,
    images=100,
    seeds=(1, 1),
    permutation=Permutation(0.002, 10_001, False),
)
UNCLEAR = replace(CLEAR, low=-0.01, high=0.05, p=0.2, p_adjusted=0.2)
TEST = TTest(0.01, 0.03, 0.002, 0.005, 4.0)
SEEDS = replace(
    CLEAR, permutation=None, analysis=SeedsAndImages(TEST, TEST, MeanSquares((1.0, 1.0), (1.0, 1.0), 1.0, 0.0))
)
FOLLOW = "p and the interval disagree: follow p, since the permutation test is exact over any number of images"
ERROR = replace(CLEAR, key="test/rand_error", info=ScoreInfo("rand_error", (0.0, 1.0), False, "1"))


def pair_of(*differences, classes=(), first="A", second="B", **more):
    return Pair(first, second, differences[0].images, tuple(differences), tuple(classes), (), **more)


def comparison_of(*pairs):
    return Comparison(RunTable((), (), (), ()), (), Settings(), pairs, (), ())


class TestOneScore:
    def test_a_difference_that_is_shown(self):
        assert conclude(CLEAR, 0.95) == (
            "B is better than A in mean_iu: 0.7000 for A, 0.7200 for B, difference +0.0200 "
            "(95 % interval +0.0100 to +0.0300, p = 0.002)."
        )

    def test_of_an_error_less_is_better(self):
        assert conclude(ERROR, 0.95).startswith("A is better than B in rand_error")

    def test_no_difference_is_shown_which_is_no_equality(self):
        said = conclude(UNCLEAR, 0.95)
        assert said.startswith("No difference between A and B is shown in mean_iu")
        assert said.endswith(
            "That does not make them equal: any difference from -0.0100 to +0.0500 is compatible with the result."
        )

    def test_the_level_is_that_of_the_interval(self):
        assert CLEAR.is_shown(0.95)
        assert not CLEAR.is_shown(0.999)
        assert "(99.9 % interval" in conclude(CLEAR, 0.999)

    def test_among_many_comparisons(self):
        said = conclude(replace(CLEAR, p=0.02, p_adjusted=0.2), 0.95, 10)
        assert said.startswith("No difference")
        assert "p = 0.200 adjusted for 10 comparisons" in said
        assert "on its own it would be shown" in said

    def test_where_p_and_the_interval_disagree_p_is_followed(self):
        narrow = conclude(replace(CLEAR, p=0.2, p_adjusted=0.2), 0.95)
        assert narrow.startswith("No difference between A and B is shown")
        assert f"That does not make them equal. {FOLLOW}" in narrow
        wide = conclude(replace(CLEAR, low=-0.01, p=0.04, p_adjusted=0.04), 0.95)
        assert wide.startswith("B is better than A")
        assert FOLLOW in wide
        assert not any(FOLLOW in conclude(d, 0.95) for d in (CLEAR, UNCLEAR, SEEDS))

    def test_nothing_differs(self):
        same = replace(CLEAR, scores=(0.7, 0.7), low=0.0, high=0.0, p=1.0, p_adjusted=1.0)
        assert conclude(same, 0.95) == "mean_iu is the same for A and B, and in every draw of images: 0.7000."

    def test_not_defined(self):
        undefined = replace(CLEAR, scores=(float("nan"), 0.7), p=float("nan"), p_adjusted=float("nan"))
        assert conclude(undefined, 0.95) == "Nothing can be concluded about mean_iu: it is not defined for A or B."
        assert not undefined.is_shown(0.95)
        assert undefined.better is None


class TestCaveats:
    def test_single_runs_do_not_tell_configurations_apart(self):
        (said,) = caveats([pair_of(CLEAR)])
        assert "compares the trained networks, 1 per group, on images like the 100 that were scored" in said
        assert "another seed may reverse the result" in said

    def test_many_seeds_do(self):
        (said,) = caveats([pair_of(replace(SEEDS, seeds=(10, 12)))])
        assert said.startswith("Seeds and images both count as chance (10 runs of A, 12 runs of B)")
        assert "this compares the configurations, on images like the 100 that were scored" in said

    def test_one_run_against_several(self):
        (said,) = caveats([pair_of(replace(SEEDS, seeds=(1, 10)))])
        assert "The spread of seeds is not known of A, a single run: that of the group it is compared with" in said

    def test_ways_of_scoring_the_same_networks(self):
        (one,) = caveats([pair_of(CLEAR, same_networks=True)])
        assert one.startswith("The same trained network, scored in two ways: this compares the two ways of scoring")
        (said,) = caveats([pair_of(replace(SEEDS, seeds=(12, 12)), same_networks=True)])
        assert said.startswith("The same 12 trained networks, scored in two ways and compared in pairs: this compares")

    def test_few_images_send_the_reader_to_the_test_over_seeds(self):
        said = caveats([pair_of(replace(SEEDS, images=6, seeds=(3, 3)))])
        assert said[1].startswith("With 6 images, p and the interval can be too sure where a few images decide")
        assert said[2].startswith("p (seeds only) is Welch's t test of the runs' scores")
        paired = caveats([pair_of(replace(SEEDS, images=6, seeds=(3, 3)), same_networks=True)])
        assert paired[2].startswith("p (seeds only) is the t test of pairs")

    def test_so_do_images_that_are_not_independent(self):
        said = caveats([pair_of(replace(SEEDS, seeds=(3, 3), dependence="slices of one stack"))])
        assert said[1] == (
            "The images are slices of one stack, so they are not independent: "
            "p and the interval are too sure about others."
        )
        assert said[2].startswith("p (seeds only)")
        single = caveats([pair_of(replace(CLEAR, dependence="slices of one stack"))])
        assert single[1].startswith("The images are slices of one stack")
        assert len(single) == 2

    def test_the_smallest_p_of_few_swaps(self):
        said = caveats([pair_of(replace(CLEAR, images=6, permutation=Permutation(0.03, 64, True)))])
        assert said[1] == "With 6 images no p of a permutation test is below 0.031."

    def test_what_was_not_tested_and_what_is_equal(self):
        said = caveats([pair_of(CLEAR, untested=("test/v_rand",), equal=("test/threshold_mean_iu",))])
        assert said[1] == "Not tested, because a run lacks it or defines it differently: v_rand."
        assert said[2] == "Equal in all runs, as scores of the data alone or of equal predictions: threshold_mean_iu."


class TestAll:
    def test_few_scores_each_get_a_sentence(self):
        said = conclusions(comparison_of(pair_of(CLEAR, ERROR)), pair_of(CLEAR, ERROR))
        assert [sentence.split(":")[0] for sentence in said[:2]] == [
            "B is better than A in mean_iu",
            "A is better than B in rand_error",
        ]

    def test_many_are_summed_up(self):
        others = [replace(d, key=f"test/score_{n}") for n, d in enumerate((CLEAR, UNCLEAR, ERROR, UNCLEAR))]
        classes = [replace(UNCLEAR, key="test/iu/cat"), replace(CLEAR, key="test/iu/dog")]
        pair = pair_of(CLEAR, *others, classes=classes)
        said = conclusions(comparison_of(pair), pair)
        assert said[1] == (
            "Of the 4 other scores: A is better in score_2; B is better in score_0; "
            "no difference is shown in the other 2."
        )
        assert said[2] == "Of the 2 classes: B is better in dog; no difference is shown in the other 1."

    def test_those_summed_up_also_follow_p(self):
        pair = pair_of(
            CLEAR, classes=[replace(UNCLEAR, key="test/iu/cat", low=0.01), replace(CLEAR, key="test/iu/dog")]
        )
        said = conclusions(comparison_of(pair), pair)
        assert "In cat p and the interval disagree: follow p, since the permutation test is exact" in said[1]

    def test_nothing_at_all_differs(self):
        pair = Pair("A", "B", 5, (), (), (), equal=("test/mean_iu", "test/fw_iu"))
        assert conclusions(comparison_of(pair), pair) == [
            "A and B are the same in every score and every image: mean_iu, fw_iu."
        ]

    def test_a_plan_comes_last(self):
        planned = pair_of(SEEDS, plan=Plan("test/mean_iu", 0.01, ((3, 3),), (PlanRow(100, 7, (0.02,)),)))
        assert conclusions(comparison_of(planned), planned)[-2].startswith("With 80 % power, A and B with 3 and 3 runs")

    def test_of_many_pairs_those_that_differ_are_told(self):
        unclear = [replace(UNCLEAR, first=f, second=s) for f, s in (("A", "C"), ("B", "C"))]
        pairs = [pair_of(CLEAR), *(pair_of(d, first=d.first, second=d.second) for d in unclear)]
        said = overview(comparison_of(*pairs))
        assert said[0].startswith("B is better than A")
        assert said[1].startswith("No difference in mean_iu is shown between A-C, B-C.")

    def test_the_method_names_seed_draws_and_adjustment(self):
        said = method(comparison_of(pair_of(CLEAR, classes=(CLEAR, CLEAR)), pair_of(CLEAR)))
        assert said[1].startswith("Two single runs: p by a permutation test, 10000 random swaps of the two results")
        assert "10000 draws of images" in said[1]
        assert "Resampling seed 0" in said[1]
        assert said[2] == (
            "p values are adjusted by Holm's procedure over the 2 pairs for each score "
            "and over all 2 comparisons of classes."
        )
        assert method(comparison_of()) == []

    def test_the_method_says_of_each_kind_of_pair_how_it_was_tested(self):
        several = method(comparison_of(pair_of(SEEDS)))
        assert several[1].startswith("Several runs: p and interval by Student's t.")
        assert not any("bootstrap" in sentence or "permutation" in sentence for sentence in several)
        assert len(method(comparison_of(pair_of(SEEDS), pair_of(CLEAR)))) == 4

    def test_scores_are_not_adjusted_for_and_that_is_said(self):
        assert "p values are not adjusted for the number of scores" in method(comparison_of(pair_of(CLEAR, ERROR)))[-1]


def test_p_values():
    assert p_value(0.0002) == "p < 0.001"
    assert p_value(0.0449) == "p = 0.045"
    assert p_value(float("nan")) == "p undefined"
