"""The processes of a run: who starts them, how they are called, and that none is left over."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed import TCPStore

from segbench.cli.train import main as train_main
from segbench.config.record import Trainer
from segbench.errors import SegbenchError
from segbench.runs.directory import Run
from segbench.runtime import ranks as ranks_module
from segbench.runtime.processes import STARTED, end_with_parent, started_by
from segbench.runtime.ranks import further_ranks, leave_group, name_run, silent_ranks, started_again

BIN = Path(sys.executable).parent
SMALL = [
    *("name=small", "model=unet", "model.width=2", "model.depth=2", "data.tile=60", "data.train=8", "data.val=2"),
    *("data.test=3", "data.height=48", "data.width=48", "data.repeats=1", "metrics=overlap", "model.dropout=0.3"),
    *("callbacks.panels=null", "callbacks.extremes=null", "callbacks.checkpoint.every_n_train_steps=1"),
    *("trainer.max_steps=4", "trainer.val_check_interval=2", "trainer.precision=32-true", "trainer.accelerator=cpu"),
    *("task.channels_last=false", "threads=1", "tta=none", "scheduler.warmup_steps=0"),
]
TWO = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]


@pytest.fixture(autouse=True)
def _not_started_by_anyone(monkeypatch):
    for name in (
        "TORCHELASTIC_RUN_ID",
        "TORCHELASTIC_RESTART_COUNT",
        "SLURM_RESTART_COUNT",
        "SEGBENCH_RUN_ID",
        STARTED,
    ):
        monkeypatch.delenv(name, raising=False)


def weights(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("environment", "starter"),
    [
        ({}, None),
        ({"TORCHELASTIC_RUN_ID": "none"}, "torchrun"),
        ({STARTED: "1", "TORCHELASTIC_RUN_ID": "none"}, "segbench"),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}, "srun"),
        # A job of one task, a batch script, a shell inside an allocation.
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"}, None),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, None),
        ({"SLURM_STEP_NUM_TASKS": "4"}, None),
    ],
    ids=str,
)
def test_who_started_the_ranks_is_known_by_the_environment(environment, starter):
    assert started_by(environment) == starter


def test_a_run_that_nobody_else_started_names_itself(monkeypatch):
    name_run()
    first = os.environ["SEGBENCH_RUN_ID"]
    monkeypatch.delenv("SEGBENCH_RUN_ID")
    name_run()
    assert os.environ["SEGBENCH_RUN_ID"] != first


def test_ranks_of_torchrun_agree_on_a_name_also_when_they_are_started_again(on_ranks, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")

    def named(rank):
        del os.environ[STARTED]
        name_run()
        first = os.environ.pop("SEGBENCH_RUN_ID")
        name_run()
        return first, os.environ["SEGBENCH_RUN_ID"]

    names = on_ranks(3, named)
    assert len({name for both in names for name in both}) == 1


def test_ranks_of_srun_are_called_after_their_job(monkeypatch):
    for name, value in {"PROCID": "1", "STEP_NUM_TASKS": "2", "JOB_ID": "17", "STEP_ID": "3"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SEGBENCH_RUN_ID", "")
    monkeypatch.delenv("SEGBENCH_RUN_ID")
    name_run()
    assert os.environ["SEGBENCH_RUN_ID"] == "slurm_17.3"


@pytest.mark.parametrize(
    ("environment", "again"),
    [({}, False), ({"TORCHELASTIC_RESTART_COUNT": "0"}, False), ({"SLURM_RESTART_COUNT": "2"}, True)],
    ids=str,
)
def test_a_second_start_is_known(monkeypatch, environment, again):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert started_again() is again


@pytest.mark.parametrize("flag", ["-m", "--multirun"])
def test_a_sweep_on_ranks_of_torchrun_is_refused(on_ranks, monkeypatch, flag):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setattr(sys, "argv", ["train.py", flag, "seed=0,1"])

    def refused(rank):
        del os.environ[STARTED]
        with pytest.raises(SystemExit) as left:
            train_main()
        return left.value.code

    assert on_ranks(1, refused) == [1]


def test_one_device_needs_no_further_rank(tmp_path):
    before = dict(os.environ)
    with further_ranks("train", Run(tmp_path), Trainer(target="lightning.Trainer", devices=1), 60.0):
        assert dict(os.environ) == before


def test_processes_that_others_started_are_let_be(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    before = dict(os.environ)
    with further_ranks("train", Run(tmp_path), Trainer(target="lightning.Trainer", devices=2), 60.0):
        assert dict(os.environ) == before


def gone(pid, seconds=20.0):
    """Whether a process has ended by then; its parent may not have looked."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


PARENT = """\
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""
CHILD = """\
import sys, time
from segbench.runtime.processes import end_with_parent
end_with_parent(int(sys.argv[1]))
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
def test_a_process_ends_with_its_parent_also_by_sigkill():
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True)
    with parent.stdout:
        child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert gone(child)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
