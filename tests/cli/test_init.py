"""The project that is written runs, passes its own test and the linter, and can be followed by the page on it."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from segbench.cli.init import write_project
from segbench.config.installed import installed
from segbench.errors import SegbenchError

REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "docs" / "own_project.md"
FEW = ("trainer.max_steps=2", "trainer.val_check_interval=2", "data.side=64", "data.test=1", "data.val=1", "threads=1")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "discs"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def test_the_page_can_be_followed(here, call, monkeypatch):
    blocks = re.findall(r"^```\w*\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    commands = [
        shlex.split(line)[1:] for block in blocks for line in block.splitlines() if line.startswith("segbench ")
    ]
    assert [each[0] for each in commands] == ["init", "train", "evaluate", "train", "train", "train"]
    for command in commands:
        few = FEW if command[0] == "train" else ("trainer=cpu",) if command[0] == "evaluate" else ()
        if command[0] == "train" and "hydra.run.dir=outputs/first" not in command and "-m" not in command:
            # Composed alone, to be quick.
            few = (*few, "--cfg", "job")
        code, out, err = call(*command, *few)
        assert code == 0, out[-2000:] + err[-4000:]
        if command[0] == "init":
            assert out.endswith("  segbench train --config-dir discs/conf experiment=discs\n")
            # What is told to be there is there.
            (tree,) = re.findall(r"```text\n(.*?)```", PAGE.read_text(), re.DOTALL)
            told = {Path(name).name for name in re.findall(r"[\w/]+\.\w+", tree)}
            assert {path.name for path in Path("discs").rglob("*") if path.is_file()} == told | {"__init__.py"}
            monkeypatch.chdir("discs")
            monkeypatch.syspath_prepend(Path.cwd())
    assert "4 jobs, of which 4 would start" in out


def test_the_entry_point_of_the_project_is_its_config_directory(here, monkeypatch):
    import tomllib

    write_project(here / "discs")
    (points,) = tomllib.loads((here / "discs" / "pyproject.toml").read_text())["project"]["entry-points"].values()
    monkeypatch.syspath_prepend(here / "discs")
    info = here / "discs" / "discs-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: discs\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[segbench.configs]\ndiscs = {points['discs']}\n")
    assert [(each.package, each.path) for each in installed()] == [("discs 0.1.0", here / "discs" / "discs" / "conf")]


def test_what_is_written_is_clean(here):
    write_project(here / "discs")
    rules = ("--config", str(REPO / "pyproject.toml"))
    for command in (("check", *rules, "--config", 'src=["discs"]'), ("format", "--check", *rules)):
        ruff = [str(Path(sys.executable).with_name("ruff")), *command, "--no-cache", "discs"]
        done = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_its_own_test_passes(here):
    write_project(here / "discs")
    environment = os.environ | {"PYTHONPATH": str(REPO / "src")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd="discs", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "4 passed" in done.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *(
            ("my-net", "a Python package's name"),
            ("1st", "a Python package"),
            ("class", "a Python package"),
        ),
        *(("torch", "Python finds a module torch already"), ("full", "full exists and is not empty")),
        *(("file", "file exists and is not empty"), ("file/below", "file/below cannot be written")),
    ],
)
def test_what_cannot_be_written_is_told(here, name, message):
    (here / "full").mkdir()
    (here / "full" / "note").touch()
    (here / "file").touch()
    with pytest.raises(SegbenchError, match=message):
        write_project(Path(name))
    assert sorted(path.name for path in here.iterdir()) == ["file", "full"]


def test_an_empty_folder_is_filled(here):
    (here / "empty").mkdir()
    assert here / "empty" / "empty" / "losses.py" in write_project(here / "empty")


def test_on_a_full_disk_no_part_of_a_project_is_left(here, small_files):
    with small_files(500), pytest.raises(SegbenchError, match=r"discs cannot be written: File too large\n.*\n.*free"):
        write_project(Path("discs"))
    assert not list(here.iterdir())
    assert Path("discs/pyproject.toml") in write_project(Path("discs"))
