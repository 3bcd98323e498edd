"""Sending what was kept offline: in a batch, again for the rest, beside runs that still write."""

import pytest

from segbench.errors import SegbenchError
from segbench.tracking import offline
from segbench.tracking.offline import FILES, legs_of, send
from segbench.tracking.wandb_run import RunWandb


@pytest.fixture
def kept(compose, wandb_server):
    """`kept(directory, ended=True)`: an offline run of one row; the logger of one that has not ended."""

    def made(directory, ended=True):
        directory.mkdir(parents=True, exist_ok=True)
        logger = RunWandb(str(directory), compose("name=tiny"), offline=True)
        logger.begin()
        logger.log_metrics({"val/mean_iu": 0.5}, 1)
        if ended:
            logger.end(0, False)
        return logger

    return made


def test_runs_are_sent_once_and_legs_in_their_order(kept, wandb_server, tmp_path):
    first = kept(tmp_path / "a")
    # A resume.
    kept(tmp_path / "a")
    kept(tmp_path / "a" / "stages" / "s")
    (tmp_path / "a" / "stages" / "s" / "config.yaml").write_text("")
    done = send([(tmp_path / "a", False)])
    assert [len(each) for each in (done.sent, done.before, done.failed)] == [3, 0, 0]
    run = wandb_server.runs[first.version]
    assert (len(run["history"]), run["exit"]) == (2, 0)
    asked = len(wandb_server.asked)
    again = send([(tmp_path / "a", False)])
    assert [len(each) for each in (again.sent, again.before)] == [0, 3]
    # Nothing to send, nobody to ask.
    assert len(wandb_server.asked) == asked


def test_what_is_still_written_waits_and_goes_the_next_time(kept, wandb_server, tmp_path, monkeypatch):
    logger = kept(tmp_path / "a", ended=False)
    kept_leg = legs_of(tmp_path / "a")
    assert [leg.ended for leg in kept_leg] == [False]
    assert [len(each) for each in (send([(tmp_path / "a", True)]).running, wandb_server.runs)] == [1, 0]
    logger.end(1, False)
    # Its exit is written: whatever the state says, it is done.
    assert [leg.ended for leg in kept_leg] == [True]
    assert len(send([(tmp_path / "a", True)]).sent) == 1
    assert wandb_server.runs[logger.version]["exit"] == 1


def test_a_killed_run_that_has_been_quiet_is_sent(kept, wandb_server, tmp_path, monkeypatch):
    logger = kept(tmp_path / "a", ended=False)
    monkeypatch.setattr(offline, "_QUIET_S", -1.0)
    assert send([(tmp_path / "a", True)]).running == []
    logger.end(0, False)


def test_a_client_that_fails_is_quoted(kept, wandb_server, tmp_path, monkeypatch):
    kept(tmp_path / "a")
    monkeypatch.setattr(offline, "_call", lambda folders: (1, "the disk is full"))
    done = send([(tmp_path / "a", False)])
    assert [words for _, words in done.failed] == ["the disk is full"]


def test_without_a_key_or_a_server_it_says_so(kept, wandb_server, tmp_path, monkeypatch):
    kept(tmp_path / "a")
    wandb_server.status = 502
    with pytest.raises(SegbenchError, match=r"it answers 502.*\n.*\n.*a machine with a network"):
        send([(tmp_path / "a", False)])
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(SegbenchError, match=r"no key for .*\n.*\n.*wandb login"):
        send([(tmp_path / "a", False)])


def test_a_run_begun_online_is_left_alone_unless_asked_for(compose, wandb_server, tmp_path):
    logger = RunWandb(str(tmp_path), compose("name=tiny"))
    logger.begin()
    logger.end(0, False)
    assert len(send([(tmp_path, False)]).online) == 1
    assert len(send([(tmp_path, False)], online=True).sent) == 1


def test_no_folder_is_sent_that_a_file_names_elsewhere(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_DIR", raising=False)
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere" / "wandb" / "offline-run-1"
    run.mkdir()
    elsewhere.mkdir(parents=True)
    (elsewhere / "run-1.wandb").touch()
    for named in (str(elsewhere), "../elsewhere/wandb/offline-run-1"):
        (run / FILES).write_text(f"{named}\n")
        with pytest.raises(SegbenchError, match=r"offline-run-1(.|\n)*WANDB_DIR=.* segbench sync"):
            legs_of(run)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    assert len(legs_of(run)) == 1