def test_a_parent_that_was_gone_before_is_noticed():
    code = "from segbench.runtime.processes import end_with_parent; end_with_parent(2**22 - 1); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")


def test_elsewhere_than_on_linux_nothing_is_done(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    end_with_parent(1)


def test_a_run_of_two_ranks_is_one_run(compose, on_ranks, tmp_path):
    from segbench.experiment.train import train

    on_ranks(2, lambda rank: train(compose(*SMALL, *TWO, "logger=wandb"), tmp_path / "run", [], resume=rank > 0))
    run = tmp_path / "run"
    (offline,) = (run / "wandb").glob("offline-run-*")
    assert offline.name.endswith((run / "wandb_id.txt").read_text())
    assert (run / "run.log").read_text().count("step 4 of 4") == 1
    assert len((run / "metrics.csv").read_text().splitlines()) == 1 + 2 + 1  # a header, two validations, the test
    assert Run(run).provenance()["processes"] == 2


def test_the_number_of_ranks_may_change_when_a_run_is_continued(compose, on_ranks, tmp_path):
    from segbench.experiment.resume import changed
    from segbench.experiment.train import train

    def steps(rank, count, devices):
        changes, _ = changed({"trainer.max_steps": str(count), "trainer.devices": str(devices)})
        train(compose(*SMALL).replace(changes), tmp_path / "run", [], resume=rank > 0 or devices > 1 or count > 3)

    steps(0, 3, 1)
    on_ranks(2, lambda rank: steps(rank, 6, 2))
    steps(0, 9, 1)
    assert Run(tmp_path / "run").results()["timing"]["steps"] == 9
    log = (tmp_path / "run" / "run.log").read_text()
    assert "not bit-identical to an uninterrupted run: processes is 2, was 1" in log


# With the programs as users start them


@pytest.fixture(scope="module")
def whole(compose, tmp_path_factory):
    """A run of two ranks, undisturbed."""
    directory = tmp_path_factory.mktemp("whole")
    done = subprocess.run(
        [BIN / "segbench", "train", *SMALL, *TWO, "hydra.run.dir=run"],
        **{"cwd": directory, "capture_output": True, "text": True, "check": False},
    )
    assert done.returncode == 0, done.stderr
    return directory / "run"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        [BIN / "python", "-m", "segbench.train"],
        [BIN / "python", "-m", "segbench.cli.main", "train"],
        [BIN / "torchrun", "--nproc_per_node", "2", "-m", "segbench.train"],
        [BIN / "torchrun", "--standalone", "--nproc_per_node", "2", "-m", "segbench.train"],
    ],
    ids=["module", "cli", "torchrun", "torchrun standalone"],
)
def test_however_two_ranks_are_started_they_are_the_same_run(whole, tmp_path, command):
    done = subprocess.run([*command, *SMALL, *TWO], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "outputs" / "small").iterdir()
    assert equal(weights(run), weights(whole))
    assert Run(run).results()["metrics"] == Run(whole).results()["metrics"]
    assert done.stdout.count("run:   ") == 1


