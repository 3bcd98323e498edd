"""`segbench reproduce`: a paper's experiment trained, scored and compared, in a ledger."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from segbench.cli import main as cli
from segbench.errors import SegbenchError
from segbench.experiment.build import build_dataset
from segbench.experiment.settled_by_data import settle_by_data
from segbench.papers.reproduce import _check_same
from segbench.runs.directory import Run

EXPERIMENT = """\
# @package _global_
defaults:
  - quickstart
model: {{width: 4, depth: 2}}
data: {{train: 3, val: 1, test: 2, height: 48, width: 48, tile: 40, repeats: 2}}
trainer: {{max_steps: 2, val_check_interval: 2, precision: 32-true}}
callbacks: {{panels: null}}
threads: 1
paper:
  row: of_mine
  method: mine
  source: a table
  experiment: {reference}
  metrics: {{pixel_error: 0.0611}}
"""


@pytest.fixture
def mine(tmp_path):
    folder = tmp_path / "my configs, a=b" / "experiment"
    folder.mkdir(parents=True)
    (folder / "row.yaml").write_text(EXPERIMENT.format(reference="row"))
    (folder / "narrow.yaml").write_text(EXPERIMENT.format(reference="row").replace("{width: 4,", "{width: 2,"))
    return folder.parent


def reproduce(tmp_path, monkeypatch, *arguments):
    # The tree that the tests run in may have changes.
    allowed = () if any(each.startswith("allow_dirty") for each in arguments) else ("allow_dirty=true",)
    places = (f"output={tmp_path / 'runs'}", f"ledger={tmp_path / 'ledger'}")
    given = ["segbench", "reproduce", *arguments, *allowed, *places]
    monkeypatch.setattr(sys, "argv", given)
    try:
        cli.main()
    except SystemExit as left:
        return left.code
    return 0


def test_two_seeds_are_trained_once_and_stand_in_the_ledger(mine, tmp_path, monkeypatch, capfd):
    arguments = ("narrow", "seeds=0,1", "--config-dir", str(mine))
    assert reproduce(tmp_path, monkeypatch, *arguments) == 0
    row = yaml.safe_load((tmp_path / "ledger" / "narrow.yaml").read_text())
    runs = [Run.open(tmp_path / "runs" / f"seed_{seed}") for seed in (0, 1)]
    values = [run.results()["metrics"]["test/pixel_error"] for run in runs]
    assert row["ours"]["pixel_error"]["values"] == values
    assert row["difference"]["pixel_error"] == pytest.approx(sum(values) / 2 - 0.0611)
    assert row["seeds"] == [0, 1]
    assert "model.width: 2 instead of 4" in row["deviations"]
    assert not any("weights" in each for each in row["deviations"])
    assert row["verdict"].startswith("off by") or row["verdict"] == "reproduced"
    assert str(tmp_path) not in (tmp_path / "ledger" / "narrow.yaml").read_text()
    assert row["command"] == "segbench reproduce narrow seeds=0,1 --config-dir DIR allow_dirty=true"
    assert "pixel_error" in capfd.readouterr().out

    # Once more: nothing is trained again.
    written = [(run.path / "results.json").stat().st_mtime_ns for run in runs]
    assert reproduce(tmp_path, monkeypatch, *arguments) == 0
    assert [(run.path / "results.json").stat().st_mtime_ns for run in runs] == written

    # What does not hold for all seeds names those for which it does.
    told = runs[1].provenance()
    told["git"], told["processor"] = {"commit": "f" * 40, "dirty": False}, "another"
    (runs[1].path / "provenance.json").write_text(json.dumps(told))
    leg = json.loads((runs[1].path / "history.jsonl").read_text()) | {"provenance": told}
    (runs[1].path / "history.jsonl").write_text(json.dumps(leg) + "\n")
    assert reproduce(tmp_path, monkeypatch, *arguments) == 0
    said = yaml.safe_load((tmp_path / "ledger" / "narrow.yaml").read_text())["deviations"]
    assert "code: commit ffffffffff (seed_1)" in said
    assert [each.rsplit("(", 1)[-1] for each in said if each.startswith("hardware")] == ["seed_0)", "seed_1)"]
    assert "model.width: 2 instead of 4" in said
    capfd.readouterr()

    # Another config in the same directory is no reproduction.
    assert reproduce(tmp_path, monkeypatch, *arguments, "optimizer.lr=1") == 1
    assert "holds a run of another config: optimizer.lr: 0.004, now 1" in capfd.readouterr().err


def test_code_in_no_commit_is_refused_unless_the_row_shows_it(mine, tmp_path, monkeypatch, capfd):
    from segbench.papers import reproduce as module

    dirty = {"git": {"commit": "d" * 40, "dirty": True}}
    monkeypatch.setattr(module, "provenance", lambda: dirty)
    arguments = ("narrow", "--config-dir", str(mine), f"output={tmp_path / 'runs'}", f"ledger={tmp_path / 'ledger'}")
    monkeypatch.setattr(sys, "argv", ["segbench", "reproduce", *arguments])
    with pytest.raises(SystemExit):
        cli.main()
    printed = capfd.readouterr().err
    assert "the code has changes that are in no commit, on top of dddddddddd" in printed
    assert "allow_dirty=true" in printed
    assert not (tmp_path / "runs").exists()


def test_a_packaged_name_in_ones_own_directory_is_no_row(tmp_path, monkeypatch, capfd, mine):
    (mine / "experiment" / "unet_isbi_em_cpu.yaml").write_text(EXPERIMENT.format(reference="row"))
    assert reproduce(tmp_path, monkeypatch, "unet_isbi_em_cpu", "--config-dir", str(mine)) == 1
    assert "another experiment of the packaged name unet_isbi_em_cpu" in capfd.readouterr().err


FOLDS = """\
# @package _global_
defaults:
  - quickstart
  - override /data: isbi_em
  - override /metrics: em_challenge
