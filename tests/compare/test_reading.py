import json
import os
import shutil

import pytest

from segbench.compare.grouping import group_runs
from segbench.compare.reading import find_runs, read_run, read_runs
from segbench.compare.records import LeftOut, identity
from segbench.errors import SegbenchError
from segbench.runs.directory import Run


def reason(path):
    left = read_run(path)
    assert isinstance(left, LeftOut), left
    assert left.source == str(path)
    return left.reason


class TestFindRuns:
    def test_a_run_a_folder_of_runs_and_a_glob(self, make_run, tmp_path):
        runs = [make_run(f"sweep/{number}", seed=number) for number in range(3)]
        assert find_runs(str(runs[1])) == [runs[1]]
        assert find_runs(str(tmp_path)) == find_runs(str(tmp_path / "sweep")) == runs
        assert find_runs(str(tmp_path / "sweep" / "[01]")) == runs[:2]
        assert find_runs(str(tmp_path / "**" / "2")) == runs[2:]

    def test_a_folder_whose_name_has_the_signs_of_a_glob_is_itself(self, make_run):
        run = make_run("lr=[0.1]")
        assert find_runs(str(run)) == [run]

    def test_links_to_runs_are_followed_and_a_run_counts_once(self, make_run, tmp_path):
        runs = [make_run(f"sweep/{number}", seed=number) for number in range(2)]
        chosen = tmp_path / "chosen"
        chosen.mkdir()
        for name, target in (("a", runs[1]), ("b", runs[1]), ("all", runs[0].parent), ("round", chosen)):
            (chosen / name).symlink_to(target)
        assert [path.resolve() for path in find_runs(str(chosen))] == [runs[1], runs[0]]
        records, left_out = read_runs([str(chosen), str(tmp_path / "sweep")])
        assert ([record.seed for record in records], left_out) == ([1, 0], [])

    def test_the_stages_of_a_run_are_part_of_it(self, make_run, tmp_path):
        run = make_run("run")
        make_run("run/stages/first")
        assert find_runs(str(tmp_path)) == [run]

    def test_how_its_stages_ran_sets_a_run_apart(self, make_run):
        def staged(name, seed, lr):
            run = make_run(name, seed=seed, stages=["first", "second"])
            first = make_run(f"{name}/stages/first", seed=seed, optimizer={"lr": lr})
            make_run(f"{name}/stages/second", seed=seed, init_from=str(first))
            return read_run(run).settings

        settings = [staged("a", 0, 0.1), staged("b", 1, 0.1), staged("c", 0, 0.2)]
        assert identity(settings[0]) == identity(settings[1]) != identity(settings[2])
        assert settings[0]["stage.first"] != settings[2]["stage.first"]
        assert settings[0]["stage.second"] == settings[2]["stage.second"]

    def test_a_run_that_starts_from_itself_is_damaged(self, make_run, tmp_path):
        assert "starts from itself" in reason(make_run("run", init_from=str(tmp_path / "run")))

    @pytest.mark.parametrize(("name", "said"), [("nothing", "no such file or folder"), (".", "no config.yaml in it")])
    def test_nothing_there_is_told(self, tmp_path, name, said):
        with pytest.raises(SegbenchError, match=rf"no run in .*: {said}.*\n.*expected: a run directory.*\n.*outputs/"):
            find_runs(str(tmp_path / name))


def made_partial(run, **keys):
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(results | keys))


PART = {"counted": 2, "of": 231}


