import json
import shutil
import subprocess
import sys

import pytest

import segbench.cli.compare as command
from segbench.cli import main as cli
from segbench.cli.arguments import split_arguments
from segbench.cli.compare import run
from segbench.errors import SegbenchError


@pytest.fixture
def two(make_run, tmp_path, monkeypatch):
    """A sweep of two runs, the second better, from whose folder the command is given."""
    make_run("sweep/lr=1", accuracy=0.7, optimizer={"lr": 1})
    make_run("sweep/lr=2", accuracy=0.9, optimizer={"lr": 2})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_sweep_is_compared_on_the_terminal(two, capsys):
    assert run(["sweep", "draws=500"]) == 0
    printed = capsys.readouterr().out
    assert "Comparison of 2 runs, drawn, test" in printed
    assert "B is better than A in pixel_acc" in printed
    assert "optimizer.lr" in printed


def test_paths_with_an_equals_sign_and_globs(two, capsys):
    assert run(["sweep/lr=1", "sweep/lr=2", "draws=500", "metric=mean_iu", "format=json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [group["label"] for group in data["groups"]] == ["lr=1", "lr=2"]
    assert [d["score"] for d in data["pairs"][0]["differences"]] == ["test/mean_iu"]
    assert run(["sweep/lr=*", "draws=500", "format=csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.md", "# Comparison"),
        ("a.tex", "% Comparison"),
        ("a.csv", "run,group"),
        ("a.json", "{"),
        ("a.HTML", "<!doctype html>"),
        ("a.txt", "Comparison"),
    ],
)
def test_the_format_follows_from_the_file_s_name(two, capsys, name, start):
    assert run(["sweep", f"output={name}", "draws=500"]) == 0
    assert (two / name).read_text().startswith(start)
    assert capsys.readouterr().out.strip() == name
    assert not list(two.glob(".*partial"))


def test_a_table_alone(two, capsys):
    assert run(["sweep", "draws=500", "table=classes", "format=markdown"]) == 0
    printed = capsys.readouterr().out
    assert "IU of each class" in printed
    assert "Scores" not in printed
    assert run(["sweep", "draws=500", "table=runs"]) == 0
    assert "sweep/lr=1" in capsys.readouterr().out


def test_settings_reach_the_comparison(two, capsys):
    given = ["confidence=0.9", "draws=700", "seed=3", "images=2", "baseline=B", "split=test"]
    assert run(["sweep", *given, "format=json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["settings"] == {
        "metrics": [],
        "split": "test",
        "baseline": "B",
        "confidence": 0.9,
        "draws": 700,
        "seed": 3,
        "images": 2,
        "plan": None,
    }
    assert (data["pairs"][0]["first"], len(data["pairs"][0]["changed"])) == ("B", 2)


def test_a_plan_of_single_runs_says_what_is_missing(two, capsys):
    assert run(["sweep", "metric=mean_iu", "plan=0.01", "draws=500"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "How much is enough, A and B" in printed
    assert "train two seeds or more of each (segbench train -m seed=0,1,2), and plan again" in printed


def test_seeds_apart_and_ignored_settings(make_run, tmp_path, capsys):
    for seed in range(2):
        make_run(str(seed), seed=seed, accuracy=0.7 + seed / 10, trainer={"devices": seed + 1})
    assert run([str(tmp_path), "ignore=trainer.devices", "format=json", "draws=500"]) == 0
    assert len(json.loads(capsys.readouterr().out)["groups"]) == 1
    assert run([str(tmp_path), "ignore=trainer.devices", "seeds=apart", "format=json", "draws=500"]) == 0
    assert [group["label"] for group in json.loads(capsys.readouterr().out)["groups"]] == ["seed=0", "seed=1"]


def test_folds(make_run, tmp_path, capsys):
    for fold in range(2):
        names = [f"{fold}-{number}" for number in range(6)]
        make_run(str(fold), images=6, ids=names, labels_seed=fold, data={"fold": fold})
    assert run([str(tmp_path), "folds=data.fold", "format=json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert len(group["runs"][0]["folds"]) == 2


def test_a_crashed_run_is_listed_and_left_out(two, make_run, capsys):
    make_run("sweep/3", state="failed", optimizer={"lr": 3})
    assert run(["sweep", "draws=500"]) == 0
    printed = capsys.readouterr().out
    assert "Left out" in printed
    assert "failed: segbench train resume=sweep/3" in printed


def test_runs_that_cannot_be_paired_are_told_and_the_command_fails(two, make_run, capsys):
    shutil.rmtree("sweep/lr=2")
    make_run("sweep/other", ids=[f"x{number}" for number in range(40)], optimizer={"lr": 2})
    assert run(["sweep"]) == 1
    printed = capsys.readouterr()
    assert "Not tested" in printed.out
    assert "Scores" in printed.out
    assert printed.err.startswith("error: sweep/lr=1 and sweep/other were not scored on the same images")
    assert "expected: the same image ids in both" in printed.err


def test_a_failed_job_is_left_out_of_a_sweep_but_not_of_runs_that_were_named(two, capsys):
    failed = two / "sweep" / "lr=2"
    (failed / "results.json").unlink()
    (failed / "state.json").write_text('{"state": "failed"}')
    assert run(["sweep", "draws=500"]) == 0
    assert "segbench train resume=sweep/lr=2" in capsys.readouterr().out
    assert run(["sweep/lr=1", "sweep/lr=2", "draws=500"]) == 1
    assert "error: sweep/lr=2: failed: segbench train resume=sweep/lr=2" in capsys.readouterr().err


def test_a_damaged_file_is_no_failed_job(two, capsys):
    (two / "sweep" / "lr=2" / "results.json").write_text("{")
    assert run(["sweep", "draws=500"]) == 1
    said = capsys.readouterr().err
    assert "results.json is damaged" in said and "segbench evaluate run=sweep/lr=2" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], r"nothing to compare\n.*run directories"),
        (["sweep", "metrics=a"], r"metrics=a\n.*did you mean metric=\?\n.*segbench compare --help"),
        (["sweep", "draws=many"], r"draws=many\n.*a whole number"),
        (["sweep", "plan=0"], r"plan=0\n.*a difference of the leading score, above 0\n.*plan=0\.01"),
        (["sweep", "plan=-1"], r"plan=-1\n.*above 0"),
        (["sweep", "plan=word"], r"plan=word\n.*a number\n.*correct plan="),
        (["sweep", "confidence=high"], r"confidence=high\n.*a number"),
        (["sweep", "seed=-1"], r"seed=-1\n.*0 or more"),
        (["sweep", "seeds=together"], r"seeds=together\n.*apart or grouped"),
        (["sweep", "draws=500", "draws=600"], r"draws= given twice"),
        (["sweep", "format=pdf"], r"format=pdf\n.*terminal, markdown"),
        (["sweep", "output=a.pdf"], r"output=a.pdf, whose suffix names no format\n.*\.html"),
        (["sweep", "output=sweep/lr=1/results.json/a.md", "draws=500"], r"results.json/a.md cannot be written: "),
        (["nowhere"], r"no run in nowhere: no such file or folder"),
        (["wandb:alone"], r"wandb:alone\n.*wandb:ENTITY/PROJECT"),
    ],
)
def test_bad_arguments_are_told(two, arguments, said):
    with pytest.raises(SegbenchError, match=said):
        run(arguments)


def test_nothing_but_crashed_runs(make_run, tmp_path):
    make_run("a", state="failed")
    with pytest.raises(
        SegbenchError, match=r"no run with results among 1 \(.*a: failed: .*\)\n.*\n.*segbench evaluate"
    ):
        run([str(tmp_path)])


def test_arguments_are_told_from_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metric=x").mkdir()
    assert split_arguments(["metric=x", "a/b=c", "metric=y"], ["metric"], "compare") == (
        ["metric=x", "a/b=c"],
        {"metric": "y"},
    )


def test_the_command_line_starts_without_torch(two):
    code = (
        "import sys; sys.argv = ['compare', 'sweep', 'draws=500']; import segbench.cli.compare as c\n"
        "try:\n    c.main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'lightning', 'hydra', 'wandb', 'matplotlib'} & set(sys.modules); sys.exit(str(heavy or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "B is better than A" in done.stdout
    assert done.stderr.strip() == ""


def test_errors_have_no_traceback(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["segbench", "compare", "nowhere"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("error: no run in nowhere")


def test_help_names_every_key(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["compare", "--help"])
    command.main()
    printed = capsys.readouterr().out
    assert all(f"\n{key}=" in printed for key in command._KEYS)
