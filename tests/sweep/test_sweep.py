"""A sweep on disk: what is frozen at its launch, what a relaunch adds, resume and retry. Scripts stand for the runs."""

import contextlib
import json
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
import yaml

from segbench.config.packaged import conf_root
from segbench.errors import SegbenchError
from segbench.runs.configs import Configs
from segbench.runs.directory import Run
from segbench.runs.history import Leg
from segbench.sweep import local
from segbench.sweep.directory import Sweep
from segbench.sweep.job import Job, differing, digest_of
from segbench.sweep.scores import history, metric_of, score_of, scores_and_seconds
from segbench.sweep.settings import Launching

# Scores its seed; seed 13 fails, seed 17 is cut off as long as there is a file `cut`, seed 19 waits to be ended.
STANDIN = """\
import json, re, sys, time
from pathlib import Path
run = Path(sys.argv[-1].removeprefix("resume="))
seed = int(re.search(r"^seed: (\\d+)$", (run / "config.yaml").read_text(), re.M).group(1))
beside = [p.name for p in run.parent.iterdir() if (p / "config.yaml").exists()]
with (run.parent / "runs.txt").open("a") as runs:
    runs.write(f"{run.name} {seed} {len(beside)}\\n")
def state(word):
    (run / "state.json").write_text(json.dumps({"state": word, "time": ""}))
state("running")
if seed == 13 and not (run.parent / "mended").exists():
    (run / "state.json").write_text(json.dumps({"state": "failed", "time": "", "reason": "bad luck"}))
    sys.exit(1)
if seed == 17 and (run.parent / "cut").exists():
    state("interrupted")
    sys.exit(143)
while seed == 19:
    time.sleep(0.1)
results = {"metrics": {"val/mean_iu": seed / 100, "test/mean_iu": seed / 200}, "timing": {}}
(run / "results.json").write_text(json.dumps(results))
state("finished")
"""


@pytest.fixture
def here(stand_in):
    """A working directory in which a script stands for every run."""
    return stand_in(local, STANDIN)


def launched(call, *given):
    return call("train", "-m", *given, "name=s", "hydra.sweep.dir=sweep")


def runs(here):
    """(directory, seed) of each process in the order of their starts, and how many jobs were frozen by then."""
    lines = [line.split() for line in (here / "sweep" / "runs.txt").read_text().splitlines()]
    return [(name, int(seed)) for name, seed, _ in lines], [int(frozen) for _, _, frozen in lines]


def test_every_job_is_frozen_before_the_first_one_starts(here, call):
    code, _, err = launched(call, "seed=1,2", "optimizer.lr=1e-3,2e-3")
    assert code == 0, err
    begun, frozen = runs(here)
    assert frozen[0] == 4
    assert begun == [("0", 1), ("1", 1), ("2", 2), ("3", 2)]
    config = Run.open("sweep/3").config()
    assert (config.seed, config.optimizer.lr, config.tree["resume"]) == (2, 2e-3, None)
    assert "hydra" not in config.tree
    assert set(Run.open("sweep/3").overrides()) == {"name=s", "seed=2", "optimizer.lr=0.002"}


def test_keys_that_go_together_are_one_axis_of_a_sweep(here, call):
    pairs = ("optimizer.lr=1e-3,2e-3", "data.batch_size=2,4", "hydra.sweeper.zip=[optimizer.lr,data.batch_size]")
    code, out, err = launched(call, "seed=1,2", *pairs)
    assert code == 0, err
    configs = [Run.open(f"sweep/{name}").config() for name in "0123"]
    assert [(each.seed, each.optimizer.lr, each.data.batch_size) for each in configs] == [
        *((1, 1e-3, 2), (1, 2e-3, 4), (2, 1e-3, 2), (2, 2e-3, 4))
    ]
    assert "seed=2 optimizer.lr=0.002 data.batch_size=4" in out
    # With one more pair only that is new.
    pairs = ("optimizer.lr=1e-3,2e-3,3e-3", "data.batch_size=2,4,6", *pairs[2:])
    assert "6 jobs, of which 2 would start" in launched(call, "seed=1,2", *pairs, "--dry")[1]


