import os
import re
import subprocess
import sys

import cv2
import numba
import pytest
import torch

from segbench.errors import SegbenchError
from segbench.experiment import train as training
from segbench.experiment.evaluate import evaluate
from segbench.experiment.stages import FOLDER, Stage
from segbench.experiment.train import train
from segbench.runs.directory import Run
from segbench.runtime import threads
from segbench.runtime.hardware import settle
from segbench.runtime.processes import STARTED
from segbench.runtime.threads import allowed_cores, cpu_quota, divided, free_cores, settle_threads, use_threads

BEGIN = """\
cpu  400 0 0 400 0 0 0 0 0 0
cpu0 100 0 0 100 0 0 0 0 0 0
cpu1 100 0 0 100 0 0 0 0 0 0
cpu2 100 0 0 100 0 0 0 0 0 0
cpu3 100 0 0 100 0 0 0 0 0 0
intr 12 0 9
"""


def later(*cores):
    """A reading of /proc/stat after BEGIN: for each core what is added to its eight numbers."""
    rows = []
    for number, added in enumerate(cores):
        ticks = [was + more for was, more in zip((100, 0, 0, 100, 0, 0, 0, 0), added, strict=True)]
        rows.append(f"cpu{number} {' '.join(map(str, ticks))} 0 0")
    return "\n".join(["cpu  1 2 3 4 5 6 7 8 0 0", *rows, "intr 13 0 9"])


IDLE = (0, 0, 0, 20, 0, 0, 0, 0)
WAITING = (0, 0, 0, 5, 15, 0, 0, 0)
BUSY = (16, 0, 4, 0, 0, 0, 0, 0)
NICED = (0, 20, 0, 0, 0, 0, 0, 0)
STOLEN = (0, 0, 0, 0, 0, 0, 0, 20)
HALF = (8, 0, 0, 10, 0, 1, 1, 0)


@pytest.mark.parametrize(
    ("cores", "free"),
    [
        ((IDLE,) * 4, 4.0),
        ((BUSY,) * 4, 0.0),
        ((IDLE, BUSY, IDLE, BUSY), 2.0),
        ((NICED, STOLEN, BUSY, HALF), 0.5),
        # A core that waits for a disk computes nothing.
        ((WAITING, BUSY, BUSY, BUSY), 1.0),
    ],
)
def test_free_cores_are_those_that_were_idle(cores, free):
    assert free_cores(BEGIN, later(*cores), {0, 1, 2, 3}) == pytest.approx(free)


def test_what_this_process_computed_meanwhile_leaves_a_core_idle():
    assert free_cores(BEGIN, later(BUSY, IDLE, IDLE, BUSY), {0, 1, 2, 3}, own=20) == pytest.approx(3.0)
    assert free_cores(BEGIN, later(IDLE, IDLE, IDLE, IDLE), {0, 1, 2, 3}, own=20) == 4.0


