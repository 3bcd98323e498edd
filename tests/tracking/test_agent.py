import os
import signal
import time

import pytest

from segbench.runtime.signals import Stopped, stoppable
from segbench.tracking import agent
from segbench.tracking.agent import agents_run, directory_of, heed_agent


@pytest.fixture(autouse=True)
def _no_agent(monkeypatch):
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def test_a_run_is_an_agents_only_in_a_sweep(monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "a")
    assert agents_run() is None
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    assert agents_run() == "a"


def test_a_directory_is_found_by_the_id_of_its_run(tmp_path):
    for place, name in (("outputs/a/1", "one"), ("outputs/a/2", "two"), ("outputs/a/2/stages/s", "three")):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "config.yaml").write_text("")
        (tmp_path / place / "wandb_id.txt").write_text(f"{name}\n")
    assert directory_of("two", [tmp_path / "nowhere", tmp_path]) == tmp_path / "outputs" / "a" / "2"
    # A stage is a part of its run.
    assert directory_of("three", [tmp_path]) is None


def stopped_by_itself():
    """How a run ends whose agent would be this very process."""
    with pytest.raises(Stopped) as stopped, stoppable():
        heed_agent()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
    return stopped.value


def test_the_agents_signal_gives_a_run_up_and_any_other_means_preemption(monkeypatch):
    assert stopped_by_itself().preempted
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    monkeypatch.setenv("WANDB_RUN_ID", "a")
    # Another process is the agent.
    assert stopped_by_itself().preempted
    monkeypatch.setattr(agent.os, "getppid", os.getpid)
    assert stopped_by_itself().early


def test_an_agent_that_passes_signals_on_may_be_preempted_itself(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    monkeypatch.setenv("WANDB_RUN_ID", "a")
    monkeypatch.setattr(agent.os, "getppid", os.getpid)
    monkeypatch.setattr(agent.Path, "read_bytes", lambda path: b"wandb\0agent\0--forward-signals\0e/p/s\0")
    assert stopped_by_itself().preempted