def test_a_sweep_is_shown_without_starting_or_writing(here, call):
    code, out, err = launched(call, "seed=1,1,2", "optimizer.lr=1e-3,2e-3", "--dry")
    assert (code, err) == (0, "")
    assert out.splitlines()[:5] == [
        "sweep: 4 jobs, of which 4 would start; --dry starts and writes nothing",
        *("  0  seed=1 optimizer.lr=0.001 name=s", "  1  seed=1 optimizer.lr=0.002 name=s"),
        *("  4  seed=2 optimizer.lr=0.001 name=s", "  5  seed=2 optimizer.lr=0.002 name=s"),
    ]
    assert out.splitlines()[5] == "2 combinations left out: the same config as a job above"
    assert out.splitlines()[6].startswith("command of job 0: ") and out.rstrip().endswith("sweep/0")
    assert not (here / "sweep").exists()
    launched(call, "seed=1")
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    out = launched(call, "seed=1,2", "--dry")[1]
    assert "2 jobs, of which 1 would start" in out and "  0  seed=1 name=s  (finished)\n  1  seed=2 name=s\n" in out
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--dry", "--cfg", "job"), "error: --dry and --cfg together"),
        (("-m", "--dry", "hydra/launcher=basic"), "error: hydra/launcher=basic"),
        (("-m", "--dry", "hydra/sweeper=basic"), "error: --dry with hydra/sweeper=basic"),
        (("-m", "--dry", "trainer.num_nodes=2"), "error: job 0: trainer.num_nodes=2 on one machine"),
        (("--dry",), "error: --dry without -m"),
    ],
)
def test_what_cannot_be_shown_is_told(here, call, given, message):
    code, _, err = call("train", *given)
    assert code == 1
    assert message in err
    assert list(here.iterdir()) == [here / "standin.py"]


# A stand-in for sbatch: it keeps what it is given.
SBATCH = """\
#!/bin/sh
cp "$1" submitted-$(ls | grep -c submitted)
echo Submitted batch job 7
"""


