"""`make gpu`, as far as a CPU goes."""

import json
import subprocess

import gpu
import gpu_pieces
import pytest
import torch
from gpu_pieces import PIECES, Piece, Skipped, Unfinished


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Where progress is kept, and three pieces: one that works, one that fails half way, one that goes on."""
    monkeypatch.setattr(gpu, "WORK", tmp_path)
    monkeypatch.setattr(gpu_pieces, "WORK", tmp_path)

    def works(say, tiny):
        say("a time", 1.23456, "ms", "2", True)

    def fails(say, tiny):
        say("a share", 30.0, "%", "35", False)
        raise RuntimeError("CUDA error:\nan illegal access")

    def goes_on(say, tiny):
        raise Unfinished("at step 7")

    def lacks(say, tiny):
        raise Skipped("no data")

    pieces = {"works": Piece(works), "fails": Piece(fails), "goes_on": Piece(goes_on), "lacks": Piece(lacks)}
    pieces["absent"] = Piece(works, needs=("no_such_package",))
    pieces["two"] = Piece(works, gpus=2**10)
    monkeypatch.setattr(gpu, "PIECES", pieces)
    return tmp_path


def test_each_piece_runs_or_says_why_not_and_the_next_goes_on(work):
    ends = {name: gpu.run_piece(name, False) for name in gpu.PIECES}
    assert ends == {
        "works": "done",
        "fails": "failed: RuntimeError: CUDA error: an illegal access",
        "goes_on": "unfinished: at step 7",
        "lacks": "skipped: no data",
        "absent": "skipped: not installed: no_such_package",
        "two": f"skipped: 1024 GPUs needed, torch sees {torch.cuda.device_count()}",
    }
    # What ran is not repeated; what could not run, or goes on, is tried again.
    assert [name for name in gpu.PIECES if gpu.ended(name, False) is None] == ["goes_on", "lacks", "absent", "two"]
    text = gpu.report(False)
    assert "| | a time | 1.235 ms (goal 2, met) |" in text
    assert "| | a share | 30 % (goal 35, MISSED) |" in text
    assert "| **fails** | | failed: RuntimeError: CUDA error: an illegal access, 0.0 s |" in text
    assert f"torch {torch.__version__}" in text


def test_a_piece_of_another_machine_runs_again(work, monkeypatch):
    gpu.run_piece("works", False)
    assert gpu.ended("works", False) == "done"
    assert gpu.ended("works", True) is None
    monkeypatch.setattr(gpu, "machine", lambda: {"devices": ["another"]})
    assert gpu.ended("works", False) is None


def test_a_piece_that_is_cut_off_keeps_its_figures(work, monkeypatch):
    def killed(command, **named):
        figure = {"figure": "a", "value": 1.0, "unit": "s", "goal": "", "met": None, "failed": ""}
        lines = [{"machine": gpu.machine()}, figure]
        (work / "works.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines) + '{"figure": "cut')
        raise subprocess.TimeoutExpired(command, 480)

    monkeypatch.setattr(subprocess, "run", killed)
    monkeypatch.setattr(gpu, "_commit", lambda: None)
    assert gpu._apart("works", False).startswith("failed: not done within 480 s")
    assert gpu.ended("works", False).startswith("failed: not done within 480 s")
    assert "| | a | 1 s |" in gpu.report(False)


def test_the_list_names_every_piece(capsys):
    assert gpu.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*PIECES]
    assert all(piece.run.__doc__ for piece in PIECES.values())


@pytest.mark.parametrize("name", ["rate", "prediction", "checkpoint"])
def test_a_piece_runs_on_a_cpu(tmp_path, monkeypatch, name, capsys):
    monkeypatch.setattr(gpu, "WORK", tmp_path)
    monkeypatch.setattr(gpu_pieces, "WORK", tmp_path)
    assert gpu.main(["--tiny", "--piece", name]) == 0
    assert f"{name}: done" in capsys.readouterr().out
    assert f"| **{name}** | | done" in (tmp_path / "gpu.md").read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["checks", "steps", "inference", "synchronisations", "busy"])
def test_a_longer_piece_runs_on_a_cpu(tmp_path, monkeypatch, name, capsys):
    monkeypatch.setattr(gpu, "WORK", tmp_path)
    monkeypatch.setattr(gpu_pieces, "WORK", tmp_path)
    assert gpu.main(["--tiny", "--piece", name]) == 0
    text = (tmp_path / "gpu.md").read_text()
    assert "failed" not in text
    assert f"| **{name}** | | {'skipped' if name == 'busy' else 'done'}" in text