class TestPartialRuns:
    def test_they_are_left_out_with_what_to_do(self, make_run, tmp_path):
        whole, part = make_run("sweep/whole"), make_run("sweep/part", seed=1)
        made_partial(part, partial=PART)
        records, (left,) = read_runs([str(tmp_path / "sweep")])
        assert [record.path for record in records] == [whole]
        assert left.source == str(part) and not left.wrong
        assert left.reason.startswith("partial: 2 of 231 images of test were counted, expected: each image once; ")
        assert f"(segbench evaluate run={part})" in left.reason
        _, (named,) = read_runs([str(whole), str(part)])
        assert named.wrong

    def test_an_evaluation_names_the_run_to_evaluate(self, make_run, make_evaluation):
        run = make_run("run", split="val")
        evaluation = make_evaluation("evaluation", run)
        made_partial(evaluation, partial=PART)
        _, (left,) = read_runs([str(evaluation)])
        assert f"(segbench evaluate run={run} split=val)" in left.reason

    def test_the_only_one_is_read_where_it_is_asked_for(self, make_run):
        runs = [make_run(str(seed), seed=seed) for seed in range(2)]
        for run in runs:
            made_partial(run, partial=PART)
        (record,), _ = read_runs([str(runs[0])], partial=True)
        assert str(record.partial) == "2 of 231 images"
        records, left = read_runs(list(map(str, runs)), partial=True)
        assert (records, len(left)) == ([], 2)

    def test_runs_of_version_0_1_0_are_told_by_their_counts(self, make_run):
        run = make_run("run", images=3)
        results = json.loads((run / "results.json").read_text())
        del results["partial"]
        (run / "results.json").write_text(json.dumps(results))
        ids = [f"image-{number:03d}" for number in range(3)]
        for splits, left_out in (({"test": ids}, 0), ({"test": [*ids, "further"]}, 1)):
            Run(run).write_splits(splits)
            assert len(read_runs([str(run)])[1]) == left_out

    def test_validations_of_a_part_lend_no_score(self, make_run):
        run = make_run("run")
        results = json.loads((run / "results.json").read_text())
        made_partial(run, metrics=results["metrics"] | {"val/mean_iu": 0.5}, partial_validation=PART)
        assert "val/mean_iu" not in read_run(run).metrics
        assert read_run(run).metrics.keys() == results["metrics"].keys()

    def test_what_cut_a_test_sets_no_whole_run_apart(self, make_run):
        runs = [make_run(str(seed), seed=seed, trainer={"limit_test_batches": seed}) for seed in range(2)]
        records, _ = read_runs(list(map(str, runs)))
        assert len(group_runs(records).groups) == 1


