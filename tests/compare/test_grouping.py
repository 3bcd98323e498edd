import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from segbench.compare.grouping import group_runs, letters, short, show_setting
from segbench.compare.reading import read_run, read_runs


@pytest.fixture
def grouped(make_run, tmp_path):
    """`grouped(*rates, seeds=2)`: a table of runs with those learning rates."""

    def make(*rates, seeds=2, **options):
        for rate in rates:
            for seed in range(seeds):
                make_run(f"{rate}-{seed}", seed=seed, accuracy=0.7 + rate / 10, optimizer={"lr": rate})
        return group_runs(*read_runs([str(tmp_path)]), **options)

    return make


def columns(table):
    return {column.key: column for column in table.columns}


def test_seeds_of_one_configuration_are_a_group(grouped):
    table = grouped(0.1, 0.2, seeds=3)
    assert [(group.name, group.label) for group in table.groups] == [("A", "lr=0.1"), ("B", "lr=0.2")]
    assert [[run.seed for run in group.runs] for group in table.groups] == [[0, 1, 2], [0, 1, 2]]
    assert table.differing == ("optimizer.lr",)
    assert table.groups[1].settings == {"optimizer.lr": 0.2}
    assert table.left_out == ()
    assert table.notes == ()


def test_mean_deviation_and_number(grouped):
    table = grouped(0.1, seeds=4)
    (group,), column = table.groups, columns(table)["test/mean_iu"]
    values = [run.metrics["test/mean_iu"] for run in group.runs]
    summary = group.summary(column)
    assert summary.mean == pytest.approx(sum(values) / 4)
    assert summary.sd == pytest.approx(math.sqrt(sum((v - sum(values) / 4) ** 2 for v in values) / 3))
    assert summary.n == 4


def test_one_run_has_no_deviation_and_an_undefined_score_is_not_counted(grouped):
    table = grouped(0.1, seeds=1)
    (group,), column = table.groups, columns(table)["test/mean_iu"]
    assert math.isnan(group.summary(column).sd)
    undefined = dataclasses.replace(group.runs[0], metrics={"test/mean_iu": math.nan})
    both = dataclasses.replace(group, runs=(*group.runs, undefined))
    assert both.summary(column).n == 1
    assert both.summary(column).mean == group.runs[0].metrics["test/mean_iu"]


def test_seeds_apart_makes_every_run_a_group(grouped):
    table = grouped(0.1, seeds=3, seeds_apart=True)
    assert [group.label for group in table.groups] == ["seed=0", "seed=1", "seed=2"]
    assert table.differing == ("seed",)


def test_what_is_ignored_sets_nothing_apart(grouped):
    table = grouped(0.1, 0.2, seeds=1, ignore=["optimizer"])
    assert len(table.groups) == 1
    assert table.differing == ()


def test_groups_are_called_by_their_experiments_where_these_differ(make_run, tmp_path):
    make_run("a", model={"_target_": "segbench.models.unet.UNet"}) and make_run(
        "b", accuracy=0.9, model={"_target_": "segbench.models.fcn.FCN"}
    )
    for name, label in (("a", "unet"), ("b", "fcn")):
        path = tmp_path / name / "config.yaml"
        path.write_text(path.read_text().replace("name: tiny", f"name: {label}"))
    table = group_runs(*read_runs([str(tmp_path)]))
    assert [group.label for group in table.groups] == ["unet", "fcn"]
    assert "name" not in table.differing


def test_a_long_label_is_cut_at_a_setting(make_run, tmp_path):
    for number in range(2):
        settings = {f"a_rather_long_setting_{key}": number for key in range(5)}
        make_run(str(number), accuracy=0.7 + number / 10, extra=settings)
    table = group_runs(*read_runs([str(tmp_path)]))
    assert table.groups[0].label == "a_rather_long_setting_0=0, ..."


