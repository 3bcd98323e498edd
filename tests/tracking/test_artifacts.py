"""Reports and comparisons go into a W&B project; offline they are kept whole for `wandb sync`."""

import json

import pytest

from segbench.errors import SegbenchError
from segbench.tracking.artifacts import send


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path))


def kept(folder):
    """The bytes of an offline run: what it would send, its texts as they are."""
    (log,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    return log.read_bytes()


def test_a_file_and_its_tables_are_kept_offline(tmp_path):
    file = tmp_path / "report.html"
    file.write_text("<html></html>")
    rows = {"scores": [{"group": "A", "mean_iu": 0.5}, {"group": "B", "sd": None}], "empty": []}
    said = send("team/project", "comparison", "comparison of a/b", file, rows)
    assert "wandb sync" in said
    assert b"comparison/scores" in kept(tmp_path)
    assert b"comparison/empty" not in kept(tmp_path)
    assert b"comparison-of-a-b" in kept(tmp_path)
    assert b"report.html" in kept(tmp_path)
    (table,) = (tmp_path / "wandb").glob("offline-run-*/files/media/table/**/*.json")
    assert json.loads(table.read_text())["data"] == [["A", 0.5, None], ["B", None, None]]


def test_the_commands_send(tiny_run, tmp_path, monkeypatch, capsys):
    from segbench.cli.compare import run as compare
    from segbench.cli.report import run as report

    monkeypatch.chdir(tmp_path)
    report([str(tiny_run), f"output={tmp_path / 'r' / 'report.html'}", "wandb=project"])
    assert f"report-{tiny_run.name}".encode() in kept(tmp_path / "r")
    assert compare([str(tiny_run), "wandb=project", "format=json"]) == 0
    assert b"comparison/scores" in kept(tmp_path)
    printed = capsys.readouterr()
    assert json.loads(printed.out)["schema"] == 2
    assert printed.err.count("wandb sync") == 2


@pytest.mark.parametrize("project", ["", "a/b/c", "team/"])
def test_a_project_that_is_none_is_told(project, tmp_path):
    with pytest.raises(SegbenchError, match=f"wandb={project}"):
        send(project, "report", "name", tmp_path / "file")
