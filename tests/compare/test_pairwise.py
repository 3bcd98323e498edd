import json
import math
import shutil

import numpy as np
import pytest
from scipy import stats

from segbench.compare.columns import choose_columns
from segbench.compare.comparison import Settings
from segbench.compare.grouping import group_runs
from segbench.compare.pairing import pool_folds
from segbench.compare.pairwise import compare_groups
from segbench.compare.per_image import read_counts
from segbench.compare.reading import read_run, read_runs
from segbench.errors import SegbenchError

FAST = Settings(draws=1000)


@pytest.fixture
def compared(tmp_path):
    """`compared(**settings)`: the comparison of all runs made so far."""

    def compare(seeds_apart=False, ignore=(), **settings):
        table = group_runs(*read_runs([str(tmp_path)]), ignore, seeds_apart)
        return compare_groups(table, Settings(**({"draws": 1000} | settings)))

    return compare


@pytest.fixture
def two(make_run, compared):
    """Two runs of which the second is clearly better."""
    make_run("a", accuracy=0.7, optimizer={"lr": 1})
    make_run("b", accuracy=0.9, optimizer={"lr": 2})
    return compared


def by_name(differences):
    return {difference.name: difference for difference in differences}


class TestTwoRuns:
    def test_a_clear_difference_is_shown(self, two, tmp_path):
        comparison = two()
        (pair,) = comparison.pairs
        d = by_name(pair.differences)["mean_iu"]
        ours, theirs = (read_run(tmp_path / name).metrics["test/mean_iu"] for name in "ab")
        assert d.scores == (ours, theirs)
        assert d.difference == theirs - ours > 0
        assert 0 < d.low < d.difference < d.high
        assert d.better == "B"
        assert d.is_shown(0.95)
        assert (d.images, d.seeds, d.analysis, d.seeds_only) == (40, (1, 1), None, None)
        assert (d.p, d.permutation.swaps, d.permutation.exact) == (d.permutation.p, 1001, False)
        assert comparison.refusals == ()

    def test_every_score_that_the_files_carry_is_tested(self, two, tmp_path):
        (pair,) = two().pairs
        keys = {d.key for d in (*pair.differences, *pair.classes)}
        # The Dice of a class is a function of its IU.
        recorded = read_run(tmp_path / "a").metrics
        assert keys == {key for key in recorded if "/dice/" not in key}
        assert len(recorded) == len(keys) + 3
        assert [d.name for d in pair.classes] == ["iu/background", "iu/cat", "iu/dog"]

    def test_the_same_command_gives_the_same_numbers_in_any_order_of_the_images(self, make_run, compared):
        names = [f"image-{number:03d}" for number in range(40)]
        make_run("a", accuracy=0.7, optimizer={"lr": 1})
        make_run("b", accuracy=0.8, optimizer={"lr": 2})
        first, again = compared(), compared()
        assert first.pairs == again.pairs
        assert compared(seed=1).pairs != first.pairs
        path = make_run("a2", accuracy=0.7, optimizer={"lr": 1}) / "per_image.npz"
        stored = dict(np.load(path))
        order = np.random.default_rng(0).permutation(40)
        stored |= {key: value[order] for key, value in stored.items() if value.shape[:1] == (40,)}
        assert stored["ids"].tolist() == [names[place] for place in order]
        np.savez(path, **stored)
        shutil.rmtree(path.parent.parent / "a")
        shuffled = compared()
        for one, other in zip(first.pairs[0].differences, shuffled.pairs[0].differences, strict=True):
            # Float counts (the mean over images) are summed in another order.
            assert other.scores == pytest.approx(one.scores, abs=1e-12)
            assert (other.low, other.high, other.p) == pytest.approx((one.low, one.high, one.p), abs=1e-9)

    def test_a_run_and_a_copy_of_its_predictions_differ_in_nothing(self, make_run, compared, tmp_path):
        make_run("a", optimizer={"lr": 1})
        make_run("b", optimizer={"lr": 2})
        (pair,) = compared().pairs
        assert pair.differences == pair.classes == pair.changed == ()
        assert "test/mean_iu" in pair.equal

    def test_images_that_changed_most(self, two, tmp_path):
        (pair,) = two(images=3, metrics=("pixel_acc",)).pairs
        assert len(pair.changed) == 3
        sizes = [abs(image.difference) for image in pair.changed]
        assert sizes == sorted(sizes, reverse=True)
        stored = [np.load(tmp_path / name / "per_image.npz") for name in "ab"]
        matrices = [one["semantic/confusion/matrix"] for one in stored]
        first = pair.changed[0]
        place = stored[0]["ids"].tolist().index(first.id)
        accuracy = [np.trace(matrix[place]) / matrix[place].sum() for matrix in matrices]
        assert first.scores == pytest.approx(tuple(accuracy))
        rest = [np.delete(matrix, place, axis=0).sum(0) for matrix in matrices]
        without = [np.trace(matrix) / matrix.sum() for matrix in rest]
        assert first.without == pytest.approx(without[1] - without[0])

    def test_real_runs(self, tiny_run, tmp_path):
        other = shutil.copytree(tiny_run, tmp_path / "other")
        path = other / "config.yaml"
        path.write_text(path.read_text().replace("lr: 0.002", "lr: 0.003"))
        stored = dict(np.load(other / "per_image.npz"))
        stored["semantic/pixel_error/fp"] = stored["semantic/pixel_error/fp"] + 40
        np.savez(other / "per_image.npz", **stored)
        results = json.loads((other / "results.json").read_text())
        del results["metrics"]["test/pixel_error"]
        (other / "results.json").write_text(json.dumps(results))
        comparison = compare_groups(group_runs(*read_runs([str(tiny_run), str(other)])), FAST)
        (pair,) = comparison.pairs
        (d,) = pair.differences
        assert d.name == "pixel_error"
        assert d.difference > 0
        assert d.better == "A"
        assert d.permutation.exact
        assert d.permutation.swaps == 32
        assert {"test/threshold_mean_iu", "test/rand_error", "test/mean_iu"} <= set(pair.equal)


