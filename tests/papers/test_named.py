"""Wherever a paper's scores stand beside a run's, the run's deviations do too."""

import json
import shutil

import pytest

from segbench.config.paper import paper_blocks
from segbench.papers.named import name_deviations
from segbench.runs.directory import Run


@pytest.fixture
def run_beside_a_paper(tiny_run, tmp_path):
    def copied(**changes):
        run = Run.open(shutil.copytree(tiny_run, tmp_path / "run"))
        run.begin(run.config().replace({"paper": paper_blocks()["unet_isbi_em_cpu"]} | changes))
        return run

    return copied


def test_a_run_prints_and_keeps_its_deviations(run_beside_a_paper, capsys):
    run = run_beside_a_paper()
    name_deviations(run.path)
    kept = run.deviations()
    assert kept["experiment"] == "unet_isbi_em"
    assert "model.width: 4 instead of 64" in kept["deviations"]
    assert any(each.startswith("data._target_=") for each in kept["not_comparable"])
    assert "  model.width: 4 instead of 64\n" in capsys.readouterr().out


def test_an_evaluation_names_what_it_set_itself(run_beside_a_paper, tmp_path):
    run = run_beside_a_paper()
    evaluation = Run(tmp_path / "evaluation")
    evaluation.path.mkdir()
    shutil.copy(run.path / "config.yaml", evaluation.path)
    results = run.results()
    protocol = results["protocol"] | {"tta": "d4", "tile": 32}
    evaluation.write_results(results["metrics"], {}, {"run": str(run.path)}, protocol)
    name_deviations(evaluation.path)
    assert "tile: 32 instead of None" in evaluation.deviations()["deviations"]
    assert not (run.path / "deviations.json").exists()


def test_no_paper_no_deviations(tiny_run, run_beside_a_paper, capsys):
    name_deviations(tiny_run)
    partial = run_beside_a_paper()
    results = partial.results() | {"partial": {"counted": 1, "of": 2}}
    (partial.path / "results.json").write_text(json.dumps(results))
    name_deviations(partial.path)
    assert not (tiny_run / "deviations.json").exists() and not (partial.path / "deviations.json").exists()
    assert capsys.readouterr().out == ""