@pytest.mark.slow
def test_two_machines_of_torchrun_are_one_run(whole, tmp_path):
    # Two agents that find each other by the loopback.
    store = TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
    port = store.port
    del store
    command = [
        *(BIN / "torchrun", "--nnodes", "2", "--nproc_per_node", "1", "--rdzv_backend", "c10d", "--rdzv_id", "job"),
        *("--rdzv_endpoint", f"127.0.0.1:{port}", "--local_addr", "127.0.0.1", "-m", "segbench.train", *SMALL, *TWO),
    ]
    agents = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [agent.communicate(timeout=300)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    (run,) = (tmp_path / "outputs" / "small").iterdir()
    assert equal(weights(run), weights(whole))
    assert "torchrun: 1 processes on each of 2 machines" in (run / "run.log").read_text()


FAILS_ONCE = """\
import os
import pathlib
import lightning

class FailsOnce(lightning.Callback):
    def on_train_batch_end(self, trainer, *arguments):
        mark = pathlib.Path("failed")
        if trainer.global_step == 3 and trainer.global_rank == 1 and not mark.exists():
            mark.touch()
            os._exit(9)
"""


@pytest.mark.slow
def test_torchrun_starts_a_run_again_where_it_was(whole, tmp_path):
    (tmp_path / "fails.py").write_text(FAILS_ONCE)
    done = subprocess.run(
        [
            *(BIN / "torchrun", "--nproc_per_node", "2", "--max_restarts", "1", "-m", "segbench.train", *SMALL, *TWO),
            "+callbacks.fails._target_=fails.FailsOnce",
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "SEGBENCH_TARGETS": "fails.FailsOnce"},
        **{"capture_output": True, "text": True, "check": False},
    )
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "outputs" / "small").iterdir()
    assert (tmp_path / "failed").exists()
    assert equal(weights(run), weights(whole))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_leaves_no_process_and_goes_on(whole, tmp_path, workers):
    # A long run, so that it is still there when it is killed.
    given = [*SMALL, *TWO, f"data.num_workers={workers}", "hydra.run.dir=run", "trainer.max_steps=4000"]
    process = subprocess.Popen(
        [BIN / "segbench", "train", *given],
        **{"cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL},
    )
    run = tmp_path / "run"
    until = time.monotonic() + 300
    while not (run / "checkpoints" / "previous.ckpt").exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    family = descendants(process.pid)
    assert len(family) >= 1 + 2 * workers
    process.kill()
    process.wait()
    assert all(gone(pid) for pid in family)
    done = subprocess.run(
        [BIN / "segbench", "train", "resume=run", "trainer.max_steps=4"],
        **{"cwd": tmp_path, "capture_output": True, "text": True, "check": False},
    )
    assert done.returncode == 0, done.stderr


def descendants(pid):
    rows = [
        (path.name, path.joinpath("stat").read_text().rsplit(")", 1)[1].split()[1])
        for path in Path("/proc").iterdir()
        if path.name.isdecimal() and path.joinpath("stat").exists()
    ]
    family, grown = {str(pid)}, True
    while grown:
        new = {child for child, parent in rows if parent in family} - family
        family, grown = family | new, bool(new)
    return {int(each) for each in family} - {pid}


@pytest.mark.slow
def test_a_stopped_run_leaves_with_its_exit_code(tmp_path):
    given = [*SMALL, *TWO, "data.num_workers=1", "hydra.run.dir=run", "trainer.max_steps=4000"]
    process = subprocess.Popen(
        [BIN / "segbench", "train", *given], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    while not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None
        time.sleep(0.02)
    family = descendants(process.pid)
    process.terminate()
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 143, said
    assert "SIGTERM: stopping at the next safe point, with a checkpoint" in said
    assert Run(tmp_path / "run").state() == "interrupted"
    assert all(gone(pid) for pid in family)


def together(monkeypatch, rank, count):
    """Join a gloo group whose destruction waits for every rank, as that of NCCL does."""
    dist.init_process_group("gloo", rank=rank, world_size=count)
    destroy = dist.destroy_process_group

    def collective():
        dist.barrier()
        destroy()

    monkeypatch.setattr(dist, "destroy_process_group", collective)


def test_ranks_leave_their_group_together(on_ranks, monkeypatch):
    def left(rank):
        together(monkeypatch, rank, 2)
        if rank == 0:
            # The first process still writes.
            time.sleep(0.5)
        began = time.monotonic()
        leave_group(60.0)
        return dist.is_initialized(), time.monotonic() - began

    first, other = on_ranks(2, left)
    assert not first[0]
    assert not other[0]
    assert first[1] < 5
    assert other[1] >= 0.4


def test_a_rank_that_does_not_come_holds_up_nobody_for_longer_than_asked(on_ranks, monkeypatch):
    def left(rank):
        together(monkeypatch, rank, 2)
        if rank == 0:
            leave_group(0.2)
        return dist.is_initialized()

    assert on_ranks(2, left) == [True, True]


def test_without_a_group_there_is_nothing_to_leave():
    leave_group(0.0)


def test_the_first_process_leaves_the_group_before_it_waits_for_the_others(tmp_path, monkeypatch):
    done = []

    class Standin:
        number, code = 1, 0

        def __init__(self, *arguments):
            self.printed = ()

        def wait(self, until):
            done.append("waited")
            return True

        def kill(self):
            done.append("killed")

    monkeypatch.setattr(ranks_module, "_Rank", Standin)
    monkeypatch.setattr(ranks_module, "leave_group", lambda seconds: done.append("left"))
    with further_ranks("train", Run(tmp_path), Trainer(target="lightning.Trainer", devices=2), 60.0):
        done.append("trained")
    assert done[:3] == ["trained", "left", "waited"]
    assert "killed" not in done


@pytest.fixture
def store(monkeypatch):
    """The store of a run of three, of which this process is rank 0."""
    kept = TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(kept.port), "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    return kept


def test_who_does_not_notice_that_nobody_answers_is_silent(store):
    store.set("segbench/noticed/1", "")
    assert silent_ranks(3, 0.3) == [2]
    store.set("segbench/noticed/2", "")
    assert silent_ranks(3, 60.0) == []


def test_without_the_first_process_it_is_the_silent_one(store, monkeypatch, closed_port):
    monkeypatch.setenv("MASTER_PORT", str(closed_port))
    assert silent_ranks(3, 0.3) == [0]


@pytest.fixture
def closed_port():
    import socket

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


GLOO = "[.../gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 12000ms for recv operation to complete"


@pytest.mark.parametrize(("error", "named"), [(RuntimeError(GLOO), True), (dist.DistStoreError("wait timeout"), True)])
def test_a_rank_that_does_not_answer_is_named(store, tmp_path, monkeypatch, error, named):
    # torchrun started it.
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setattr(ranks_module, "_NOTICED_S", 0.2)
    store.set("segbench/noticed/2", "")
    trainer = Trainer(target="lightning.Trainer", devices=3)
    with (
        pytest.raises(SegbenchError, match=r"^rank 1 of 3 did not answer within 12 s \(runtime.timeout_s\)\n"),
        further_ranks("train", Run(tmp_path), trainer, 12.0),
    ):
        raise error


@pytest.mark.parametrize("text", ["Connection closed by peer, of gloo", "shapes cannot be multiplied"])
def test_another_error_is_none_of_waiting(store, tmp_path, monkeypatch, text):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    trainer = Trainer(target="lightning.Trainer", devices=3)
    with pytest.raises(RuntimeError, match=text), further_ranks("train", Run(tmp_path), trainer, 12.0):
        raise RuntimeError(text)


@pytest.fixture
def left(monkeypatch):
    """Exit codes with which the process would have left."""
    codes = []

    def leave(code):
        codes.append(code)
        raise InterruptedError

    monkeypatch.setattr(os, "_exit", leave)
    return codes


@pytest.fixture
def ranks(tmp_path):
    """The ranks of a run, one of which sleeps."""
    ranks = ranks_module._Ranks(Run(tmp_path))
    ranks.ranks.append(ranks_module._Rank(1, ["sleep", "600"], os.environ, ranks))
    yield ranks
    ranks.ending = True
    ranks.ranks[0].kill()


@pytest.mark.parametrize("stopped", [True, False])
def test_after_a_signal_nobody_waits_for_a_rank_that_is_stopped_or_does_nothing(ranks, left, monkeypatch, stopped):
    monkeypatch.setattr(ranks_module, "_STOPPED_S", 0.3)
    monkeypatch.setattr(ranks_module, "_IDLE_S", 0.6)
    pid = ranks.ranks[0].process.pid
    if stopped:
        os.kill(pid, signal.SIGSTOP)
    else:
        monkeypatch.setattr(ranks_module, "_waits_for_others", lambda: "here")
    with pytest.raises(InterruptedError):
        ranks.asked_to_end()
    assert left == [143]
    why = "is stopped" if stopped else "does nothing"
    assert f"rank 1 of 2 (process {pid}) {why}" in ranks._run.reason()
    assert ranks._run.state() == "interrupted"
    assert gone(pid)


def test_after_a_signal_a_rank_is_let_end_its_step(ranks, left, monkeypatch):
    # This process is at work itself.
    monkeypatch.setattr(ranks_module, "_IDLE_S", 0.2)
    thread = threading.Thread(target=ranks.asked_to_end)
    thread.start()
    thread.join(1.0)
    ranks.ending = True
    thread.join()
    assert left == []


def begun(tmp_path, *given):
    process = subprocess.Popen(
        [BIN / "segbench", "train", *SMALL, *TWO, "hydra.run.dir=run", "trainer.max_steps=100000", *given],
        **{"cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True},
    )
    until = time.monotonic() + 300
    while not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    (rank,) = (
        pid for pid in descendants(process.pid) if b"segbench.cli.rank" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    os.kill(rank, signal.SIGSTOP)
    return process, rank


@pytest.mark.slow
def test_a_run_ends_and_names_the_rank_that_is_stopped(tmp_path):
    process, rank = begun(tmp_path, "runtime.timeout_s=30")
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert f"rank 1 of 2 did not answer within 30 s (runtime.timeout_s); process {rank} is stopped" in said
    assert gone(rank)


@pytest.mark.slow
def test_sigterm_ends_a_run_beside_a_rank_that_is_stopped(tmp_path):
    process, rank = begun(tmp_path)
    process.terminate()
    said = process.communicate(timeout=10)[1]
    assert process.returncode == 143
    assert f"rank 1 of 2 (process {rank}) is stopped" in said
    assert gone(rank)
    assert Run(tmp_path / "run").state() == "interrupted"


@pytest.mark.gpu(2)
@pytest.mark.slow
def test_two_gpus_end_without_a_stall(call, tmp_path):
    began = time.monotonic()
    code, _, err = call(
        *("train", *SMALL, "trainer=ddp", "trainer.devices=2", "trainer.accelerator=gpu"),
        f"hydra.run.dir={tmp_path / 'run'}",
    )
    assert code == 0, err
    assert "did not exit" not in (tmp_path / "run" / "run.log").read_text()
    assert time.monotonic() - began < 120
