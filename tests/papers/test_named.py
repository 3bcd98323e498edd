"""Wherever a paper's scores stand beside a run's, the run's deviations do too."""

import json
import shutil

import numpy as np
import pytest
import tifffile

from segbench.config.paper import paper_blocks
from segbench.experiment.evaluate import evaluate
from segbench.papers.named import name_deviations
from segbench.runs.directory import Run

PAPER = paper_blocks()["unet_isbi_em_cpu"]


def beside(paper, tiny_run, path):
    run = Run.open(shutil.copytree(tiny_run, path))
    run.begin(run.config().replace({"paper": paper}))
    results = run.results()
    results["protocol"]["paper"] = paper
    (run.path / "results.json").write_text(json.dumps(results))
    return run


@pytest.fixture
def run_beside_a_paper(tiny_run, tmp_path):
    """A copy of the tiny run, as an experiment of a paper's row would have made it."""
    return beside(PAPER, tiny_run, tmp_path / "run")


@pytest.fixture
def evaluated(run_beside_a_paper, compose, tmp_path):
    def scored(*overrides):
        directory = tmp_path / "evaluation"
        given = compose(f"run={run_beside_a_paper.path}", *overrides, config="evaluate")
        evaluate(given, directory, list(overrides))
        name_deviations(directory)
        return Run.open(directory)

    return scored


def test_a_run_prints_and_keeps_its_deviations(run_beside_a_paper, capsys):
    run = run_beside_a_paper
    name_deviations(run.path)
    kept = run.deviations()
    assert kept["experiment"] == "unet_isbi_em"
    assert "model.width: 4 instead of 64" in kept["deviations"]
    assert any(each.startswith("data._target_=") for each in kept["not_comparable"])
    printed = capsys.readouterr().out
    assert "  model.width: 4 instead of 64\n" in printed
    assert "  not comparable: data._target_=" in printed


def test_an_evaluation_of_a_run_that_was_cut_off_names_that_too(run_beside_a_paper, evaluated, capsys):
    (run_beside_a_paper.path / "results.json").unlink()
    kept = evaluated().deviations()["deviations"]
    assert "the training was cut off before its last step or its test" in kept
    assert "model.width: 4 instead of 64" in kept
    assert not any("computed in" in each for each in kept)
    assert "cut off" in capsys.readouterr().out


def test_a_row_that_names_no_experiment_is_compared_with_the_one_that_has_it(tiny_run, tmp_path, capsys):
    run = beside(paper_blocks()["fcn16s_pascal_context"], tiny_run, tmp_path / "run")
    assert "experiment" not in run.results()["protocol"]["paper"]
    name_deviations(run.path)
    kept = run.deviations()
    assert kept["experiment"] == "fcn16s_pascal_context"
    assert any(each.startswith("whether the printed means count background") for each in kept["deviations"])
    assert "stages left out: fcn32s_pascal_context" in capsys.readouterr().out


def test_an_evaluation_names_what_it_set_itself_and_what_the_training_was(evaluated, run_beside_a_paper):
    legs = [json.loads(line) for line in (run_beside_a_paper.path / "history.jsonl").read_text().splitlines()]
    legs[0]["provenance"]["git"] = {"commit": "d" * 40, "dirty": True}
    (run_beside_a_paper.path / "history.jsonl").write_text("".join(json.dumps(leg) + "\n" for leg in legs))
    results = run_beside_a_paper.results()
    results["protocol"] |= {"precision": "bf16-mixed", "ended_by": "trainer.max_time"}
    (run_beside_a_paper.path / "results.json").write_text(json.dumps(results))
    named = evaluated("tile=32", "tta=d4", "checkpoint=last", "trainer.precision=32-true").deviations()["deviations"]
    for each in (
        "tile: 32 instead of None",
        "scored by its last checkpoint instead of its best one",
        "scored in 32-true, trained in bf16-mixed",
        "computed in bf16-mixed, the paper in float32",
        "training was ended by trainer.max_time",
        "code: changes that are in no commit, on top of dddddddddd",
    ):
        assert each in named
    assert any(each.startswith("code: goes on with commit") for each in named)
    assert any(each.startswith("trainer.max_steps: 3 instead") for each in named)


@pytest.mark.parametrize("overrides", [("+data.seed=9",), ("+data.test=3",)])
def test_no_paper_stands_beside_scores_of_other_images(evaluated, overrides, capsys):
    evaluation = evaluated(*overrides)
    assert evaluation.results()["protocol"]["paper"] is None
    assert evaluation.deviations() == {}
    assert "0.0382" not in capsys.readouterr().out


def test_no_paper_no_deviations(tiny_run, run_beside_a_paper, capsys):
    name_deviations(tiny_run)
    results = run_beside_a_paper.results() | {"partial": {"counted": 1, "of": 2}}
    (run_beside_a_paper.path / "results.json").write_text(json.dumps(results))
    name_deviations(run_beside_a_paper.path)
    assert not (tiny_run / "deviations.json").exists() and run_beside_a_paper.deviations() == {}
    assert capsys.readouterr().out == ""


def test_stages_are_named_too(run_beside_a_paper):
    stage = shutil.copytree(run_beside_a_paper.path, run_beside_a_paper.path / "stages" / "first")
    name_deviations(run_beside_a_paper.path)
    assert Run(stage).deviations()["deviations"]
    kept = run_beside_a_paper.deviations()["deviations"]
    assert "a stage that the row does not have: first" in kept


def test_a_finished_run_without_a_record_is_given_one_by_a_resume(run_beside_a_paper, call):
    code, printed, _ = call("train", f"resume={run_beside_a_paper.path}")
    assert code == 0 and "model.width: 4 instead of 64" in printed
    assert run_beside_a_paper.deviations()["deviations"]


def test_predictions_of_others_have_no_training_to_name(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("p.tif", np.eye(16, dtype=np.float32)[None])
    tifffile.imwrite("l.tif", np.eye(16, dtype=np.uint8)[None])
    code, printed, error = call("evaluate", "predictions=p.tif", "labels=l.tif", "hydra.run.dir=scored")
    assert code == 0, error
    assert "pixel_error" in printed