class TestSingleRuns:
    @pytest.mark.parametrize(("images", "swaps", "exact"), [(6, 64, True), (29, 1001, False), (31, 1001, False)])
    def test_p_is_of_the_permutation_test_at_every_number_of_images(self, make_run, compared, images, swaps, exact):
        make_run("a", accuracy=0.7, images=images, optimizer={"lr": 1})
        make_run("b", accuracy=0.9, images=images, optimizer={"lr": 2})
        d = by_name(compared().pairs[0].differences)["pixel_acc"]
        assert (d.permutation.swaps, d.permutation.exact) == (swaps, exact)
        assert d.p == d.permutation.p >= 2 / 64 if exact else d.p == pytest.approx(1 / 1001)


class TestSeeds:
    @pytest.fixture
    def six(self, make_run, compared):
        """Three seeds a side, the second side a little better."""
        for seed, accuracy in enumerate((0.75, 0.80, 0.85)):
            make_run(f"a{seed}", seed=seed, accuracy=accuracy, optimizer={"lr": 1})
            make_run(f"b{seed}", seed=seed, accuracy=accuracy + 0.02, optimizer={"lr": 2})
        return compared

    def test_seeds_widen_the_interval(self, six):
        together = by_name(six().pairs[0].differences)["pixel_acc"]
        alone = by_name(six(seeds_apart=True, baseline="A").pairs[0].differences)["pixel_acc"]
        assert together.seeds == (3, 3)
        assert together.permutation is None
        assert together.high - together.low > 2 * (alone.high - alone.low)

    def test_p_and_interval_say_the_same(self, six):
        pairs = [pair for confidence in (0.6, 0.8, 0.95) for pair in six(confidence=confidence).pairs]
        for d in (d for pair in pairs for d in (*pair.differences, *pair.classes)):
            assert d.interval == (d.analysis.both.low, d.analysis.both.high)
            assert d.p == d.analysis.both.p
            assert not d.disagrees(0.95)

    def test_welch_s_t_test_of_the_scores_is_kept_beside(self, six):
        comparison = six()
        d = by_name(comparison.pairs[0].differences)["mean_iu"]
        column = next(column for column in comparison.columns if column.name == "mean_iu")
        ours, theirs = (group.values(column) for group in comparison.table.groups)
        assert d.analysis.seeds.p == pytest.approx(stats.ttest_ind(theirs, ours, equal_var=False).pvalue)
        assert d.seeds_only is None

    def test_it_stands_in_the_table_where_images_are_few_or_dependent(self, make_run, compared, tmp_path):
        for seed in range(2):
            for rate, accuracy in ((1, 0.7), (2, 0.8)):
                path = make_run(f"{rate}-{seed}", seed=seed, accuracy=accuracy, optimizer={"lr": rate})
                described = json.loads((path / "dataset.json").read_text()) | {"dependence": "frames of one sequence"}
                (path / "dataset.json").write_text(json.dumps(described))
        (pair,) = compared().pairs
        assert pair.differences[0].seeds_only == pair.differences[0].analysis.seeds
        assert any(said.startswith("The images are frames of one sequence, so they are") for said in pair.sentences)

    def test_one_run_against_several_takes_their_spread(self, make_run, compared):
        make_run("a", accuracy=0.7, images=25, optimizer={"lr": 1})
        for seed in range(3):
            make_run(f"b{seed}", seed=seed, accuracy=0.9, images=25, optimizer={"lr": 2})
        comparison = compared(metrics=("pixel_acc",))
        (d,) = comparison.pairs[0].differences
        assert d.seeds == (1, 3)
        column = comparison.columns[0]
        theirs = comparison.table.groups[1].values(column)
        alone = np.var(theirs, ddof=1) * (1 + 1 / 3)
        assert d.analysis.seeds.error == pytest.approx(np.sqrt(alone))
        assert d.analysis.seeds.freedom == 2
        assert "not known of A, a single run" in " ".join(comparison.pairs[0].sentences)

    def test_swapped_groups_swap_the_sign(self, six):
        forth, back = (six(baseline=letter).pairs[0] for letter in "AB")
        for one, other in zip(forth.differences, back.differences, strict=True):
            assert (other.low, other.high) == pytest.approx((-one.high, -one.low))
            assert other.p == pytest.approx(one.p)

    def test_a_class_that_no_image_holds_is_not_defined(self, make_run, compared, tmp_path):
        for seed in range(2):
            for rate, accuracy in ((1, 0.7), (2, 0.8)):
                path = make_run(f"{rate}-{seed}", seed=seed, accuracy=accuracy, optimizer={"lr": rate})
                stored = dict(np.load(path / "per_image.npz"))
                matrix = stored["semantic/confusion/matrix"]
                matrix[:, :, 0] += matrix[:, :, 2]
                matrix[:, 2] = matrix[:, :, 2] = 0
                np.savez(path / "per_image.npz", **stored)
                results = json.loads((path / "results.json").read_text())
                results["metrics"] = {"test/pixel_acc": 0.5, "test/mean_iu": 0.5, "test/iu/dog": None}
                (path / "results.json").write_text(json.dumps(results))
                scores = read_counts(read_run(path)).of_all()
                results["metrics"] = {key: None if np.isnan(scores[key]) else scores[key] for key in results["metrics"]}
                (path / "results.json").write_text(json.dumps(results))
        (pair,) = compared(metrics=("mean_iu",)).pairs
        dog = by_name(pair.classes)["iu/dog"]
        assert all(math.isnan(value) for value in (dog.difference, dog.low, dog.high, dog.p, dog.p_adjusted))
        assert math.isfinite(pair.differences[0].p)

    def test_the_score_of_a_group_is_the_mean_over_its_runs(self, make_run, compared):
        for seed in range(2):
            make_run(f"a{seed}", seed=seed, accuracy=0.7, optimizer={"lr": 1})
            make_run(f"b{seed}", seed=seed, accuracy=0.9, optimizer={"lr": 2})
        comparison = compared()
        d = comparison.pairs[0].differences[0]
        column = next(column for column in comparison.columns if column.key == d.key)
        means = tuple(group.summary(column).mean for group in comparison.table.groups)
        assert d.scores == pytest.approx(means)

    def test_two_ways_of_scoring_the_same_networks_are_paired(self, make_run, make_evaluation, compared):
        for seed, accuracy in enumerate((0.75, 0.80, 0.85)):
            run = make_run(f"run{seed}", seed=seed, accuracy=accuracy)
            scored = make_evaluation(f"scored{seed}", run, tta="d4")
            # One more pixel is right in every image.
            stored = dict(np.load(run / "per_image.npz"))
            matrix = stored["semantic/confusion/matrix"]
            matrix[:, 0, 0] += 1
            matrix[:, 0, 1] -= 1
            np.savez(scored / "per_image.npz", **stored)
            results = json.loads((scored / "results.json").read_text())
            results["metrics"] = {}
            (scored / "results.json").write_text(json.dumps(results))
            results["metrics"] = {"test/pixel_acc": read_counts(read_run(scored)).of_all()["test/pixel_acc"]}
            (scored / "results.json").write_text(json.dumps(results))
        (pair,) = compared(metrics=("pixel_acc",)).pairs
        assert pair.same_networks
        (d,) = pair.differences
        # 40 pixels of 40 x 132, whatever the image and the seed.
        assert (d.low, d.difference, d.high) == pytest.approx((1 / 132,) * 3)