def test_the_scripts_that_are_shown_are_those_that_are_submitted(here, call, monkeypatch):
    (here / "bin").mkdir()
    for name, text in (
        ("sbatch", SBATCH),
        ("srun", "#!/bin/sh\n"),
        ("squeue", "#!/bin/sh\necho 7_0 PENDING; echo 7_1 PENDING\n"),
    ):
        (here / "bin" / name).write_text(text)
        (here / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{here / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR1")
    given = ("seed=1,2", "trainer.num_nodes=1,2", "trainer.accelerator=cpu", "hydra.launcher.cluster=slurm")
    given += ("hydra.launcher.slurm.partition=short", "hydra.launcher.slurm.sbatch={account: lab}")
    out = launched(call, *given, "--dry")[1]
    assert not list(here.glob("s[uw]*"))
    code, _, err = launched(call, *given)
    assert code == 0, err
    shown = re.findall(r"\nsbatch script of jobs (.*):\n((?:.+\n|\n(?!sbatch))*)", out)
    assert [names for names, _ in shown] == ["0, 2", "1, 3"]
    submitted = [(here / f"submitted-{number}").read_text() for number in range(2)]
    assert [script.rstrip() for _, script in shown] == [script.rstrip() for script in submitted]
    assert "--nodes=2" in submitted[1] and "--partition=short" in submitted[1] and "--account=lab" in submitted[1]


def test_a_sweep_says_what_came_of_its_jobs(here, call):
    _, out, err = launched(call, "seed=1,2")
    assert "sweep: 2 jobs, 2 finished" in out
    assert [cell.strip() for cell in next(line for line in out.splitlines() if "seed=2" in line).split("│")[1:-1]] == [
        *("1", "seed=2", "finished", "", "0.0200", "0.0100", "0:00")
    ]
    assert "job 0 started: seed=1" in err
    assert "job 1 finished in 0:00: seed=2: val/mean_iu 0.0200" in err
    read = yaml.safe_load(Path("sweep/sweep.yaml").read_text())
    assert (read["schema"], read["working_directory"]) == (1, str(here))
    assert read["commands"] == [["segbench", "train", "-m", "seed=1,2", "name=s", "hydra.sweep.dir=sweep"]]
    assert read["jobs"][0]["digest"] == digest_of(Run.open("sweep/0").recorded())
    assert call("sweep", "status", "sweep")[1] == out


def test_one_job_fails_alone_and_the_command_fails(here, call):
    code, out, _ = launched(call, "seed=13,1")
    assert code == 1
    assert "1 failed, 1 finished" in out
    assert "job 0 failed, see sweep/0/console.log\n  bad luck\n" in out
    assert out.endswith("try again with: segbench sweep retry sweep\n")


def test_further_batches_run_after_a_failed_one(here, call):
    assert launched(call, "seed=13,1,2", "hydra.sweeper.max_batch_size=1")[0] == 1
    assert runs(here)[0] == [("0", 13), ("1", 1), ("2", 2)]


def test_a_relaunch_adds_only_what_is_new(here, call):
    launched(call, "seed=1,2")
    # A job is its configuration, not its number.
    code, out, _ = launched(call, "seed=3,2,1")
    assert code == 0
    assert runs(here)[0] == [("0", 1), ("1", 2), ("2", 3)]
    assert "3 jobs, 3 finished" in out
    assert len(Sweep.open("sweep").commands) == 2


def test_the_same_configuration_twice_is_one_job(here, call):
    launched(call, "seed=1,1,2", "hydra.launcher.jobs=3")
    assert sorted(runs(here)[0]) == [("0", 1), ("2", 2)]


def test_edits_after_the_launch_change_nothing(here, call):
    mine = here / "mine" / "experiment"
    mine.mkdir(parents=True)
    (mine / "e.yaml").write_text("# @package _global_\ndefaults: [quickstart]\noptimizer: {lr: 1e-2}\n")
    (here / "sweep").mkdir()
    (here / "sweep" / "cut").touch()
    assert launched(call, "--config-dir", "mine", "experiment=e", "seed=17")[0] == 1
    (mine / "e.yaml").write_text("# @package _global_\ndefaults: [quickstart]\noptimizer: {lr: 7}\n")
    (here / "sweep" / "cut").unlink()
    assert call("sweep", "resume", "sweep")[0] == 0
    assert Run.open("sweep/0").config().optimizer.lr == 1e-2
    # With the edit it is another job.
    launched(call, "--config-dir", "mine", "experiment=e", "seed=17")
    assert Run.open("sweep/1").config().optimizer.lr == 7


def test_resume_continues_what_was_cut_off_and_retry_what_failed(here, call):
    (here / "sweep").mkdir()
    (here / "sweep" / "cut").touch()
    code, out, _ = launched(call, "seed=1,13,17")
    assert code == 1
    assert "continue with: segbench sweep resume sweep" in out
    (here / "sweep" / "cut").unlink()
    before = len(runs(here)[0])
    assert call("sweep", "resume", "sweep")[0] == 1
    assert runs(here)[0][before:] == [("2", 17)]
    (here / "sweep" / "mended").touch()
    code, out, _ = call("sweep", "retry", "sweep")
    assert code == 0
    assert "3 jobs, 3 finished" in out
    assert runs(here)[0][before + 1 :] == [("1", 13)]
    assert call("sweep", "resume", "sweep")[0] == 0
    assert len(runs(here)[0]) == before + 2


def test_a_job_whose_directory_was_removed_starts_again_with_its_command(here, call):
    import shutil

    launched(call, "seed=1,2")
    shutil.rmtree("sweep/1")
    code, out, _ = call("sweep", "resume", "sweep")
    assert code == 1
    assert "1 finished, 1 missing" in out
    assert "to restart a job whose directory is gone, repeat the command that launched it\n" in out
    code, _, err = launched(call, "seed=1,2")
    assert code == 0, err
    assert runs(here)[0] == [("0", 1), ("1", 2), ("1", 2)]
    assert [job.state() for job in Sweep.open("sweep").jobs] == ["finished"] * 2


def test_damaged_files_of_one_job_do_not_hide_the_others(here, call):
    launched(call, "seed=1,2,3,4")
    Path("sweep/0/results.json").write_text('{"schema')
    Path("sweep/1/state.json").write_text("")
    Path("sweep/2/config.yaml").write_text("model: [")
    code, out, err = call("sweep", "status", "sweep")
    assert code == 0, err
    assert "job 0: sweep/0/results.json is damaged: " in out
    assert "job 1 failed, see sweep/1/console.log\n  sweep/1/state.json is damaged\n" in out
    assert "job 2: sweep/2/config.yaml is damaged: " in out
    assert "0.0400" in out
    assert call("sweep", "retry", "sweep", "1")[0] == 0
    assert Sweep.open("sweep").named("1").state() == "finished"


def test_some_jobs_are_resumed(here, call):
    (here / "sweep").mkdir()
    (here / "sweep" / "cut").touch()
    launched(call, "seed=17", "optimizer.lr=1,2,3")
    (here / "sweep" / "cut").unlink()
    code, _, _ = call("sweep", "resume", "sweep", "2", "0", "--jobs", "2")
    assert code == 1
    assert [Sweep.open("sweep").named(name).state() for name in "012"] == ["finished", "interrupted", "finished"]
    assert call("sweep", "resume", "sweep", "7")[2].startswith("error: no job 7 in sweep\n  expected: one of 0, 1, 2")


def test_a_signal_ends_the_sweep_which_can_be_resumed(here, call):
    thread = threading.Thread(target=_end_when, args=(here / "sweep" / "1" / "state.json",))
    thread.start()
    code, out, err = launched(call, "seed=1,19,2")
    thread.join()
    assert code == 128 + signal.SIGTERM
    assert "1 finished, 1 interrupted, 1 prepared" in out
    assert "ending 1 job, each after its checkpoint" in err


def _end_when(path):
    until = time.monotonic() + 60.0
    while not path.exists() or "running" not in path.read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)


def test_another_version_is_refused(here, call):
    launched(call, "seed=1")
    file = here / "sweep" / "sweep.yaml"
    file.write_text(file.read_text().replace("schema: 1", "schema: 2"))
    for arguments in (("sweep", "status", "sweep"), ("sweep", "resume", "sweep")):
        code, _, err = call(*arguments)
        assert code == 1
        assert err.startswith("error: sweep/sweep.yaml of version 2, written by segbench ")
        assert "\n  expected: version 1, which segbench " in err
    assert "version 2" in launched(call, "seed=2")[2]
    assert not (here / "sweep" / "1").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "sweep.yaml is missing"),
        ("schema: 1\n", "cannot be read: commands: Field required"),
        ("[", "sweep.yaml is damaged: "),
    ],
)
def test_what_is_no_sweep_is_told(here, call, content, message):
    (here / "sweep").mkdir()
    if content is not None:
        (here / "sweep" / "sweep.yaml").write_text(content)
    code, _, err = call("sweep", "status", "sweep")
    assert code == 1
    assert message in err