def test_a_run_repeated_by_a_version_with_more_scores_of_classes_is_one_run(make_run, tmp_path):
    run = make_run("a_new")
    results = json.loads((run / "results.json").read_text())
    old = make_run("b_old")
    scores = {key: value for key, value in results["metrics"].items() if "/dice/" not in key}
    (old / "results.json").write_text(json.dumps(results | {"metrics": scores}))
    assert len(scores) < len(results["metrics"])
    table = group_runs(*read_runs([str(tmp_path)]))
    assert [record.source for record in table.runs] == [str(run)]
    assert table.left_out[0].reason == f"the same run as {run}: counted once"


def test_a_run_scored_twice_is_one_run(make_run, make_evaluation, tmp_path):
    run = make_run("run")
    make_evaluation("scored", run)
    table = group_runs(*read_runs([str(tmp_path)]))
    assert [record.source for record in table.runs] == [str(run)]
    assert table.left_out[0].source == str(tmp_path / "scored")
    assert table.left_out[0].reason == f"the same run as {run}: counted once"


def test_a_run_scored_in_another_way_is_another_group(make_run, make_evaluation, tmp_path):
    make_evaluation("scored", make_run("run"), tta="d4")
    table = group_runs(*read_runs([str(tmp_path)]))
    assert [group.settings for group in table.groups] == [{"tta": None}, {"tta": "d4"}]


@pytest.mark.parametrize(("ended", "scored"), [("last", "last"), ("best", "best"), ("best", "last")])
def test_what_was_scored_before_a_run_went_on_is_not_the_run(make_run, make_evaluation, tmp_path, ended, scored):
    runs = {seed: make_run(f"run_{seed}", seed=seed) for seed in (0, 1)}
    end = {0: 40, 1: 40 if ended == "last" else 30}

    def note(directory, step, checkpoint):
        results = json.loads((directory / "results.json").read_text())
        results["timing"] |= {"checkpoint_step": step, "steps": 40}
        results["protocol"] |= {"checkpoint": checkpoint}
        (directory / "results.json").write_text(json.dumps(results))

    for seed, run in runs.items():
        note(run, end[seed], ended)
        note(make_evaluation(f"sooner_{seed}", run), 20, scored)
        note(make_evaluation(f"then_{seed}", run), end[seed] if scored == ended else 40, scored)
    table = group_runs(*read_runs([str(tmp_path)]))
    found = sorted(sorted(Path(record.source).name for record in group.runs) for group in table.groups)
    after = [["then_0", "then_1"]] if scored != ended else []
    assert found == [["run_0", "run_1"], ["sooner_0", "sooner_1"], *after]


def test_runs_scored_at_several_scales_are_groups_by_their_scales(make_run, make_evaluation, tmp_path):
    # Runs before there were scales do not have the key.
    run = make_run("run")
    make_run("of_today", seed=1, tta_scales=None)
    for name, scales in (("a", [0.5, 1.0]), ("b", [1.0])):
        make_evaluation(name, run, tta="multiscale", tta_scales=scales)
    table = group_runs(*read_runs([str(tmp_path)]))
    settings = [{key: value for key, value in group.settings.items() if value is not None} for group in table.groups]
    assert sorted(map(str, settings)) == sorted(
        map(str, [{}, *({"tta": "multiscale", "tta_scales": scales} for scales in ([0.5, 1.0], [1.0]))])
    )


def test_runs_scored_at_another_input_scale_are_another_group(make_run, make_evaluation, tmp_path):
    run = make_run("run")
    make_evaluation("scored", run, input_scale=2.0)
    table = group_runs(*read_runs([str(tmp_path)]))
    assert [group.settings.get("input_scale") for group in table.groups] == [None, 2.0]


def test_runs_scored_with_other_grey_values_are_another_group(make_run, make_evaluation, tmp_path):
    run = make_run("run")
    for name, digest in (("scored", "a" * 64), ("again", "b" * 64)):
        make_evaluation(name, run, match_histogram=digest)
    table = group_runs(*read_runs([str(tmp_path)]))
    found = {group.settings.get("match_histogram") for group in table.groups}
    assert found == {None, "a" * 64, "b" * 64} and len(table.groups) == 3


