"""`segbench sync` and `segbench sweep sync`."""

import pytest

from segbench.tracking.wandb_run import RunWandb


@pytest.fixture
def run(compose, tmp_path):
    """A run directory with an offline run of one row."""
    directory = tmp_path / "sweep" / "0"
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text("name: tiny")
    logger = RunWandb(str(directory), compose("name=tiny"), offline=True)
    logger.begin()
    logger.log_metrics({"val/mean_iu": 0.5}, 1)
    logger.end(0, False)
    return directory


def test_what_was_kept_is_sent_and_counted(run, wandb_server, call):
    assert call("sync", run)[:2] == (0, "1 run: 1 sent\n")
    assert call("sync", run.parent, "--online")[:2] == (0, "1 run: 1 sent earlier\n")
    assert len(wandb_server.runs) == 1


def test_a_run_without_wandb_has_nothing_to_send(tiny_run, wandb_server, call):
    assert call("sync", tiny_run)[:2] == (0, "1 run: nothing kept for W&B\n")


def test_what_is_not_sent_is_an_error(run, wandb_server, call, monkeypatch):
    monkeypatch.setattr("segbench.tracking.offline._call", lambda folders: (1, "no space left"))
    code, said, _ = call("sync", run)
    assert code == 1
    assert said.endswith("no space left\n1 run: 1 not sent\n")


def test_no_run_is_told(tmp_path, call):
    code, _, error = call("sync", tmp_path)
    assert code == 1
    assert f"no run in {tmp_path}" in error