class TestManyGroups:
    @pytest.fixture
    def three(self, make_run, compared):
        for number, accuracy in enumerate((0.78, 0.80, 0.86)):
            make_run(str(number), accuracy=accuracy, optimizer={"lr": number})
        return compared

    def test_all_pairs_are_tested_and_p_is_adjusted_by_holm_for_each_score(self, three):
        pairs = three().pairs
        assert [(pair.first, pair.second) for pair in pairs] == [("A", "B"), ("A", "C"), ("B", "C")]
        for number, d in enumerate(pairs[0].differences):
            family = sorted(pair.differences[number].p for pair in pairs)
            by_hand = {}
            for place, p in enumerate(family):
                by_hand[p] = max(min(1.0, (3 - place) * p), *by_hand.values(), 0.0) if by_hand else min(1.0, 3 * p)
            for pair in pairs:
                assert pair.differences[number].p_adjusted == pytest.approx(by_hand[pair.differences[number].p])
            assert d.p_adjusted >= d.p

    def test_classes_are_adjusted_over_pairs_and_classes(self, three):
        pairs = three().pairs
        p = [d.p for pair in pairs for d in pair.classes]
        assert len(p) == 9
        smallest = min((d for pair in pairs for d in pair.classes), key=lambda d: d.p)
        assert smallest.p_adjusted == pytest.approx(min(1.0, 9 * smallest.p))

    @pytest.mark.parametrize("named", ["B", "lr=1"])
    def test_against_a_baseline(self, three, named):
        assert [(pair.first, pair.second) for pair in three(baseline=named).pairs] == [("B", "A"), ("B", "C")]

    def test_a_baseline_by_its_run(self, three, tmp_path):
        assert three(baseline=f"{tmp_path / '2'}/").pairs[0].first == "C"

    def test_a_baseline_that_is_none_is_told(self, three):
        with pytest.raises(
            SegbenchError, match=r"baseline=Z\n.*A \(lr=0\), B \(lr=1\), C \(lr=2\)\n.*correct baseline="
        ):
            three(baseline="Z")

    def test_more_than_ten_groups_are_tested_on_request(self, make_run, compared):
        for number in range(11):
            make_run(str(number), accuracy=0.7 + number / 50, images=8, optimizer={"lr": number})
        comparison = compared()
        assert comparison.pairs == ()
        assert "No pair of the 11 groups is tested: name two groups, or set baseline=LETTER" in comparison.notes[0]
        assert len(compared(baseline="A").pairs) == 10