def test_two_launchers_in_one_sweep_are_refused(here, call):
    launched(call, "seed=1")
    with Sweep.open("sweep"):
        for code, _, err in (launched(call, "seed=2"), call("sweep", "resume", "sweep")):
            assert code == 1
            assert "sweep is being launched by another process" in err
    assert not (here / "sweep" / "1").exists()


def test_an_edited_job_is_refused_before_it_begins(here, call):
    launched(call, "seed=1")
    file = Path("sweep/0/config.yaml")
    file.write_text(file.read_text().replace("seed: 1", "seed: 2"))
    Run(file.parent).set_state("prepared")
    code, _, err = call("sweep", "resume", "sweep")
    assert code == 1
    assert "sweep/0/config.yaml differs from the config frozen at launch" in err


def test_jobs_that_a_killed_launcher_had_frozen_are_taken_up(here, call, monkeypatch):
    def killed(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Sweep, "save", killed)
        assert launched(call, "seed=1,2")[0] == 130
    assert Run.open("sweep/1").state() == "prepared"
    assert launched(call, "seed=1,2,3")[0] == 0
    assert runs(here)[0] == [("0", 1), ("1", 2), ("2", 3)]


def test_a_directory_for_two_jobs_is_refused(here, call):
    code, _, err = launched(call, "seed=1,2", "hydra.sweep.subdir=same")
    assert code == 1
    assert "hydra.sweep.subdir=same for two jobs of sweep" in err
    assert not (here / "sweep" / "runs.txt").exists()


