"""The launcher's processes: started, watched, ended together, none left behind. Small scripts stand for the runs."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from segbench.config.record import Trainer
from segbench.errors import SegbenchError
from segbench.runs.directory import Run
from segbench.sweep import launching, local
from segbench.sweep.devices import Pool, visible_gpus
from segbench.sweep.job import Job
from segbench.sweep.launching import Listed, launch
from segbench.sweep.local import LocalJobs
from segbench.sweep.view import JobsView

# What a run does, in 50 ms: it holds its directory, writes down how it stands, and leaves 143 when it is asked to end.
STANDIN = """\
import fcntl, json, os, signal, subprocess, sys, time
from pathlib import Path
run = Path(sys.argv[-1].removeprefix("resume="))
does = json.loads((run / "does.json").read_text())
lock = (run / ".lock").open("w")
fcntl.flock(lock, fcntl.LOCK_EX)
def state(word):
    (run / ".state").write_text(json.dumps({"state": word, "time": ""}))
    os.replace(run / ".state", run / "state.json")
def end(number, frame):
    if does == "slow":
        time.sleep(1.0)
    (run / "last.ckpt").write_text("whole")
    state("interrupted")
    sys.exit(143)
signal.signal(signal.SIGTERM, signal.SIG_IGN if does == "ignore" else end)
(run / "environment.json").write_text(json.dumps({**os.environ, "cwd": os.getcwd()}))
state("running")
if does == "fail":
    raise SystemExit("error: no good\\n  expected: better\\n  to do:    nothing")
if does == "leave":
    left = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    (run / "left.pid").write_text(str(left.pid))
(run / ".pid").write_text(str(os.getpid()))
os.replace(run / ".pid", run / "pid")
if does in ("hang", "slow", "ignore"):
    time.sleep(600)
if isinstance(does, float):
    time.sleep(does)
