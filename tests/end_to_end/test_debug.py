"""Runs that look for a fault: debug=default, fast, limit, overfit, profile."""

import csv
import json

import pytest

from segbench.config.packaged import conf_root

OPTIONS = sorted(path.stem for path in (conf_root() / "debug").glob("*.yaml"))
SMALL = (
    *("trainer.accelerator=cpu", "threads=1", "trainer.precision=32-true", "task.channels_last=false"),
    *("data.train=4", "data.val=2", "data.test=3", "data.height=32", "data.width=32", "data.tile=32"),
    *("data.batch_size=2", "data.repeats=4", "model.width=4", "model.depth=1", "metrics=overlap"),
    *("scheduler.warmup_steps=0", "hydra.run.dir=run"),
)


@pytest.fixture
def run(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def debugged(*overrides):
        code, out, err = call("train", *SMALL, *overrides)
        assert code == 0, err
        return json.loads((tmp_path / "run" / "results.json").read_text()), out, tmp_path / "run"

    return debugged


def column(directory, name):
    with (directory / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_the_groups_are_those_that_are_told():
    assert OPTIONS == ["default", "fast", "limit", "overfit", "profile"]


@pytest.mark.parametrize("option", ["default", "fast", "limit"])
def test_a_debug_run_is_short_says_so_and_stands_beside_no_paper(run, option):
    results, out, directory = run(f"debug={option}")
    assert results["protocol"]["debug"] == option
    assert results["timing"]["steps"] == {"default": 4, "fast": 1, "limit": 12}[option]
    assert results["partial"]["counted"] == {"fast": 1}.get(option, 2)
    assert f"DEBUG, {option}: debug_quickstart" in out and "paper:" not in out
    if option == "default":
        assert "detect_anomaly: true" in (directory / "config.yaml").read_text()


def test_no_paper_stands_beside_a_debug_run_of_a_papers_experiment(compose):
    config = compose("experiment=unet_isbi_em", "data.root=x", "name=x", "debug=limit")
    assert config.paper is None and config.debug == "limit"


def test_the_same_batches_are_overfitted(run):
    results, _, directory = run("debug=overfit", "trainer.max_steps=120", "optimizer.lr=1e-2", "model.width=8")
    losses = column(directory, "train/loss")
    assert losses[-1] < 0.5 * losses[0]
    config = (directory / "config.yaml").read_text()
    assert "transforms: []" in config and "overfit_batches: 2" in config
    assert results["partial"] is None


def test_augmentation_comes_back_where_it_is_asked_for(compose):
    assert compose("name=x", "debug=overfit", "augment=flips").augment.arguments["transforms"]
    assert not compose("name=x", "debug=overfit", "experiment=unet_isbi_em", "data.root=x").augment.arguments[
        "transforms"
    ]


def test_a_profile_is_shown_and_kept(run):
    _, _, directory = run("debug=profile", "trainer.max_steps=3")
    kept = (directory / "fit-profile.txt").read_text()
    assert "Profiler Report" in kept and "run_training_batch" in kept
    assert "Profiler Report" in (directory / "run.log").read_text()