class TestPlan:
    def test_the_leading_score_is_planned_on_request(self, make_run, compared):
        for seed, accuracy in enumerate((0.78, 0.80, 0.81)):
            make_run(f"a{seed}", seed=seed, accuracy=accuracy, optimizer={"lr": 1})
            make_run(f"b{seed}", seed=seed, accuracy=accuracy + 0.05, optimizer={"lr": 2})
        assert compared().pairs[0].plan is None
        (pair,) = compared(plan=0.02, metrics=("mean_iu", "pixel_acc")).pairs
        assert (pair.plan.key, pair.plan.difference) == ("test/mean_iu", 0.02)
        assert [row.images for row in pair.plan.rows] == [40, 80, 160]
        assert pair.plan.runs == ((3, 3), (6, 6), (12, 12))

    def test_single_runs_are_planned_by_images_alone(self, two):
        (pair,) = two(plan=0.01, metrics=("mean_iu",)).pairs
        assert pair.plan.seeds_unknown
        assert [len(row.smallest) for row in pair.plan.rows] == [1, 1, 1]
        assert "train two seeds or more of each" in pair.sentences[-1]

    @pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
    def test_a_plan_for_nothing_is_refused(self, value):
        with pytest.raises(SegbenchError, match=r"plan=.*\n.*a difference of the leading score, above 0\n.*plan=0.01"):
            Settings(plan=value)