state("finished")
"""
TRAINER = {"accelerator": "cpu", "devices": 1, "num_nodes": 1}


def trainer_of(**settings):
    return Trainer(target="lightning.Trainer", **settings)


class Told:
    """A view that keeps what it is shown."""

    def __init__(self):
        self.lines, self.begun, self.most = [], [], 0

    def say(self, text):
        self.lines.append(text)

    def started(self, job):
        self.begun.append(job.name)

    def ended(self, job):
        pass

    def draw(self, running):
        self.most = max(self.most, len(running))


@pytest.fixture
def standin(tmp_path, monkeypatch, tiny_config):
    """`standin("finish", ...)`: a job for each word, run by a script that does so."""
    script = tmp_path / "standin.py"
    script.write_text(STANDIN)
    monkeypatch.setattr(local, "child_command", lambda directory: [sys.executable, "-S", str(script), str(directory)])

    def made(*does, trainer=TRAINER):
        import json

        jobs = []
        asked = {f"trainer.{name}": value for name, value in trainer.items()}
        config = tiny_config().replace({"callbacks": {}, **asked})
        for number, word in enumerate(does):
            job = Job(tmp_path, str(number), "", [f"does={word}"])
            Run.prepare(job.directory, config, [])
            (job.directory / "does.json").write_text(json.dumps(word))
            jobs.append(job)
        return jobs

    return made


def run(jobs, at_once=1, grace_s=20.0, machine=None, view=None):
    machine = machine or LocalJobs(Path.cwd(), at_once)
    return launch(machine, Listed(jobs), view or Told(), grace_s)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that has ended and whose parent has not looked yet is none.
    return "zombie" not in Path(f"/proc/{pid}/status").read_text()


def wait_for(what, seconds=20.0):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "in vain"
        time.sleep(0.02)


def gone(pid):
    wait_for(lambda: not alive(pid))
    return True


def when(what, then):
    """Do something as soon as something holds, beside the loop."""

    def watching():
        wait_for(what)
        then()

    thread = threading.Thread(target=watching)
    thread.start()
    return thread


def test_one_job_fails_alone(standin):
    jobs = standin("finish", "fail", "finish")
    assert run(jobs) is None
    assert [job.state() for job in jobs] == ["finished", "failed", "finished"]
    log = (jobs[1].directory / "console.log").read_text().splitlines()
    assert log[0].startswith("--- ") and log[0].endswith(str(jobs[1].directory))
    assert log[1:] == ["error: no good", "  expected: better", "  to do:    nothing"]
    assert all(job.seconds > 0 for job in jobs)


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_so_many_run_at_once_and_no_more(standin, at_once):
    view = Told()
    jobs = standin(*[0.3] * 4)
    run(jobs, at_once, view=view)
    assert view.most == at_once
    assert view.begun == ["0", "1", "2", "3"]
    assert {job.state() for job in jobs} == {"finished"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_jobs_each_after_its_checkpoint(standin, number):
    jobs = standin("hang", "hang", "finish")
    before = signal.getsignal(number)
    thread = when(
        lambda: all((job.directory / "pid").exists() for job in jobs[:2]), lambda: os.kill(os.getpid(), number)
    )
    view = Told()
    assert run(jobs, 2, view=view) == number
    thread.join()
    assert [job.state() for job in jobs] == ["interrupted", "interrupted", "prepared"]
    assert all((job.directory / "last.ckpt").exists() for job in jobs[:2])
    assert view.lines == ["ending 2 jobs, each after its checkpoint; Ctrl-C again ends them at once"]
    assert signal.getsignal(number) == before


def test_a_job_that_does_not_end_is_killed_in_time(standin):
    (job,) = standin("ignore")
    thread = when((job.directory / "pid").exists, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert run([job], grace_s=0.2) == signal.SIGTERM
    thread.join()
    assert gone(int((job.directory / "pid").read_text()))
    assert job.state() == "interrupted"


def test_a_second_ctrl_c_ends_them_at_once(standin, monkeypatch):
    monkeypatch.setattr(launching, "AGAIN_S", 0.0)
    (job,) = standin("ignore")
    view = Told()

    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        wait_for(lambda: view.lines)
        os.kill(os.getpid(), signal.SIGINT)

    thread = when((job.directory / "pid").exists, twice)
    assert run([job], grace_s=600.0, view=view) == signal.SIGINT
    thread.join()
    assert gone(int((job.directory / "pid").read_text()))


@pytest.mark.parametrize(("first", "second"), [(signal.SIGINT, signal.SIGINT), (signal.SIGHUP, signal.SIGTERM)])
def test_a_signal_that_comes_twice_is_one(standin, first, second):
    # A shell or a wrapper passes on what the terminal has told everyone.
    jobs = standin("slow", "slow")

    def twice():
        os.kill(os.getpid(), first)
        time.sleep(0.2)
        os.kill(os.getpid(), second)

    thread = when(lambda: all((job.directory / "pid").exists() for job in jobs), twice)
    assert run(jobs, at_once=2) == first
    thread.join()
    assert [job.run.state() for job in jobs] == ["interrupted"] * 2


def test_what_a_job_started_and_left_behind_ends_with_it(standin):
    (job,) = standin("leave")
    run([job])
    assert job.state() == "finished"
    assert gone(int((job.directory / "left.pid").read_text()))


def test_a_job_that_was_killed_is_one_that_was_cut_off(standin):
    (job,) = standin("hang")
    pid = job.directory / "pid"
    thread = when(pid.exists, lambda: os.kill(int(pid.read_text()), signal.SIGKILL))
    assert run([job]) is None
    thread.join()
    assert job.run.state() == "running"
    assert job.state() == "interrupted"


def test_while_a_process_holds_it_a_job_runs(standin):
    (job,) = standin("finish")
    job.run.set_state("running")
    with job.run as held:
        held.lock()
        assert job.state() == "running"
    assert job.state() == "interrupted"


def test_a_process_that_ends_before_it_is_a_run_has_failed(standin, monkeypatch):
    (job,) = standin("finish")
    monkeypatch.setattr(local, "child_command", lambda directory: [sys.executable, "-S", "-c", "import nowhere"])
    run([job])
    assert job.state() == "failed"
    assert "nowhere" in (job.directory / "console.log").read_text()


def test_a_job_whose_directory_is_removed_while_it_runs_is_missing_and_the_others_go_on(standin, tmp_path):
    jobs = standin("hang", "finish")

    def remove():
        pid = int((jobs[0].directory / "pid").read_text())
        shutil.rmtree(jobs[0].directory)
        os.kill(pid, signal.SIGTERM)

    thread = when((jobs[0].directory / "pid").exists, remove)
    with JobsView({}, 2) as view:
        assert run(jobs, view=view) is None
    thread.join()
    assert [job.state() for job in jobs] == ["missing", "finished"]


def test_an_error_of_the_launchers_own_leaves_no_process(standin):
    (job,) = standin("hang")

    class Broken(Told):
        def draw(self, running):
            if (job.directory / "pid").exists():
                raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        run([job], view=Broken())
    assert gone(int((job.directory / "pid").read_text()))


LAUNCHER = """\
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from test_launcher import Told
from segbench.sweep import launching, local
from segbench.sweep.job import Job
from segbench.sweep.launching import Listed, launch
local.child_command = lambda directory: [sys.executable, "-S", {script!r}, str(directory)]
jobs = [Job(Path({sweep!r}), name, "", []) for name in "01"]
launch(local.LocalJobs(Path.cwd(), 2), Listed(jobs), Told(), 60.0)
"""


def test_no_job_outlives_a_launcher_that_was_killed(standin, tmp_path):
    jobs = standin("ignore", "ignore")
    code = LAUNCHER.format(tests=str(Path(__file__).parent), script=str(tmp_path / "standin.py"), sweep=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code]) as launcher:
        wait_for(lambda: all((job.directory / "pid").exists() for job in jobs), 60.0)
        launcher.kill()
    for job in jobs:
        assert gone(int((job.directory / "pid").read_text()))
        assert job.state() == "interrupted"


def environment(job):
    import json

    return json.loads((job.directory / "environment.json").read_text())


def test_each_job_gets_gpus_of_its_own(standin, monkeypatch):
    jobs = standin(0.3, 0.3, 0.3, trainer={"accelerator": "auto", "devices": 2, "num_nodes": 1})
    view = Told()
    run(jobs, machine=LocalJobs(Path.cwd(), 3, gpus=("4", "5", "GPU-a", "GPU-b")), view=view)
    # Two fit beside each other; the third takes what is free first.
    assert view.most == 2
    given = [environment(job)["CUDA_VISIBLE_DEVICES"] for job in jobs]
    assert given[:2] == ["4,5", "GPU-a,GPU-b"]
    assert given[2] in given[:2]


def test_a_job_on_the_cpu_takes_no_gpu(standin, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    jobs = standin("finish", "finish")
    run(jobs, machine=LocalJobs(Path.cwd(), 2, gpus=("0",)))
    assert all("CUDA_VISIBLE_DEVICES" not in environment(job) for job in jobs)


def test_threads_are_divided_unless_the_user_sets_a_number(standin, monkeypatch):
    monkeypatch.setattr(local, "allowed_cores", lambda: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (job,) = standin("finish")
    run([job], at_once=2)
    assert environment(job)["OMP_NUM_THREADS"] == "4"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    run([job], at_once=2)
    assert environment(job)["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    ("jobs", "devices", "gpus", "threads"), [(1, 1, (), None), (2, 1, (), "4"), (2, 2, (), "2"), (3, 4, ("0",), "2")]
)
def test_a_share_of_eight_cores(monkeypatch, jobs, devices, gpus, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    given = Pool((), 8, jobs, None).environment(trainer_of(devices=devices), gpus)
    assert given.get("OMP_NUM_THREADS") == threads


def test_a_job_starts_its_own_ranks_inside_an_allocation(standin, monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "2")
    monkeypatch.setenv("WANDB_RUN_ID", "the-launchers")
    (job,) = standin("finish")
    job.environment["MINE"] = "1"
    run([job], machine=LocalJobs(tmp_path, 1))
    given = environment(job)
    assert not {"SLURM_NTASKS", "SLURM_PROCID", "WANDB_RUN_ID"} & given.keys()
    assert (given["MINE"], given["cwd"]) == ("1", str(tmp_path))


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("2,3", ("2", "3")), ("", ()), ("-1", ()), ("1,-1,0", ("1",)), ("GPU-8932f937, MIG-1", ("GPU-8932f937", "MIG-1"))],
)
def test_the_gpus_that_are_visible(visible, expected):
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": visible}) == expected


def test_gpus_are_counted_where_nobody_has_chosen(tmp_path, monkeypatch):
    lists = tmp_path / "nvidia-smi"
    lists.write_text(
        "#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)'\necho '  MIG 1g.5gb Device 0: (UUID: MIG-1)'\necho 'GPU 1: A'\n"
    )
    lists.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert visible_gpus({}) == ("MIG-1", "1")
    lists.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert visible_gpus({}) == ()


@pytest.mark.parametrize(("devices", "processes"), [(1, 1), (4, 4), ("4", 4), ([1, 3], 2), ("auto", 1), (-1, 1)])
def test_the_processes_of_a_job(devices, processes):
    assert trainer_of(devices=devices).processes_here == processes


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"accelerator": "gpu", "devices": 3}, r"job 7: trainer.devices=3\n.*at most the 2 GPUs here"),
        ({"accelerator": "auto", "devices": [1]}, r"trainer.devices=\[1\] beside other jobs\n.*a number of devices"),
        ({"accelerator": "cpu", "devices": 1, "num_nodes": 2}, r"num_nodes=2 on one machine\n.*\n.*cluster=slurm"),
    ],
)
def test_a_job_that_cannot_run_here_is_refused(trainer, message):
    with pytest.raises(SegbenchError, match=message):
        Pool(("0", "1"), 8, 2, None).check(trainer_of(**trainer), "7")


def test_more_devices_a_job_than_there_are_is_refused():
    with pytest.raises(SegbenchError, match=r"hydra.launcher.devices_per_job=2\n.*at most the 1 GPUs here"):
        Pool(("0",), 8, 1, 2)


def test_devices_given_back_keep_their_order():
    pool = Pool(("a", "b", "c"), 8, 3, None)
    trainer = trainer_of(accelerator="gpu", devices=1)
    first, second = pool.take(trainer), pool.take(trainer)
    assert (first, second) == (("a",), ("b",))
    assert pool.take(trainer_of(accelerator="gpu", devices=-1)) is None
    pool.give_back(first)
    assert pool.take(trainer_of(accelerator="gpu", devices=2)) == ("a", "c")