def ensemble_of(make_evaluation, runs, name, first, *others, **protocol):
    """An evaluation of the mean of runs; its scores are those of the first."""
    beside = [{"run": str(runs[each]), "checkpoint": "last", "digest": str(each)} for each in others]
    return make_evaluation(name, runs[first], ensemble=beside, digest=str(first), **protocol)


def test_ensembles_are_the_same_by_their_networks_not_by_which_is_named_first(make_run, make_evaluation, tmp_path):
    runs = {seed: make_run(f"run_{seed}", seed=seed) for seed in (0, 1, 2)}
    made = [
        ensemble_of(make_evaluation, runs, "a", 0, 1, 2),
        ensemble_of(make_evaluation, runs, "b", 1, 2, 0),
        ensemble_of(make_evaluation, runs, "c", 2, 1, 0),
        ensemble_of(make_evaluation, runs, "other_way", 2, 1, 0, tta="d4"),
    ]
    table = group_runs(*read_runs([str(path) for path in made]))
    assert [[Path(run.source).name for run in group.runs] for group in table.groups] == [["a"], ["other_way"]]
    assert [(Path(entry.source).name, "counted once" in entry.reason) for entry in table.left_out] == [
        ("b", True),
        ("c", True),
    ]


def test_ensembles_of_one_run_with_others_are_not_one_run(make_run, make_evaluation, tmp_path):
    # The settings and the seed of the first network are the same, and here the scores are too.
    runs = {seed: make_run(f"run_{seed}", seed=seed) for seed in range(6)}
    made = [ensemble_of(make_evaluation, runs, f"beside_{each}", 0, each) for each in (1, 2)]
    table = group_runs(*read_runs([str(path) for path in made]))
    assert [len(group.runs) for group in table.groups] == [2] and not table.left_out
    (note,) = (note for note in table.notes if "seed" in note)
    assert note.startswith("The ensembles of A share networks: their scores are not independent")
    apart = [ensemble_of(make_evaluation, runs, f"of_{each}", each, each + 1) for each in (2, 4)]
    table = group_runs(*read_runs([str(path) for path in apart]))
    assert len(table.groups) == 1 and not [note for note in table.notes if "share" in note]


def test_an_ensemble_is_another_network_than_the_one_it_contains(make_run, make_evaluation, tmp_path):
    runs = {seed: make_run(f"run_{seed}", seed=seed) for seed in (0, 1)}
    together = ensemble_of(make_evaluation, runs, "together", 0, 1)
    table = group_runs(*read_runs([str(runs[0]), str(together)]))
    assert len({run.network for run in table.runs}) == len(table.groups) == 2
    # A place in a list is named with the list.
    assert table.groups[0].label == "ensemble.0=null" and table.groups[1].label.startswith("ensemble.0=last of ")


def test_a_copy_of_a_run_is_no_second_seed(make_run, tmp_path):
    make_run("a")
    make_run("b")
    table = group_runs(*read_runs([str(tmp_path)]))
    assert len(table.runs) == len(table.left_out) == 1


def test_runs_of_one_seed_with_other_scores_are_counted_and_said(make_run, tmp_path):
    make_run("a", accuracy=0.8)
    make_run("b", accuracy=0.9)
    table = group_runs(*read_runs([str(tmp_path)]))
    assert len(table.runs) == 2
    assert "A contains several runs of seed 0 with different scores" in table.notes[0]


def test_other_splits_are_other_groups(make_run, tmp_path):
    make_run("a", split="val")
    make_run("b", split="test", accuracy=0.9)
    assert len(group_runs(*read_runs([str(tmp_path)])).groups) == 2


def test_metrics_of_other_definitions_stand_in_other_columns(make_run, tmp_path):
    make_run("a", seed=0, version="fcn-0")
    make_run("b", seed=1)
    table = group_runs(*read_runs([str(tmp_path)]))
    mixed = [column for column in table.columns if column.key == "test/mean_iu"]
    assert [column.name for column in mixed] == ["mean_iu [fcn-0]", "mean_iu [fcn-1]"]
    assert [table.groups[0].summary(column).n for column in mixed] == [1, 1]