class TestReadRun:
    def test_what_was_set_and_what_came_out(self, make_run):
        record = read_run(make_run("run", seed=3, accuracy=0.9, optimizer={"lr": 0.1}))
        results = json.loads((record.path / "results.json").read_text())
        assert (record.name, record.seed, record.split) == ("tiny", 3, "test")
        assert record.settings["optimizer.lr"] == 0.1
        assert record.metrics == results["metrics"]
        assert record.versions == dict.fromkeys(results["metrics"], "fcn-1")
        assert record.trained == record.path
        assert record.timing == {"fit_s": 1.5}

    def test_a_score_that_is_not_defined_is_nan(self, make_run):
        run = make_run("run")
        results = json.loads((run / "results.json").read_text())
        results["metrics"]["test/iu/dog"] = None
        (run / "results.json").write_text(json.dumps(results))
        assert read_run(run).metrics["test/iu/dog"] != read_run(run).metrics["test/iu/dog"]

    @pytest.mark.parametrize("state", ["running", "failed", "interrupted", "prepared"])
    def test_a_run_that_did_not_finish_is_left_out_and_says_how_to_go_on(self, make_run, state):
        run = make_run("run", state=state)
        assert "segbench train resume=" in reason(run)

    def test_a_run_without_results_says_how_to_get_them(self, make_run):
        run = make_run("run")
        (run / "results.json").unlink()
        assert reason(run) == f"no results.json: segbench evaluate run={run}"

    @pytest.mark.parametrize(
        ("name", "text", "said"),
        [
            ("results.json", "{", "results.json is damaged"),
            ("results.json", "[]", "results.json is damaged"),
            ("results.json", '{"schema": 9, "metrics": {}}', "schema 9, this version reads 1"),
            ("results.json", '{"schema": 1, "metrics": ["a"]}', "no table of metrics"),
            ("results.json", '{"schema": 1, "metrics": {"a": "b"}}', "no table of metrics"),
            ("results.json", '{"schema": 1, "metrics": {}, "protocol": [1]}', "does not match its schema"),
            ("results.json", '{"schema": 1, "metrics": {}, "protocol": {"versions": {"a": 1.5}}}', "no table of texts"),
            ("results.json", '{"schema": 1, "metrics": {}, "timing": {"steps": "9"}}', "no table of numbers"),
            ("state.json", "", "state.json is damaged"),
            ("config.yaml", "a: [", "config.yaml is damaged"),
            ("config.yaml", "- a", "config.yaml is not a mapping"),
            ("config.yaml", "\xff", "config.yaml is damaged"),
        ],
    )
    def test_damaged_files_are_named(self, make_run, name, text, said):
        run = make_run("run")
        (run / name).write_text(text, encoding="latin-1")
        assert said in reason(run)

    def test_an_evaluation_is_of_the_run_that_it_scored(self, make_run, make_evaluation):
        run = make_run("run", seed=2, optimizer={"lr": 0.1})
        record = read_run(make_evaluation("scored", run, tta="d4"))
        assert (record.name, record.seed) == ("tiny", 2)
        assert record.trained == run.resolve()
        assert record.settings["optimizer.lr"] == 0.1
        assert record.settings["tta"] == "d4"

    def test_an_evaluation_and_its_run_may_move_together(self, make_run, make_evaluation, tmp_path, monkeypatch):
        make_run("outputs/tiny/run")
        monkeypatch.chdir(tmp_path)
        make_evaluation("outputs/evaluate/one", tmp_path / "outputs/tiny/run", run="outputs/tiny/run")
        (tmp_path / "elsewhere").mkdir()
        shutil.move("outputs", "elsewhere/outputs")
        record = read_run(tmp_path / "elsewhere/outputs/evaluate/one")
        assert record.trained == (tmp_path / "elsewhere/outputs/tiny/run").resolve()

    def test_an_evaluation_without_its_run_is_left_out(self, make_run, make_evaluation):
        run = make_run("run")
        evaluation = make_evaluation("scored", run)
        shutil.rmtree(run)
        assert "which does not exist: move both together" in reason(evaluation)

    @pytest.mark.parametrize(
        ("monitor", "checkpoint", "set_apart"),
        [("val/x", "best", False), (None, "last", False), ("val/x", "last", True), (None, "best", True)],
    )
    def test_a_checkpoint_counts_where_it_is_not_the_run_s_own_choice(self, make_run, monitor, checkpoint, set_apart):
        record = read_run(make_run("run", checkpoint=checkpoint, callbacks={"checkpoint": {"monitor": monitor}}))
        assert record.settings.get("checkpoint") == (checkpoint if set_apart else None)

    def test_starting_from_seeds_of_one_experiment_is_one_setting(self, make_run):
        starts = [make_run(f"coarse-{seed}", seed=seed) for seed in range(2)]
        other = make_run("other", optimizer={"lr": 7})
        fine = [
            read_run(make_run(f"fine-{number}", init_from=str(start))).settings["init_from"]
            for number, start in enumerate([*starts, other])
        ]
        assert fine[0] == fine[1] != fine[2]
        assert fine[0].startswith("tiny (")


class TestReadRuns:
    def test_a_run_that_is_named_twice_is_read_once(self, make_run, tmp_path, monkeypatch):
        run = make_run("sweep/0")
        monkeypatch.chdir(tmp_path)
        records, left = read_runs(["sweep", str(run), "sweep/*"])
        assert [record.source for record in records] == ["sweep/0"]
        assert left == []

    def test_a_crashed_run_of_a_sweep_is_listed_and_the_others_are_read(self, make_run, tmp_path):
        make_run("sweep/0")
        make_run("sweep/1", state="failed")
        records, left = read_runs([str(tmp_path / "sweep")])
        assert [os.path.basename(record.source) for record in records] == ["0"]
        assert [os.path.basename(entry.source) for entry in left] == ["1"]
        assert left[0].reason == f"failed: segbench train resume={tmp_path / 'sweep/1'}"

    def test_real_runs_and_evaluations(self, tiny_run):
        (record,), left = read_runs([str(tiny_run)])
        assert left == []
        assert record.metrics == Run.open(tiny_run).results()["metrics"]
        assert record.settings["optimizer.lr"] == 0.002