class TestRefused:
    def test_other_images_are_refused_with_their_ids_and_the_table_stays(self, make_run, compared):
        make_run("a", optimizer={"lr": 1})
        make_run("b", ids=[f"other-{number:02d}" for number in range(40)], accuracy=0.9, optimizer={"lr": 2})
        comparison = compared()
        assert comparison.pairs == ()
        (refusal,) = comparison.refusals
        assert refusal.wrong
        assert refusal.what == "A (lr=1) and B (lr=2)"
        assert "only in" in refusal.error.found
        assert "other-00" in refusal.error.found
        assert len(comparison.table.groups) == 2

    def test_of_three_groups_those_that_can_be_compared_are(self, make_run, compared):
        make_run("a", optimizer={"lr": 1})
        make_run("b", accuracy=0.9, optimizer={"lr": 2})
        make_run("c", labels_seed=1, accuracy=0.85, optimizer={"lr": 3})
        comparison = compared()
        assert [(pair.first, pair.second) for pair in comparison.pairs] == [("A", "B")]
        assert [refusal.what for refusal in comparison.refusals] == ["A (lr=1) and C (lr=3)", "B (lr=2) and C (lr=3)"]
        assert all("different labels" in refusal.error.found for refusal in comparison.refusals)

    def test_seeds_on_other_images_make_a_group_that_is_not_tested(self, make_run, compared):
        make_run("a", optimizer={"lr": 1})
        make_run("b0", seed=0, accuracy=0.9, optimizer={"lr": 2})
        make_run("b1", seed=1, accuracy=0.9, optimizer={"lr": 2}, images=30)
        comparison = compared()
        assert comparison.pairs == ()
        assert comparison.refusals[0].what == "B (lr=2)"
        assert comparison.refusals[0].wrong

    def test_a_damaged_file_takes_its_run_out_of_the_tests(self, make_run, compared):
        make_run("a", accuracy=0.7, optimizer={"lr": 1})
        make_run("b0", seed=0, accuracy=0.9, optimizer={"lr": 2})
        path = make_run("b1", seed=1, accuracy=0.9, optimizer={"lr": 2}) / "per_image.npz"
        path.write_bytes(path.read_bytes()[:300])
        comparison = compared()
        assert comparison.pairs[0].differences[0].seeds == (1, 1)
        assert [len(group.runs) for group in comparison.table.groups] == [1, 2]
        (refusal,) = comparison.refusals
        assert refusal.wrong
        assert "is damaged" in refusal.error.found

    def test_counts_that_are_not_there_are_no_fault(self, make_run, compared):
        for number in range(2):
            path = make_run(str(number), accuracy=0.7 + number / 10, optimizer={"lr": number}) / "per_image.npz"
            path.unlink()
        comparison = compared()
        assert comparison.pairs == ()
        assert [refusal.wrong for refusal in comparison.refusals] == [False, False]

    def test_results_of_another_evaluation_than_the_counts_are_refused(self, make_run, compared):
        make_run("a", accuracy=0.7, optimizer={"lr": 1})
        path = make_run("b", accuracy=0.9, optimizer={"lr": 2}) / "results.json"
        results = json.loads(path.read_text())
        results["metrics"]["test/mean_iu"] += 1e-4
        path.write_text(json.dumps(results))
        (refusal,) = compared().refusals
        assert refusal.wrong
        assert "in results.json and" in refusal.error.found
        assert refusal.error.expected == "two files of one evaluation"

    def test_a_number_recorded_for_what_is_undefined_now_is_no_contradiction(self, make_run, compared):
        # No image has a dog: its IU is undefined.
        for name, accuracy in (("a", 0.7), ("b", 0.9)):
            path = make_run(name, accuracy=accuracy, optimizer={"lr": accuracy}) / "results.json"
            results = json.loads(path.read_text())
            with np.load(path.parent / "per_image.npz") as stored:
                arrays = {key: stored[key] for key in stored.files}
            matrices = arrays["semantic/confusion/matrix"]
            matrices[:, :, 0] += matrices[:, :, 2]
            matrices[:, 2] = matrices[:, :, 2] = 0
            np.savez(path.parent / "per_image.npz", **arrays)
            total = matrices.sum(0)
            results["metrics"] = {"test/pixel_acc": np.trace(total) / total.sum(), "test/iu/dog": 0.0}
            path.write_text(json.dumps(results))
        assert compared().refusals == ()

    def test_other_definitions_are_not_compared(self, make_run, compared):
        make_run("a", accuracy=0.7, optimizer={"lr": 1}, version="fcn-0")
        make_run("b", accuracy=0.9, optimizer={"lr": 2})
        comparison = compared()
        assert comparison.pairs == ()
        assert "definition fcn-0" in comparison.refusals[0].error.found
        assert {column.name for column in comparison.columns} >= {"mean_iu [fcn-0]", "mean_iu [fcn-1]"}

    def test_measures_that_were_set_differently_are_not_compared(self, tiny_run, tmp_path):
        other = shutil.copytree(tiny_run, tmp_path / "other")
        path = other / "config.yaml"
        target = "_target_: segbench.metrics.pixel.PixelError"
        path.write_text(path.read_text().replace(target, f"{target}\n    cell_class: 0"))
        stored = dict(np.load(other / "per_image.npz"))
        stored["semantic/v_info/f"] = stored["semantic/v_info/f"] / 2
        stored["semantic/pixel_error/fp"] = stored["semantic/pixel_error/fp"] + 1
        np.savez(other / "per_image.npz", **stored)
        (other / "results.json").write_text(
            json.dumps(
                json.loads((other / "results.json").read_text())
                | {
                    "metrics": {
                        "test/mean_iu": json.loads((other / "results.json").read_text())["metrics"]["test/mean_iu"]
                    }
                }
            )
        )
        (pair,) = compare_groups(group_runs(*read_runs([str(tiny_run), str(other)])), FAST).pairs
        assert "test/pixel_error" in pair.untested
        assert [d.name for d in pair.differences] == ["v_info"]