model: {width: 2, depth: 2}
data: {tile: 40, repeats: 1}
trainer: {max_steps: 1, val_check_interval: 1, precision: 32-true}
callbacks: {panels: null}
threads: 1
paper:
  row: of_mine
  method: mine
  source: a table
  experiment: folded
  metrics: {pixel_error: 0.0611}
  looked_at: {"4": looked at in the making}
"""


def test_the_row_of_folds_has_their_mean_and_those_looked_at_stand_apart(
    mine, drawn_isbi, tmp_path, monkeypatch, capfd
):
    (mine / "experiment" / "folded.yaml").write_text(FOLDS)
    arguments = ("folded", "folds=0,1,4", "seeds=0", "--config-dir", str(mine), f"data.root={drawn_isbi}")
    assert reproduce(tmp_path, monkeypatch, *arguments) == 0
    row = yaml.safe_load((tmp_path / "ledger" / "folded.yaml").read_text())
    by_fold = [
        Run.open(tmp_path / "runs" / f"fold_{fold}" / "seed_0").results()["metrics"]["test/pixel_error"]
        for fold in (0, 1, 4)
    ]
    assert row["ours"]["pixel_error"]["values"] == pytest.approx([sum(by_fold[:2]) / 2])
    assert row["folds"]["fold_1"]["pixel_error"]["values"] == by_fold[1:2]
    assert row["apart"]["fold_4"]["pixel_error"]["values"] == by_fold[2:]
    assert row["cost"]["runs"] == 3
    assert "test images that were looked at before: looked at in the making (fold_4/seed_0)" in row["deviations"]
    assert "data.fold=0 where the row has None" in row["why"]
    shown = capfd.readouterr().out
    assert "not in the mean" in shown


def test_what_could_not_be_run_says_why_in_the_ledger(mine, tmp_path, monkeypatch, capfd):
    blocked = EXPERIMENT.format(reference="row") + "weights: {name: VGG_ILSVRC_16_layers, path: vgg.caffemodel}\n"
    (mine / "experiment" / "blocked.yaml").write_text(blocked)
    arguments = ("blocked", "--config-dir", str(mine), f"weights.path={tmp_path / 'no, where'}")
    assert reproduce(tmp_path, monkeypatch, *arguments) == 1
    row = yaml.safe_load((tmp_path / "ledger" / "blocked.yaml").read_text())
    assert row["verdict"] == "not run"
    assert row["why"] == ["no file FOLDER (weights.path), from which the network starts"]
    assert str(tmp_path) not in (tmp_path / "ledger" / "blocked.yaml").read_text()
    assert "no, where" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["quickstart"], "reproduces no row of a paper"),
        (["no_such_experiment"], "no_such_experiment"),
        (["unet_isbi_em_cpu", "seeds=0,0"], "seeds=0,0"),
        (["unet_isbi_em_cpu", "folds=a"], "folds=a"),
        (["unet_isbi_em_cpu", "allow_dirty=maybe"], "allow_dirty=maybe"),
        (["unet_isbi_em_cpu", "paper.row=mine", "paper.metrics.rand_error=1", "data.root=x"], "paper.row=mine"),
        (["unet_isbi_em_cpu", "again"], "error: again"),
        (["unet_isbi_em_cpu", "model.nothing=1"], "nothing"),
    ],
)
def test_bad_orders_are_told(arguments, said, tmp_path, monkeypatch, capfd):
    assert reproduce(tmp_path, monkeypatch, *arguments) == 1
    printed = capfd.readouterr().err
    assert said in printed
    assert "expected" in printed and "to do" in printed


def test_the_list_shows_every_row(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["segbench", "reproduce", "--list"])
    cli.main()
    shown = capsys.readouterr().out
    for text in ("FCN-8s at-once", "IDSIA-SCI", "of others", "unet_isbi_em_cpu", "0.4120"):
        assert text in shown


def test_the_list_says_why_a_row_was_not_run(tmp_path, monkeypatch, capsys):
    for name in ("fcn32s_voc", "fcn8s_voc"):
        row = {"schema": 1, "experiment": name, "verdict": "not run", "why": ["VOC.tar cannot be fetched"]}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(row))
    monkeypatch.setattr(sys, "argv", ["segbench", "reproduce", "--list", f"ledger={tmp_path}"])
    cli.main()
    assert "\nfcn32s_voc, fcn8s_voc: VOC.tar cannot be fetched\n" in capsys.readouterr().out


def test_help_is_quick_in_imports():
    code = "import sys; sys.argv = ['segbench', 'reproduce', '--help']; from segbench.cli.main import main; main(); "
    code += "import json; print(json.dumps([m for m in ('torch', 'lightning', 'hydra') if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert json.loads(done.stdout.splitlines()[-1]) == []
    assert Path(__file__).name not in done.stdout


def test_what_the_data_settled_is_the_same_run(tiny_config, tmp_path):
    asked = tiny_config("data.balance=auto", "loss.class_weights=auto", "augment=auto")
    settled, _ = settle_by_data(asked, build_dataset(asked.data, None))
    Run.prepare(tmp_path / "run", settled, [])
    _check_same(tmp_path / "run", SimpleNamespace(config=asked))
    with pytest.raises(SegbenchError, match=r"data\.balance\.cell: 0\.5, now 0\.25"):
        other = asked.replace({"data.balance": {"membrane": 0.5, "cell": 0.25}})
        _check_same(tmp_path / "run", SimpleNamespace(config=other))
