import csv

import pytest
from lightning.pytorch.utilities import rank_zero_only

from segbench.callbacks.csv_log import RunCsv
from segbench.entry import log_to


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
    logger.save()
    return tmp_path


def rows(directory):
    with (directory / "metrics.csv").open(newline="") as file:
        return [(int(row["step"]), row["train/loss"], row.get("val/score", "")) for row in csv.DictReader(file)]


def test_the_file_lies_in_the_run_directory_itself(logged):
    assert rows(logged) == [(step, str(step / 10), "") for step in range(6)]


def test_a_resume_keeps_what_came_before_its_step_and_goes_on(logged):
    logger = RunCsv(str(logged), resumed_at=3)
    logger.log_metrics({"train/loss": 9.0, "val/score": 0.5}, step=3)
    logger.save()
    assert rows(logged) == [(0, "0.0", ""), (1, "0.1", ""), (2, "0.2", ""), (3, "9.0", "0.5")]


def test_other_ranks_leave_the_file_alone(logged, monkeypatch):
    before = (logged / "metrics.csv").read_bytes()
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = RunCsv(str(logged), resumed_at=3)
    logger.log_metrics({"train/loss": 9.0}, step=3)
    logger.save()
    assert logger.experiment is not None
    assert (logged / "metrics.csv").read_bytes() == before
