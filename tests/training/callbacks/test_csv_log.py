import csv
import os

import pytest
from lightning.pytorch.utilities import rank_zero_only

from segbench.errors import SegbenchError
from segbench.runtime.log import log_to
from segbench.training.callbacks.csv_log import RunCsv


@pytest.fixture(autouse=True)
def _as_in_a_run():
    with log_to(None):
        yield


@pytest.fixture
def logged(tmp_path):
    """A run directory in which steps 0 to 5 were logged."""
    logger = RunCsv(str(tmp_path))
    for step in range(6):
        logger.log_metrics({"train/loss": step / 10}, step=step)
    return tmp_path


def rows(directory):
    with (directory / "metrics.csv").open(newline="") as file:
        return [(int(row["step"]), row["train/loss"], row.get("val/score", "")) for row in csv.DictReader(file)]


def test_the_file_lies_in_the_run_directory_itself(logged):
    assert rows(logged) == [(step, str(step / 10), "") for step in range(6)]


def test_a_resume_keeps_the_rows_it_knows_and_goes_on(logged):
    logger = RunCsv(str(logged))
    logger.keep(3)
    assert logger.written() == 3
    logger.log_metrics({"train/loss": 9.0, "val/score": 0.5}, step=3)
    assert rows(logged) == [(0, "0.0", ""), (1, "0.1", ""), (2, "0.2", ""), (3, "9.0", "0.5")]
    assert logger.written() == 4


def test_a_run_begun_again_begins_its_file_again(logged):
    logger = RunCsv(str(logged))
    logger.log_metrics({"train/loss": 9.0}, step=0)
    assert rows(logged) == [(0, "9.0", "")]


def test_columns_of_rows_that_are_gone_go_too(tmp_path):
    logger = RunCsv(str(tmp_path))
    logger.log_metrics({"a": 1.0}, step=0)
    logger.log_metrics({"b": 1.0}, step=1)
    again = RunCsv(str(tmp_path))
    again.keep(1)
    again.log_metrics({"c": 1.0}, step=1)
    assert (tmp_path / "metrics.csv").read_bytes() == b"a,c,step\r\n1.0,,0\r\n,1.0,1\r\n"


def test_every_row_is_on_disk_at_once(tmp_path):
    logger = RunCsv(str(tmp_path))
    for step in range(3):
        logger.log_metrics({"train/loss": step / 10}, step=step)
        assert len(rows(tmp_path)) == logger.written() == step + 1


def test_a_half_written_row_is_dropped_by_a_resume(logged):
    with (logged / "metrics.csv").open("a") as file:
        file.write("6,0.")
    logger = RunCsv(str(logged))
    logger.keep(6)
    logger.log_metrics({"train/loss": 0.6}, step=6)
    assert rows(logged) == [(step, str(step / 10), "") for step in range(7)]


def test_the_file_is_whole_at_every_moment(tmp_path, monkeypatch):
    replace, seen = os.replace, []

    def watched(source, target):
        before = len(rows(tmp_path)) if (tmp_path / "metrics.csv").is_file() else 0
        replace(source, target)
        seen.append((before, len(rows(tmp_path))))

    logger = RunCsv(str(tmp_path))
    logger.log_metrics({"train/loss": 1.0}, step=0)
    monkeypatch.setattr(os, "replace", watched)
    logger.log_metrics({"val/score": 1.0, "train/loss": 1.0}, step=1)
    again = RunCsv(str(tmp_path))
    again.keep(2)
    again.log_metrics({"test/score": 1.0, "train/loss": 1.0}, step=2)
    assert seen == [(1, 2), (2, 2), (2, 3)]


def test_missing_rows_are_reported(logged, caplog):
    logger = RunCsv(str(logged))
    logger.keep(9)
    logger.log_metrics({"train/loss": 9.0}, step=9)
    assert "has 6 of its 9 earlier rows" in caplog.text
    assert len(rows(logged)) == logger.written() == 7


def test_other_ranks_leave_the_file_alone(logged, monkeypatch):
    before = (logged / "metrics.csv").read_bytes()
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = RunCsv(str(logged))
    logger.keep(3)
    logger.log_metrics({"train/loss": 9.0}, step=3)
    logger.written()
    assert (logged / "metrics.csv").read_bytes() == before


@pytest.mark.parametrize("content", [b"step,a\n1,\xff\n", b"step,a\n1," + b"9" * 200_000 + b"\n"])
def test_a_damaged_table_is_told(tmp_path, content):
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(SegbenchError, match=r"metrics\.csv is damaged"):
        RunCsv(str(tmp_path)).log_metrics({"a": 1.0}, step=2)