def test_a_job_may_be_called_by_what_it_changes(here, call):
    launched(call, "seed=1,2", "hydra.sweep.subdir='seed-${seed}'")
    assert [job.name for job in Sweep.open("sweep").jobs] == ["seed-1", "seed-2"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("jobs=0", "hydra.launcher.jobs=0\n  expected: a number of jobs, at least 1"),
        ("jobs=many", "hydra.launcher.jobs=many\n"),
        ("cluster=cloud", "hydra.launcher.cluster=cloud\n  expected: local or slurm"),
        ("devices_per_job=0", "hydra.launcher.devices_per_job=0\n"),
        ("grace_s=-1", "hydra.launcher.grace_s=-1\n"),
    ],
)
def test_a_wrong_setting_is_told_before_anything_is_written(here, call, given, message):
    code, _, err = launched(call, "seed=1", f"hydra.launcher.{given}")
    assert code == 1
    assert f"error: {message}" in err
    assert "Traceback" not in err
    assert not list((here / "sweep").glob("*/config.yaml"))


def test_an_unknown_setting_is_told():
    with pytest.raises(SegbenchError, match=r"hydra.launcher.workers=3\n.*one of cluster, jobs"):
        Launching.read({"workers": 3})


def test_a_value_that_one_job_lacks_stops_the_sweep_before_it_starts(here, call):
    code, _, err = launched(call, "optimizer.lr=1,???", "seed=1")
    assert code == 1
    assert "error: optimizer.lr is not given" in err
    assert not (here / "sweep" / "runs.txt").exists()