class TestChoice:
    def test_one_metric_leads_and_others_are_left(self, two):
        (pair,) = two(metrics=("fw_iu", "iu/cat")).pairs
        assert [d.name for d in pair.differences] == ["fw_iu", "iu/cat"]
        assert [d.name for d in pair.classes] == ["iu/background", "iu/dog"]

    def test_who_asks_for_no_overlap_score_gets_no_classes(self, two):
        (pair,) = two(metrics=("pixel_acc",)).pairs
        assert pair.classes == ()

    @pytest.mark.parametrize(
        ("patterns", "chosen"),
        [
            (("mean_iu",), ["mean_iu"]),
            (("test/mean_iu",), ["mean_iu"]),
            (("mean_*",), ["mean_acc", "mean_iu", "mean_iu_present", "mean_iu_all", "mean_iu_per_image"]),
            (("iu/*",), ["iu/background", "iu/cat", "iu/dog"]),
            (("iu/dog", "mean_iu", "iu/dog"), ["iu/dog", "mean_iu"]),
        ],
    )
    def test_patterns(self, make_run, patterns, chosen):
        table = group_runs([read_run(make_run("a"))])
        assert [column.name for column in choose_columns(table.columns, patterns)] == chosen

    def test_a_metric_that_no_run_has_is_told_with_its_neighbours(self, two):
        with pytest.raises(SegbenchError, match=r"metric=mean_iou\n.*score of the test split: mean_iu.*\n.*iu/\*"):
            two(metrics=("mean_iou",))

    def test_a_split_that_was_not_scored_is_told(self, two):
        with pytest.raises(SegbenchError, match=r"split=train\n.*a split that was scored: test\n"):
            two(split="train")

    def test_the_test_split_is_shown_where_both_are(self, make_run):
        path = make_run("a") / "results.json"
        results = json.loads(path.read_text())
        results["metrics"] = {"val/mean_iu": 0.1} | results["metrics"]
        path.write_text(json.dumps(results))
        columns = group_runs([read_run(path.parent)]).columns
        assert {column.split for column in choose_columns(columns)} == {"test"}
        assert [column.key for column in choose_columns(columns, split="val")] == ["val/mean_iu"]

    @pytest.mark.parametrize(
        ("setting", "said"),
        [({"confidence": 1.0}, "confidence=1.0"), ({"confidence": 95}, "confidence=95"), ({"draws": 3}, "draws=3")],
    )
    def test_settings_out_of_range(self, setting, said):
        with pytest.raises(SegbenchError, match=said):
            Settings(**setting)


