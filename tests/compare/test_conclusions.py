from dataclasses import replace

from segbench.compare.comparison import Comparison, Difference, Pair, Settings
from segbench.compare.conclusions import caveats, conclude, conclusions, method, overview, p_value
from segbench.compare.grouping import RunTable
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
    p_bootstrap=0.002,
    undefined=0.0,
    permutation=None,
    p=0.002,
    p_adjusted=0.002,
    images=100,
    seeds=(1, 1),
)
UNCLEAR = replace(CLEAR, low=-0.01, high=0.05, p_bootstrap=0.2, p=0.2, p_adjusted=0.2)
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

    def test_where_the_permutation_test_disagrees_with_the_interval(self):
        said = conclude(replace(CLEAR, p=0.2, p_adjusted=0.2), 0.95)
        assert "the interval excludes zero, but the permutation test, which assumes less, shows no difference" in said

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
        (said,) = caveats([pair_of(replace(CLEAR, seeds=(10, 12)))])
        assert said.startswith("Images and seeds are resampled together (10 runs of A, 12 runs of B)")
        assert "this compares the configurations" in said

    def test_one_run_against_several(self):
        said = caveats([pair_of(replace(CLEAR, seeds=(1, 10)))])
        assert "except the single run of A" in said[0]

    def test_ways_of_scoring_the_same_networks(self):
        (one,) = caveats([pair_of(CLEAR, same_networks=True)])
        assert one.startswith("The same trained network, scored in two ways: this compares the two ways of scoring")
        said = caveats([pair_of(replace(CLEAR, seeds=(12, 12)), same_networks=True)])
        assert said[0].startswith("The same 12 trained networks, scored in two ways, with seeds drawn together")

    def test_few_seeds_are_flagged(self):
        assert (
            "With fewer than 10 runs the spread of seeds is poorly known"
            in caveats([pair_of(replace(CLEAR, seeds=(3, 3)))])[1]
        )

    def test_few_images_are_flagged_with_the_permutation_test(self):
        few = replace(CLEAR, images=6, permutation=Permutation(0.03, 64, True))
        said = caveats([pair_of(few)])[1]
        assert said.startswith("With 6 images the interval is too narrow: a 95 % interval covers 84 % with 6 images")
        assert "a permutation test over all 64 swaps of the paired images" in said
        assert "With 6 images no p is below 0.031" in said

    def test_drawn_swaps_and_seeds(self):
        few = replace(CLEAR, images=20, seeds=(3, 3), permutation=Permutation(0.03, 10_001, False))
        said = caveats([pair_of(few)])[1]
        assert "over 10001 random swaps" in said
        assert "or from the bootstrap if that p is larger" in said

    def test_without_a_permutation_test(self):
        said = caveats([pair_of(replace(CLEAR, images=6, seeds=(1, 2)))])[1]
        assert "There is no permutation test" in said

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

    def test_nothing_at_all_differs(self):
        pair = Pair("A", "B", 5, (), (), (), equal=("test/mean_iu", "test/fw_iu"))
        assert conclusions(comparison_of(pair), pair) == [
            "A and B are the same in every score and every image: mean_iu, fw_iu."
        ]

    def test_of_many_pairs_those_that_differ_are_told(self):
        unclear = [replace(UNCLEAR, first=f, second=s) for f, s in (("A", "C"), ("B", "C"))]
        pairs = [pair_of(CLEAR), *(pair_of(d, first=d.first, second=d.second) for d in unclear)]
        said = overview(comparison_of(*pairs))
        assert said[0].startswith("B is better than A")
        assert said[1].startswith("No difference in mean_iu is shown between A-C, B-C.")

    def test_the_method_names_seed_draws_and_adjustment(self):
        said = method(comparison_of(pair_of(CLEAR, classes=(CLEAR, CLEAR)), pair_of(CLEAR)))
        assert "10000 draws of images" in said[0]
        assert "Resampling seed 0" in said[0]
        assert said[1] == (
            "p values are adjusted by Holm's procedure over the 2 pairs for each score "
            "and over all 2 comparisons of classes."
        )
        assert method(comparison_of()) == []

    def test_scores_are_not_adjusted_for_and_that_is_said(self):
        assert "p values are not adjusted for the number of scores" in method(comparison_of(pair_of(CLEAR, ERROR)))[-1]


def test_p_values():
    assert p_value(0.0002) == "p < 0.001"
    assert p_value(0.0449) == "p = 0.045"
    assert p_value(float("nan")) == "p undefined"
