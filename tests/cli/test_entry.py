import logging
import os
import warnings

import pytest
from omegaconf import OmegaConf

from segbench.cli import entry
from segbench.cli.entry import fail, hydra_entry, job, relative
from segbench.config.composed import resolved
from segbench.errors import SegbenchError
from segbench.runtime.log import log_to
from segbench.runtime.processes import is_main_process


def test_an_error_is_told_in_three_parts_without_a_traceback(capsys):
    with pytest.raises(SystemExit) as left:
        fail(SegbenchError("a fault", "none", "mend it"))
    assert left.value.code == 1
    assert capsys.readouterr().err == "error: a fault\n  expected: none\n  to do:    mend it\n"


def test_a_job_tells_its_error(capsys, monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    @job
    def failing(config):
        raise SegbenchError("a fault", "none", "mend it")

    with pytest.raises(SystemExit):
        failing({})
    assert "error: a fault" in capsys.readouterr().err


def test_the_full_traceback_can_be_had(monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    @job
    def failing(config):
        raise SegbenchError("a fault", "none", "mend it")

    with pytest.raises(SegbenchError, match="a fault"):
        failing({})


def test_errors_of_the_program_keep_their_traceback():
    @job
    def failing(config):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        failing({})


def test_the_config_becomes_plain_and_resolved():
    config = resolved(OmegaConf.create({"a": 1, "b": {"c": "${a}"}, "l": [1, "${a}"]}))
    assert config == {"a": 1, "b": {"c": 1}, "l": [1, 1]}
    assert (type(config["b"]), type(config["l"])) == (dict, list)


def test_a_key_that_is_not_given_is_named():
    with pytest.raises(SegbenchError, match=r"data\.root is not given\n.*a value for data\.root\n.*add data\.root="):
        resolved(OmegaConf.create({"data": {"root": "???"}}))


def hydra_arguments(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["segbench", *arguments])


def test_a_run_directory_below_a_file_is_refused_before_hydra_starts(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    hydra_arguments(monkeypatch, f"hydra.run.dir={tmp_path}/file/run")
    with pytest.raises(SystemExit):
        hydra_entry(lambda config: None, "train")
    told = capsys.readouterr().err
    assert "file/run cannot be written" in told
    assert "file is no directory" in told
    assert "choose another hydra.run.dir=DIR" in told


def test_an_output_folder_without_permission_is_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SEGBENCH_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    hydra_arguments(monkeypatch)
    with pytest.raises(SystemExit):
        hydra_entry(lambda config: None, "train")
    assert "outputs cannot be written: permission denied" in capsys.readouterr().err


def test_showing_the_config_needs_no_output_folder(monkeypatch, capsys):
    monkeypatch.setattr(entry, "_check_directories", lambda arguments: pytest.fail("checked"))
    hydra_arguments(monkeypatch, "--cfg", "job", "name=shown")
    hydra_entry(lambda config: pytest.fail("run"), "train")
    assert "name: shown" in capsys.readouterr().out


@pytest.mark.parametrize("experiment", ["quickstart", "unet_isbi_em"])
def test_a_run_lies_in_its_experiments_folder(monkeypatch, tmp_path, experiment):
    from hydra.core.hydra_config import HydraConfig

    monkeypatch.setenv("SEGBENCH_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("SEGBENCH_RUN_ID", "here")
    hydra_arguments(monkeypatch, f"experiment={experiment}")
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
