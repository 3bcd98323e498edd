"""Sweeps through a real Slurm. Scripts stand for the runs, but for one that trains on two nodes."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from segbench.runs.directory import Run
from segbench.sweep import slurm
from segbench.sweep.directory import Sweep

pytestmark = pytest.mark.slow

# Each start is a line of starts.txt. A run waits as long as there is a file `held`, and leaves 143 with a checkpoint
# when it is asked to; seed 13 fails.
STANDIN = """\
import json, os, re, signal, sys, time
from pathlib import Path
run = Path(sys.argv[-1].removeprefix("resume="))
seed = int(re.search(r"^seed: (\\d+)$", (run / "config.yaml").read_text(), re.M).group(1))
def state(word, **more):
    (run / ".state").write_text(json.dumps({"state": word, "time": "", **more}))
    os.replace(run / ".state", run / "state.json")
def end(number, frame):
    (run / "last.ckpt").write_text(signal.Signals(number).name)
    state("interrupted")
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGUSR1, end)
told = ("SLURM_NTASKS", "SLURM_NNODES", "SLURM_PROCID", "OMP_NUM_THREADS", "MINE")
with (run / "starts.txt").open("a") as starts:
    starts.write(json.dumps({name: os.environ.get(name) for name in told}) + "\\n")
state("running")
if seed == 13:
    state("failed", reason="bad luck")
    sys.exit(1)
while (run.parent / "held").exists():
    time.sleep(0.1)