@pytest.mark.parametrize(("age", "waits"), [(0.0, False), (60.0, True)])
def test_idle_cores_are_counted_while_something_else_is_awaited_if_that_is_just_over(monkeypatch, age, waits):
    clock, slept, stat = [100.0], [], [BEGIN, later(IDLE, BUSY, IDLE, BUSY), BEGIN, later(IDLE, IDLE, IDLE, IDLE)]
    monkeypatch.setattr(threads, "started_by", lambda: None)
    monkeypatch.setattr(threads, "allowed_cores", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(threads, "cpu_quota", lambda: None)
    monkeypatch.setattr(threads, "_read", lambda path: stat.pop(0))
    monkeypatch.setattr(threads.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(threads.time, "process_time", lambda: 0.0)
    monkeypatch.setattr(threads.time, "sleep", slept.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with threads.watching_cores():
        clock[0] += 1
    clock[0] += age
    assert settle_threads("auto", 1)[0] == (4 if waits else 2)
    assert bool(slept) is waits


def test_cores_that_the_process_may_not_use_do_not_count():
    after = later(IDLE, BUSY, IDLE, BUSY)
    assert free_cores(BEGIN, after, {0, 2}) == pytest.approx(2.0)
    assert free_cores(BEGIN, after, {1, 3}) == 0.0


def test_a_wait_for_a_disk_that_linux_takes_back_leaves_no_core_below_nothing_free():
    assert free_cores(BEGIN, later((20, 0, 0, 0, 0, 0, 0, 0), (20, 0, 0, 0, -1, 0, 0, 0)), {0, 1}) == 0.0


@pytest.mark.parametrize("after", [BEGIN, "", "cpu  1 2 3 4 5 6 7 8 0 0\n"])
def test_readings_that_do_not_tell_are_none(after):
    assert free_cores(BEGIN, after, {0, 1}) is None


def system(tmp_path, groups, files):
    """A file system with /proc/self/cgroup and files of /sys/fs/cgroup."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3.0),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "50000 100000\n"}, 0.5),
        # In a container the path may be that of the host.
        ("0::/docker/3f\n", {"cpu.max": "400000 100000\n"}, 4.0),
        (
            "9:name=systemd:/\n3:cpu,cpuacct:/job\n0::/\n",
            {"cpu,cpuacct/job/cpu.cfs_quota_us": "150000\n", "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"},
            1.5,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("", {}, None),
    ],
)
def test_the_tightest_quota_of_all_groups_counts(tmp_path, groups, files, cores):
    assert cpu_quota(system(tmp_path, groups, files)) == cores


def test_without_cgroups_there_is_no_quota(tmp_path):
    assert cpu_quota(tmp_path) is None


@pytest.fixture
def machine_of(monkeypatch):
    """`machine_of(cores, idle, quota)`: what `auto` finds; nothing in the environment sets a number."""
    for name in ("OMP_NUM_THREADS", "TORCHELASTIC_RUN_ID", "SLURM_STEP_NUM_TASKS", STARTED):
        monkeypatch.delenv(name, raising=False)

    def here(cores, idle=None, quota=None):
        monkeypatch.setattr(threads, "allowed_cores", lambda: set(range(cores)))
        monkeypatch.setattr(threads, "_idle_cores", lambda: idle)
        monkeypatch.setattr(threads, "cpu_quota", lambda: quota)

    return here


@pytest.mark.parametrize(
    ("found", "processes", "count", "reason"),
    [
        ((2, 2.0), 1, 2, "2.0 of 2 cores idle"),
        ((2, 0.0), 1, 1, "0.0 of 2 cores idle"),
        ((2, 1.0), 1, 1, "1.0 of 2 cores idle"),
        ((64, 53.6), 1, 54, "53.6 of 64 cores idle"),
        ((16, 15.9), 4, 4, "15.9 of 16 cores idle, for 4 processes"),
        ((2, 2.0), 8, 1, "2.0 of 2 cores idle, for 8 processes"),
        ((16, 15.0, 4.0), 1, 4, "15.0 of 16 cores idle, a cgroup allows 4"),
        ((16, 15.0, 0.5), 1, 1, "15.0 of 16 cores idle, a cgroup allows 0.5"),
        ((16, 3.0, 4.0), 1, 3, "3.0 of 16 cores idle"),
        ((8, None), 1, 8, "8 cores"),
        ((4096, 4096.0), 1, 1024, "4096.0 of 4096 cores idle"),
    ],
)
def test_auto_is_the_cores_that_are_free_shared_among_the_processes(machine_of, found, processes, count, reason):
    machine_of(*found)
    sentence = f"threads: {count} ({reason}; threads=N sets another number)"
    assert settle_threads("auto", processes) == (count, sentence)


@pytest.mark.parametrize(("given", "count"), [("3", 3), (" 4,2", 4), ("0", 8), ("many", 8), ("", 8)])
def test_auto_is_omp_num_threads_where_that_is_a_number(machine_of, monkeypatch, given, count):
    machine_of(8)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    told, sentence = settle_threads("auto", 2 if count != 8 else 1)
    assert told == count
    assert ("from OMP_NUM_THREADS" in sentence) is (count != 8)


@pytest.mark.parametrize(
    "environment",
    [{"TORCHELASTIC_RUN_ID": "x"}, {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}],
    ids=["torchrun", "srun"],
)
def test_processes_that_somebody_else_started_share_the_cores_without_a_measurement(
    machine_of, monkeypatch, environment
):
    machine_of(8, 0.3)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert settle_threads("auto", 2) == (4, "threads: 4 (8 cores, for 2 processes; threads=N sets another number)")


def test_a_number_stays_whatever_the_machine_does(machine_of, monkeypatch):
    machine_of(2, 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert settle_threads(2, 4) == (2, "threads: 2, as configured")
    assert settle_threads(3, 1) == (3, "threads: 3, as configured, more than the 2 cores here")


@pytest.mark.parametrize("setting", [0, -1, 1025, 2.0, True, "two", "4", None, [2]], ids=str)
def test_no_number_of_threads_is_refused(setting):
    refused = (
        rf"^threads={re.escape(str(setting))}\n +expected: auto, or a whole number from 1 to 1024\n.*correct threads="
    )
    with pytest.raises(SegbenchError, match=refused):
        settle_threads(setting, 1)


@pytest.fixture
def as_before():
    """The libraries get their numbers back."""
    before = torch.get_num_threads(), cv2.getNumThreads(), numba.get_num_threads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])
    numba.set_num_threads(before[2])


@pytest.mark.parametrize("count", [1, 3])
def test_all_libraries_are_set(as_before, count):
    use_threads(count)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == (count, count)
    assert numba.get_num_threads() == min(count, numba.config.NUMBA_NUM_THREADS)


def test_numba_which_starts_its_threads_late_leaves_torch_its_number():
    script = (
        "import segbench.experiment.build, torch, cv2, numba; from segbench.runtime.threads import use_threads; "
        "use_threads(1); print(torch.get_num_threads(), cv2.getNumThreads(), numba.get_num_threads())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {"NUMBA_NUM_THREADS": "3"}
    fresh = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert fresh.stdout == "1 1 1\n"


def test_every_core_of_the_process_is_found():
    assert len(allowed_cores()) == (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    )


def test_the_setting_is_replaced_by_its_number_and_reported(tiny_config, machine_of):
    machine_of(4, 2.9)
    config, sentences = settle(tiny_config("threads=auto"))
    assert sentences[-1] == "threads: 3 (2.9 of 4 cores idle; threads=N sets another number)"
    assert config.threads == 3


def test_a_run_records_its_number_and_keeps_it(tiny_config, machine_of, as_before, tmp_path, compose):
    machine_of(4, 1.2)
    use_threads(3)
    run = Run(tmp_path / "run")
    train(tiny_config("threads=auto"), run.path, [])
    assert run.config().threads == run.provenance()["threads"] == 1
    assert "threads: 1 (1.2 of 4 cores idle; threads=N sets another number)" in (run.path / "run.log").read_text()
    assert (torch.get_num_threads(), cv2.getNumThreads(), numba.get_num_threads()) == (1, 1, 1)

    machine_of(4, 2.1)
    use_threads(3)
    longer = run.config().replace({"trainer.max_steps": 4})
    train(longer, run.path, [], resume=True)
    assert run.config().threads == run.provenance()["threads"] == torch.get_num_threads() == 1

    def scored(name, *overrides):
        use_threads(3)
        given = compose(f"run={run.path}", *overrides, config="evaluate")
        evaluate(given, tmp_path / name, [])
        return Run(tmp_path / name)

    kept = scored("kept")
    assert kept.results()["protocol"]["threads"] == torch.get_num_threads() == 1
    again = scored("again", "threads=auto")
    assert again.results()["protocol"]["threads"] == again.recorded()["threads"] == torch.get_num_threads() == 2
    assert again.results()["metrics"]["test/pixel_acc"] == pytest.approx(kept.results()["metrics"]["test/pixel_acc"])


def test_stages_take_the_number_of_the_run(tiny_config, monkeypatch, machine_of, tmp_path):
    machine_of(8, 5.0)
    seen = []
    run = Run(tmp_path / "run")
    own = tiny_config("threads=auto", "init_from=somewhere")
    stages = [Stage("first", own, []), Stage("begun", own.replace({"threads": 2}), [])]
    for stage in stages:
        Run.prepare(run.path / FOLDER / stage.experiment, stage.config, [])
    monkeypatch.setattr(training, "train", lambda config, *_, **__: seen.append(config.threads))
    given = tiny_config("threads=5", "init_from=there", "name=last")
    training._run_stages(given, run, stages, (), {})
    assert seen == [5, 2]


@pytest.mark.parametrize(("recorded", "processes", "used"), [(208, 8, 26), (4, 8, 4), (208, 1, 208), (300, 1, 300)])
def test_threads_of_a_run_are_divided_among_more_processes(monkeypatch, recorded, processes, used):
    monkeypatch.setattr(threads, "allowed_cores", lambda: set(range(208)))
    assert divided(recorded, processes) == used
    monkeypatch.setattr(threads, "allowed_cores", lambda: {0, 1})
    assert divided(2, 4) == 1