class TestFolds:
    def make(self, make_run, folds=3, labels=range(3)):
        for fold, labels_seed in zip(range(folds), labels, strict=True):
            for rate, accuracy in ((1, 0.75), (2, 0.85)):
                make_run(
                    f"{rate}-{fold}",
                    accuracy=accuracy,
                    images=6,
                    labels_seed=labels_seed,
                    ids=[f"{fold}-{number}" for number in range(6)],
                    optimizer={"lr": rate},
                    data={"fold": fold, "images": f"digest of the splits of fold {fold}"},
                )

    def test_what_the_images_of_a_fold_decided_keeps_folds_together(self, make_run, tmp_path):
        for fold in range(2):
            for name, weights in (("auto", {"cell": 1.5 + fold}), ("given", {"cell": 2.0}), ("none", None)):
                ids = [f"{fold}-{number}" for number in range(3)]
                where = make_run(
                    f"{name}-{fold}", images=3, ids=ids, loss={"class_weights": weights}, data={"fold": fold}
                )
                if name == "auto":
                    settled = {"loss.class_weights": None, "loss.class_weights.cell": 1.5 + fold}
                    leg = {"step": 0, "changes": {}, "settled": settled, "provenance": {}}
                    (where / "history.jsonl").write_text(json.dumps(leg) + "\n")
        pooled = pool_folds(read_runs([str(tmp_path)])[0], "data.fold")
        assert [len(record.folds) for record in pooled] == [2, 2, 2]
        assert {record.settings.get("loss.class_weights") for record in pooled} == {"auto", None}

    def test_images_of_all_folds_are_pooled(self, make_run, tmp_path):
        self.make(make_run)
        records, left = read_runs([str(tmp_path)])
        pooled = pool_folds(records, "data.fold")
        assert len(pooled) == 2
        comparison = compare_groups(group_runs(pooled, left), FAST)
        (pair,) = comparison.pairs
        assert pair.images == 18
        assert [group.label for group in comparison.table.groups] == ["lr=1", "lr=2"]
        total = sum(
            np.load(tmp_path / f"1-{fold}" / "per_image.npz")["semantic/confusion/matrix"].sum(0) for fold in range(3)
        )
        accuracy = np.trace(total) / total.sum()
        assert by_name(pair.differences)["pixel_acc"].scores[0] == pytest.approx(accuracy, abs=1e-15)
        assert math.isclose(pooled[0].metrics["test/pixel_acc"], accuracy, abs_tol=1e-15)

    def test_a_key_that_no_run_sets_is_told(self, make_run, tmp_path):
        self.make(make_run)
        with pytest.raises(SegbenchError, match=r"folds=fold, which no run sets\n.*: data.fold\n"):
            pool_folds(read_runs([str(tmp_path)])[0], "fold")