def test_a_sweep_under_torchrun_is_refused(here, call, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = launched(call, "seed=1")
    assert code == 1
    assert "a sweep as one of WORLD_SIZE=2 processes" in err


def test_hydras_own_launcher_is_still_there(here, call, monkeypatch):
    import segbench.cli.train

    trained = []
    monkeypatch.setattr(
        segbench.cli.train,
        "train",
        lambda config, directory, *_, **__: trained.append((config.seed, str(directory))),
    )
    monkeypatch.setattr(segbench.cli.train, "name_deviations", lambda directory: None)
    code, _, err = launched(call, "hydra/launcher=basic", "seed=1,2")
    assert code == 0, err
    assert trained == [(1, "sweep/0"), (2, "sweep/1")]


def test_stages_are_frozen_with_their_job(here, call):
    mine = here / "mine" / "experiment"
    mine.mkdir(parents=True)
    (mine / "first.yaml").write_text("# @package _global_\ndefaults: [quickstart]\noptimizer: {lr: 1e-2}\n")
    (mine / "second.yaml").write_text("# @package _global_\ndefaults: [quickstart]\nstages: [first]\n")
    launched(call, "--config-dir", "mine", "experiment=second", "seed=1,2")
    stage = Run.open("sweep/1/stages/first")
    assert (stage.state(), stage.config().seed, stage.config().optimizer.lr) == ("prepared", 2, 1e-2)
    (mine / "first.yaml").write_text("# @package _global_\ndefaults: [quickstart]\noptimizer: {lr: 3}\n")
    launched(call, "--config-dir", "mine", "experiment=second", "seed=1")
    assert [job.name for job in Sweep.open("sweep").jobs] == ["0", "1", "2"]


def test_sweepers_get_the_score_of_each_job(here, monkeypatch):
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
    from hydra._internal.hydra import Hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.utils import JobStatus

    monkeypatch.setattr(sys, "argv", ["segbench"])
    path = ConfigSearchPathImpl()
    path.append("hydra", "pkg://hydra.conf")
    path.append("main", f"file://{conf_root()}")
    path.append("schema", "structured://")
    try:
        application = Hydra.create_main_hydra2("segbench", path)
        given = ["name=s", "hydra.sweep.dir=sweep", "hydra.mode=MULTIRUN", "~hydra.callbacks.summary"]
        ((good, bad),) = application.multirun("train", lambda _: None, [*given, "seed=5,13"])
        ((other,),) = application.multirun("train", lambda _: None, [*given, "seed=5", "optimized_metric=test/mean_iu"])
    finally:
        GlobalHydra.instance().clear()
    assert (good.status, good.return_value, good.overrides) == (JobStatus.COMPLETED, 0.05, ["name=s", "seed=5"])
    assert (bad.status, bad.return_value, bad.cfg.seed) == (JobStatus.FAILED, None, 13)
    assert other.return_value == 0.025


def test_help_says_what_there_is(call):
    code, out, _ = call("sweep", "--help")
    assert code == 0
    assert all(word in out for word in ("status", "resume", "retry"))
    assert "--jobs N" in call("sweep", "resume", "--help")[1]


def test_what_sets_jobs_apart():
    jobs = [Job(Path(), str(n), "", ["name=s", f"seed={n}", *(["x=1"] if n else [])]) for n in range(2)]
    assert differing(jobs) == ["seed=0", "seed=1 x=1"]
    assert differing(jobs[:1]) == [""]
    assert differing([]) == []
    jobs[1].overrides.append("seed=7")
    assert differing(jobs, {"seed": ""}) == ["seed=0", "seed=7"]


def test_a_digest_is_of_the_values_whatever_their_order():
    one = {"a": 1, "b": {"c": 1e-12, "d": [1, None]}}
    assert digest_of(one) == digest_of({"b": {"d": [1, None], "c": 1e-12}, "a": 1})
    assert digest_of(one) == digest_of(yaml.safe_load(yaml.safe_dump(one)))
    assert digest_of(one) != digest_of({**one, "a": 2})


def written(tmp_path, metrics, timing, table=""):
    (tmp_path / "results.json").write_text(json.dumps({"metrics": metrics, "timing": timing}))
    (tmp_path / "metrics.csv").write_text(table)
    return Run(tmp_path)


def test_a_score_that_is_not_reported_is_that_of_the_checkpoint(tmp_path):
    table = "step,train/loss,val/mean_iu\n1,0.5,\n1,,0.4\n3,,0.6\n5,,0.2\n"
    run = written(tmp_path, {"test/mean_iu": 0.7}, {"steps": 6.0, "checkpoint_step": 4.0}, table)
    assert history(run, "val/mean_iu") == [(1, 0.4), (3, 0.6), (5, 0.2)]
    assert score_of(run, "val/mean_iu") == 0.6
    assert score_of(run, "test/mean_iu") == 0.7
    assert score_of(run, "val/other") is None


def test_what_a_table_shows_is_read_once(tmp_path, tiny_config, monkeypatch):
    config = tiny_config("callbacks.checkpoint.monitor=val/mean_iu")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.tree))
    Run(tmp_path).add_leg(Leg(0))
    assert scores_and_seconds(Run(tmp_path)) == ({}, 0.0)
    timing = {"steps": 6.0, "checkpoint_step": 4.0, "fit_s": 3.0, "evaluate_s": 0.5}
    run = written(tmp_path, {"test/mean_iu": 0.7}, timing, "step,val/mean_iu\n1,0.4\n3,0.6\n5,0.2\n")
    reads, read = [], Run.results
    monkeypatch.setattr(Run, "results", lambda run: reads.append(run.path) or read(run))
    assert scores_and_seconds(run, Configs()) == ({"val/mean_iu": 0.6, "test/mean_iu": 0.7}, 3.5)
    assert reads == [tmp_path]


