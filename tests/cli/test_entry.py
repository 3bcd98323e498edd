import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from segbench.cli.entry import boundary, hydra_entry, relative
from segbench.config.composed import resolved
from segbench.config.record import Recorded
from segbench.errors import SegbenchError
from segbench.runs.directory import Run
from segbench.runs.running import running
from segbench.runtime.log import log_to
from segbench.runtime.processes import is_main_process


def test_an_error_is_told_in_three_parts_without_a_traceback(capsys):
    with pytest.raises(SystemExit) as left, boundary():
        raise SegbenchError("a fault", "none", "mend it")
    assert left.value.code == 1
    assert capsys.readouterr().err == "error: a fault\n  expected: none\n  to do:    mend it\n"


@pytest.mark.parametrize("said", ["say('a\u7ec6\x1b')", "warnings.warn('a\u7ec6\x1b')"])
def test_what_is_printed_commands_no_terminal_and_lacks_no_letter(said):
    names = "import warnings; from segbench.cli.entry import boundary; from segbench.errors import say"
    code = f"{names}\nwith boundary():\n    {said}"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, check=True
    )
    assert b"a\\u7ec6\\x1b\n" in done.stdout + done.stderr


@pytest.fixture
def hydra_arguments(monkeypatch, tmp_path):
    """`hydra_arguments(...)`: what the command line holds, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGBENCH_OUTPUTS", "outputs")
    monkeypatch.setenv("SEGBENCH_RUN_ID", "here")
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return lambda *arguments: monkeypatch.setattr("sys.argv", ["segbench", *arguments])


def faulty(config):
    raise ZeroDivisionError("by\nnought")


def test_the_error_of_a_run_is_printed_once_in_three_parts(hydra_arguments, capsys):
    def refusing(config):
        raise SegbenchError("a fault", "none", "mend it")

    hydra_arguments()
    with pytest.raises(SystemExit) as left:
        hydra_entry(refusing, "train")
    assert left.value.code == 1
    assert capsys.readouterr().err == "error: a fault\n  expected: none\n  to do:    mend it\n"


def test_a_fault_of_the_program_is_one_line_with_its_place(hydra_arguments, capsys):
    hydra_arguments()
    with pytest.raises(SystemExit) as left:
        hydra_entry(faulty, "train")
    assert left.value.code == 1
    line = faulty.__code__.co_firstlineno + 1
    assert capsys.readouterr().err == (
        f"error: ZeroDivisionError: by nought, at {__file__}:{line}; HYDRA_FULL_ERROR=1 shows the traceback\n"
    )


@pytest.mark.parametrize("first", [True, False])
def test_the_traceback_of_a_run_is_in_its_log(hydra_arguments, capsys, monkeypatch, first):
    def running_into_it(config):
        with running(Run.create(Path("run"), Recorded.of({}), [])):
            faulty(config)

    monkeypatch.setenv("RANK", "0" if first else "3")
    hydra_arguments("hydra.run.dir=run")
    with pytest.raises(SystemExit):
        hydra_entry(running_into_it, "train")
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ZeroDivisionError: by nought, at ")
    assert last.endswith("; the traceback is in run/run.log")
    written = Path("run/run.log").read_text()
    assert ("traceback:\n" if first else "traceback of rank 3:\n") + "Traceback (most recent call last):" in written
    assert 'in faulty\n    raise ZeroDivisionError("by\\nnought")' in written


@pytest.mark.parametrize("error", [SegbenchError("a fault", "none", "mend it"), RuntimeError("a bug")])
def test_the_full_traceback_can_be_had(hydra_arguments, monkeypatch, error):
    def failing(config):
        raise error

    hydra_arguments()
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(type(error), match=r"a fault|a bug") as raised:
        hydra_entry(failing, "train")
    assert raised.traceback[-1].name == "failing"


def test_what_a_class_refuses_while_hydra_builds_it_is_named(capsys):
    cause = TypeError("no argument x")
    error = InstantiationException("Error in call to target")
    error.__cause__ = cause
    with pytest.raises(SystemExit), boundary():
        raise error
    assert capsys.readouterr().err.startswith("error: TypeError: no argument x; HYDRA_FULL_ERROR=1")


def test_ctrl_c_shows_no_traceback():
    with pytest.raises(SystemExit) as left, boundary():
        raise KeyboardInterrupt
    assert left.value.code == 130


def test_an_error_passes_by_hydra(hydra_arguments, capsys):
    # Hydra would print the overrides of a job that fails.
    hydra_arguments("seed=3")
    with pytest.raises(SystemExit):
        hydra_entry(faulty, "train")
    assert "overrides" not in capsys.readouterr().err


@pytest.mark.parametrize("given", [["-m", "seed=0,1"], ["seed=0,1", "-m"], ["seed=0,1", "hydra.mode=MULTIRUN"]])
def test_flags_stand_where_they_like(hydra_arguments, given):
    seen = []
    hydra_arguments("experiment=quickstart", "hydra/launcher=basic", *given, "--optimizer.lr=0.5")
    hydra_entry(lambda config: seen.append((config.seed, config.optimizer.lr)), "train")
    assert seen == [(0, 0.5), (1, 0.5)]


def test_the_directory_of_a_sweep_may_name_what_hydra_knows(hydra_arguments, tmp_path):
    seen = []
    hydra_arguments("-m", "seed=0,1", "hydra.sweep.dir=${hydra:runtime.cwd}/x", "hydra/launcher=basic")
    hydra_entry(lambda config: seen.append(config.seed), "train")
    assert seen == [0, 1]
    assert (tmp_path / "x" / "1").is_dir()


def test_all_of_a_config_can_be_shown_resolved(hydra_arguments, capsys):
    hydra_arguments("--cfg", "all", "--resolve", "name=shown")
    hydra_entry(lambda config: pytest.fail("run"), "train")
    assert "dir: outputs/shown/here" in capsys.readouterr().out


def test_a_file_hidden_by_a_packaged_one_is_reported(hydra_arguments, tmp_path, capsys):
    (tmp_path / "mine" / "loss").mkdir(parents=True)
    (tmp_path / "mine" / "loss" / "dice.yaml").write_text("a: 1")
    (tmp_path / "mine" / "loss" / "own.yaml").write_text("a: 1")
    hydra_arguments(f"hydra.searchpath=[{tmp_path}/mine]")
    hydra_entry(lambda config: None, "train")
    assert capsys.readouterr().err == (
        f"{tmp_path}/mine/loss/dice.yaml is not used: in hydra.searchpath the packaged file of that name comes first; "
        f"with --config-dir {tmp_path}/mine yours does\n"
    )


def test_the_config_becomes_plain_and_resolved():
    config = resolved(OmegaConf.create({"a": 1, "b": {"c": "${a}"}, "l": [1, "${a}"]}))
    assert config == {"a": 1, "b": {"c": 1}, "l": [1, 1]}
    assert (type(config["b"]), type(config["l"])) == (dict, list)


def test_a_key_that_is_not_given_is_named():
    with pytest.raises(SegbenchError, match=r"data\.root is not given\n.*a value for data\.root\n.*add data\.root="):
        resolved(OmegaConf.create({"data": {"root": "???"}}))


def test_showing_the_config_needs_no_output_folder(hydra_arguments, capsys):
    hydra_arguments("--cfg", "job", "name=shown", "hydra.run.dir=/dev/null/x")
    hydra_entry(lambda config: pytest.fail("run"), "train")
    assert "name: shown" in capsys.readouterr().out


@pytest.mark.parametrize("experiment", ["quickstart", "unet_isbi_em"])
def test_a_run_lies_in_its_experiments_folder(hydra_arguments, tmp_path, experiment):
    from hydra.core.hydra_config import HydraConfig

    hydra_arguments(f"experiment={experiment}")
    seen = []
    hydra_entry(lambda config: seen.append((config.name, HydraConfig.get().runtime.output_dir)), "train")
    assert seen == [(experiment, str(tmp_path / "outputs" / experiment / "here"))]


@pytest.mark.parametrize(
    ("environment", "main"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"SLURM_PROCID": "3"}, False),
        ({"RANK": "4", "LOCAL_RANK": "0"}, False),
    ],
)
def test_the_process_that_writes_is_known_by_its_environment(monkeypatch, environment, main):
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_main_process() is main


def test_paths_are_shown_as_typed_here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert str(relative(tmp_path / "outputs" / "run")) == "outputs/run"
    assert relative(tmp_path.parent) == tmp_path.parent


def test_the_log_goes_to_file_and_console_and_ends(tmp_path, capsys):
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    with log_to(tmp_path / "run.log"):
        logging.getLogger("segbench.test").info("said")
        logging.getLogger("segbench.test").info("kept", extra={"file_only": True})
    logging.getLogger("segbench.test").warning("later")
    assert (list(root.handlers), root.level) == before
    written = (tmp_path / "run.log").read_text()
    assert "INFO segbench.test: said" in written
    assert "kept" in written
    assert "later" not in written
    told = capsys.readouterr().err
    assert "said\n" in told
    assert "kept" not in told


def test_a_rank_without_a_file_keeps_to_warnings(capsys):
    with log_to(None):
        logging.getLogger("segbench.test").info("said")
        logging.getLogger("segbench.test").warning("warned")
    assert capsys.readouterr().err == "warned\n"


def test_other_warnings_are_not_silenced():
    with pytest.warns(UserWarning, match="look here"), log_to(None):
        warnings.warn("look here", stacklevel=1)