def test_an_unrecorded_definition_joins_the_only_recorded_one_and_is_said(make_run, tmp_path):
    make_run("a", seed=0)
    path = make_run("b", seed=1) / "results.json"
    results = json.loads(path.read_text())
    results["protocol"].pop("versions")
    path.write_text(json.dumps(results))
    table = group_runs(*read_runs([str(tmp_path)]))
    column = columns(table)["test/mean_iu"]
    assert (column.version, column.mixed) == ("fcn-1", False)
    assert table.groups[0].summary(column).n == 2
    assert "1 of 2 runs do not record the definitions of their metrics" in table.notes[-1]


def test_an_unrecorded_definition_is_apart_where_several_are_recorded(make_run, tmp_path):
    for seed, version in enumerate(["fcn-0", "fcn-1", "fcn-1"]):
        path = make_run(str(seed), seed=seed, version=version) / "results.json"
    results = json.loads(path.read_text())
    results["protocol"].pop("versions")
    path.write_text(json.dumps(results))
    table = group_runs(*read_runs([str(tmp_path)]))
    found = {c.name: table.groups[0].summary(c).n for c in table.columns if c.key == "test/mean_iu"}
    assert found == {"mean_iu [fcn-0]": 1, "mean_iu [fcn-1]": 1, "mean_iu [definition unknown]": 1}


def test_the_paper_s_metrics_come_first_then_the_monitored_one(make_run):
    paper = {"metrics": {"fw_iu": 0.5, "mean_acc": 0.5}}
    record = read_run(make_run("a", paper=paper, callbacks={"checkpoint": {"monitor": "val/mean_iu"}}))
    names = [column.name for column in group_runs([record]).columns]
    assert names[:4] == ["fw_iu", "mean_acc", "mean_iu", "pixel_acc"]


def test_what_no_configuration_says_is_noted(make_run, tmp_path):
    for seed, (commit, dirty, torch) in enumerate([("a" * 40, False, "2.12"), ("b" * 40, True, "2.13")]):
        path = make_run(str(seed), seed=seed) / "results.json"
        results = json.loads(path.read_text())
        results["provenance"] = {
            "git": {"commit": commit, "dirty": dirty},
            # Only one run's network is built by a further package: no difference between the two.
            "versions": {"torch": torch} | ({"timm": "1.0"} if dirty else {}),
            "processor": f"cpu {seed}",
        }
        path.write_text(json.dumps(results))
    notes = group_runs(*read_runs([str(tmp_path)])).notes
    assert "The runs used different code: aaaaaaaaaa (1), bbbbbbbbbb (1)." in notes
    assert "1 of 2 runs were made with uncommitted changes to the code." in notes
    assert [note for note in notes if "Versions" in note] == ["Versions of torch differ: 2.12, 2.13."]
    assert "Processors differ: cpu 0, cpu 1." in notes


def test_letters_go_on_after_z():
    named = [letters(number) for number in range(800)]
    assert len(set(named)) == 800
    assert named[24:28] == ["Y", "Z", "AA", "AB"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (True, "true"),
        (1e-12, "1e-12"),
        (3, "3"),
        ("segbench.models.unet.UNet", "UNet"),
        ("a.b", "a.b"),
        ([1, 2], "[1, 2]"),
    ],
)
def test_settings_are_shown_as_a_command_line_has_them(value, shown):
    assert show_setting(value) == shown


def test_the_short_name_of_a_target_is_what_it_is_of():
    assert [short(key) for key in ("model._target_", "optimizer.lr", "_target_")] == ["model", "lr", "_target_"]


def test_a_thousand_runs_are_grouped_without_a_doubt(make_run):
    record = read_run(make_run("run"))
    rng = np.random.default_rng(0)
    many = [
        dataclasses.replace(
            record,
            source=str(number),
            seed=number % 5,
            trained=None,
            settings=record.settings | {"optimizer.lr": number // 5},
            metrics={"test/mean_iu": rng.random()},
        )
        for number in range(1000)
    ]
    table = group_runs(many)
    assert len(table.groups) == 200
    assert all(len(group.runs) == 5 for group in table.groups)