def test_a_score_that_is_not_defined_is_nan(tmp_path):
    value = score_of(written(tmp_path, {"val/rand_error": None}, {}), "val/rand_error")
    assert value is not None and value != value


def test_half_a_line_is_not_read(tmp_path):
    run = written(tmp_path, {}, {}, "step,val/mean_iu\n1,0.25\n3,0.7")
    assert history(run, "val/mean_iu") == [(1, 0.25)]


def test_what_jobs_are_compared_by(tiny_config):
    config = tiny_config("callbacks.checkpoint.monitor=val/mean_iu")
    assert metric_of(config) == "val/mean_iu"
    assert metric_of(config.replace({"optimized_metric": "test/x"})) == "test/x"
    assert metric_of(config.replace({"callbacks": {}})) is None


def final(directory):
    return torch.load(directory / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.slow
def test_in_a_sweep_two_processes_train_what_they_train_alone(tmp_path, call, tiny_overrides, monkeypatch):
    """Under Lightning's own launcher each rank would run the whole sweep, with separate parameters."""
    monkeypatch.chdir(tmp_path)
    given = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "callbacks.panels=null", "data.test=2"]
    code, out, err = launched(call, *tiny_overrides, *given, "name=s", "seed=0,1", "optimizer.lr=1e-3")
    assert code == 0, err
    assert "2 jobs, 2 finished" in out
    weights = [final(tmp_path / "sweep" / name) for name in "01"]
    assert not all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    for name, seed in (("0", 0), ("1", 1)):
        run = Run.open(f"sweep/{name}")
        assert (run.config().seed, run.config().trainer.devices) == (seed, 2)
        assert run.provenance().get("processes", 2) == 2
    command = [Path(sys.executable).with_name("segbench"), "train", *tiny_overrides, *given, "name=s"]
    subprocess.run([*command, "seed=1", "optimizer.lr=1e-3", "hydra.run.dir=alone"], check=True, capture_output=True)
    alone = final(tmp_path / "alone")
    assert all(torch.equal(alone[key], weights[1][key]) for key in alone)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "sweep"]


def processes_with(text):
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if text in path.read_bytes().decode(errors="replace"):
                found.append(path.parent.name)
    return found


@pytest.mark.slow
def test_no_process_outlives_a_killed_launcher_and_the_sweep_goes_on(tmp_path, call, tiny_overrides, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "callbacks.panels=null", "data.test=2"]
    given += ["trainer.max_steps=300", "trainer.val_check_interval=20", "name=s", "seed=0,1"]
    command = [Path(sys.executable).with_name("segbench"), "train", "-m", *tiny_overrides, *given]
    sweep = tmp_path / "sweep"
    with subprocess.Popen([*command, f"hydra.sweep.dir={sweep}", "hydra.launcher.jobs=2"]) as launcher:
        until, waiting = time.monotonic() + 300.0, {"0", "1"}
        while waiting:
            assert time.monotonic() < until
            for name in sorted(waiting):
                if (sweep / name / "checkpoints" / "last.ckpt").exists():
                    # On a busy machine one may be through before the other has begun.
                    for process in processes_with(str(sweep / name)):
                        os.kill(int(process), signal.SIGSTOP)
                    waiting.remove(name)
            time.sleep(0.02)
        # The launcher, two jobs, and a further rank of each.
        assert len(processes_with(str(sweep))) >= 5
        launcher.kill()
    until = time.monotonic() + 30.0
    while processes_with(str(sweep)) or [job.state() for job in Sweep.open(sweep).jobs] != ["interrupted"] * 2:
        assert time.monotonic() < until, processes_with(str(sweep))
        time.sleep(0.1)
    code, out, err = call("sweep", "resume", sweep, "--jobs", "2")
    assert code == 0, err
    assert "2 jobs, 2 finished" in out
    assert all(len(job.run.legs()) == 2 for job in Sweep.open(sweep).jobs)