(run / "results.json").write_text(json.dumps({"metrics": {"val/mean_iu": seed / 100}, "timing": {}}))
state("finished")
"""


@pytest.fixture
def here(stand_in, monkeypatch):
    monkeypatch.setattr(slurm, "LOOK_EVERY_S", 0.5)
    directory = stand_in(slurm, STANDIN)
    (directory / "sweep").mkdir()
    return directory


def launched(call, *given):
    return call("train", "-m", *given, "name=s", "hydra.sweep.dir=sweep", "hydra.launcher.cluster=slurm")


def starts(name="0"):
    import json

    path = Path("sweep") / name / "starts.txt"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def until(holds, seconds=120.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.2)


def begin_now(cluster, job):
    """A requeued job waits two minutes by default."""
    end = time.monotonic() + 120.0
    while time.monotonic() < end:
        cluster.ask("scontrol", "update", f"jobid={job}", "StartTime=now")
        if (job, "PENDING") not in cluster.queue():
            return
        time.sleep(0.5)
    raise AssertionError(cluster.queue())


def states():
    sweep = Sweep.open("sweep")
    sweep.look()
    return [job.state() for job in sweep.jobs]


def test_a_sweep_of_two_jobs_of_which_one_is_requeued(cluster, here, call):
    held = here / "sweep" / "held"
    held.touch()
    code, out, err = launched(call, "seed=1,2", "hydra.launcher.slurm.cpus_per_task=2", "+hydra.job.env_set.MINE=mine")
    assert code == 0, err
    assert "2 jobs, 2 " in out
    until(lambda: starts("0") and starts("1"))
    assert states() == ["running", "running"]
    assert starts()[0]["MINE"] == "mine"
    one = Sweep.open("sweep").jobs[0].slurm
    assert re.fullmatch(r"\d+_0", one)
    cluster.ask("scontrol", "requeue", one)
    until(lambda: (one, "PENDING") in cluster.queue())
    # Its process was told, and had the time for a checkpoint.
    assert (here / "sweep" / "0" / "last.ckpt").read_text() == "SIGTERM"
    assert states() == ["queued", "running"]
    # What is in the queue is neither submitted again nor begun here.
    assert "2 jobs, 1 queued, 1 running" in call("sweep", "resume", "sweep", "hydra.launcher.cluster=slurm")[1]
    assert len(cluster.queue()) == 2
    held.unlink()
    begin_now(cluster, one)
    until(lambda: not cluster.queue())
    assert states() == ["finished", "finished"]
    assert (len(starts("0")), len(starts("1"))) == (2, 1)
    console = (here / "sweep" / "0" / "console.log").read_text()
    assert console.count("--- ") == 2
    assert "2 jobs, 2 finished" in call("sweep", "status", "sweep")[1]
    # With more values only the new job is submitted.
    launched(call, "seed=3,2,1")
    until(lambda: not cluster.queue())
    assert [len(starts(name)) for name in "012"] == [2, 1, 1]


def test_before_its_time_limit_a_job_writes_its_checkpoint_and_is_requeued(cluster, here, call):
    held = here / "sweep" / "held"
    held.touch()
    launched(call, "seed=1")
    until(starts)
    (job,) = [name for name, _ in cluster.queue()]
    # What Slurm sends before the limit, `--signal=USR1@120`.
    cluster.ask("scancel", "--signal=USR1", job)
    until(lambda: (job, "PENDING") in cluster.queue())
    assert (here / "sweep" / "0" / "last.ckpt").exists()
    assert states() == ["queued"]
    held.unlink()
    begin_now(cluster, job)
    until(lambda: not cluster.queue())
    assert states() == ["finished"]
    assert len(starts()) == 2
    script = next((here / "sweep" / "slurm").glob("*.sh")).read_text()
    assert "#SBATCH --signal=USR1@120\n" in script


def test_a_launcher_that_waits_tells_what_came_of_its_jobs(cluster, here, call):
    code, out, err = launched(call, "seed=1,13", "hydra.launcher.slurm.wait=true", "hydra.launcher.jobs=1")
    assert code == 1
    assert "1 finished, 1 failed" in out
    assert "bad luck" in out
    assert "job 1 failed in " in err
    assert not cluster.queue()


def test_a_launcher_that_is_ended_ends_its_jobs_after_their_checkpoints(cluster, here, call):
    (here / "sweep" / "held").touch()

    def end():
        until(starts)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=end, daemon=True)
    thread.start()
    code, out, _ = launched(call, "seed=1", "hydra.launcher.slurm.wait=true")
    thread.join()
    assert code == 128 + signal.SIGTERM
    assert (here / "sweep" / "0" / "last.ckpt").read_text() == "SIGTERM"
    assert "1 interrupted" in out
    assert not cluster.queue()
    (here / "sweep" / "held").unlink()
    code, _, err = call("sweep", "resume", "sweep")
    assert code == 1 and "hydra.launcher.cluster=slurm hydra.launcher.slurm.wait=true" in err
    typed = ("hydra.launcher.cluster=slurm", "hydra.launcher.slurm.wait=true")
    assert call("sweep", "resume", "sweep", *typed)[0] == 0
    assert states() == ["finished"]


def test_what_the_cluster_does_not_take_is_told(cluster, here, call):
    code, _, err = launched(call, "seed=1", "hydra.launcher.slurm.partition=nowhere")
    assert code == 1
    assert "error: Slurm refuses the job: " in err
    assert "invalid partition" in err.lower()
    assert states() == ["prepared"]


def test_a_search_on_the_cluster(cluster, here, call):
    given = ("hydra/sweeper=optuna", "seed=choice(1,2,3)", "hydra.sweeper.n_trials=2", "hydra.launcher.jobs=2")
    code, _, err = launched(call, *given)
    assert code == 1
    assert "a search whose launcher exits after submitting the jobs" in err
    code, out, err = launched(call, *given, "hydra.launcher.slurm.wait=true")
    assert code == 0, err
    assert "2 trials: 2 complete" in out


def test_a_search_whose_launcher_was_killed_watches_the_trial_that_is_in_the_queue(cluster, here, call):
    held = here / "sweep" / "held"
    held.touch()
    given = ("hydra/sweeper=optuna", "seed=choice(1,2,3)", "hydra.sweeper.n_trials=2", "hydra.launcher.jobs=1")
    given += ("hydra.launcher.slurm.wait=true",)
    launcher = os.fork()
    if launcher == 0:
        launched(call, *given)
        os._exit(0)
    until(starts)
    os.kill(launcher, signal.SIGKILL)
    os.waitpid(launcher, 0)
    # Whether its launcher lives or not, a job of the cluster's goes on.
    assert [state for _, state in cluster.queue()] == ["RUNNING"]
    timer = threading.Timer(5.0, held.unlink)
    timer.start()
    code, out, err = launched(call, *given)
    timer.join()
    assert code == 0, err
    assert "2 trials: 2 complete" in out
    assert len(starts("0")) == 1


def final(directory):
    return torch.load(directory / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_a_run_on_two_nodes_that_is_requeued_ends_as_one_that_was_not(
    cluster, tmp_path, call, tiny_overrides, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    given = [*tiny_overrides, "name=s", "seed=0", "trainer.max_steps=200", "trainer.val_check_interval=100"]
    given += ["callbacks.panels=null", "data.test=2", "trainer=ddp", "trainer.accelerator=cpu"]
    nodes = ["trainer.devices=1", "trainer.num_nodes=2"]
    # The nodes' names stand in no directory of names here.
    setup = "hydra.launcher.slurm.setup=['export MASTER_ADDR=127.0.0.1']"
    code, _, err = launched(call, *given, *nodes, setup)
    assert code == 0, err
    until(lambda: (tmp_path / "sweep" / "0" / ".progress.json").exists(), 300.0)
    (job,) = [name for name, _ in cluster.queue()]
    cluster.ask("scancel", "--signal=USR1", job)
    until(lambda: (job, "PENDING") in cluster.queue(), 300.0)
    begin_now(cluster, job)
    until(lambda: not cluster.queue(), 300.0)
    run = Run.open("sweep/0")
    assert run.state() == "finished", (tmp_path / "sweep" / "0" / "console.log").read_text()
    assert len(run.legs()) == 2
    assert "srun: 1 processes on each of 2 machines" in (tmp_path / "sweep" / "0" / "run.log").read_text()
    command = [Path(sys.executable).with_name("segbench"), "train", *given, "trainer.devices=2"]
    subprocess.run([*command, "hydra.run.dir=alone"], check=True, capture_output=True)
    alone, requeued = final(tmp_path / "alone"), final(tmp_path / "sweep" / "0")
    assert all(torch.equal(alone[name], requeued[name]) for name in alone)
