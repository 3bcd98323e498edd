"""A sweep that is continued was written to a file: it sets no environment, names no code, no cluster and no place."""

import os
import shlex

import pytest
import yaml

from segbench.cli.sweep import _is_data
from segbench.errors import SegbenchError
from segbench.runs.directory import Run
from segbench.sweep import run as running
from segbench.sweep.directory import Sweep
from segbench.sweep.freeze import frozen_digest
from segbench.sweep.job import Job
from segbench.sweep.resume import resume
from segbench.sweep.settings import Launching


@pytest.fixture
def handed_over(tmp_path, tiny_config, monkeypatch):
    monkeypatch.delenv("SEGBENCH_TARGETS", raising=False)
    # Nothing is to start.
    monkeypatch.setattr(running, "run_jobs", lambda sweep, jobs, settings: started.extend(jobs))
    started = []

    def made(environment=None, **changes):
        directory = tmp_path / "sweep" / "0"
        Run.prepare(directory, tiny_config().replace(changes), [])
        with Sweep(tmp_path / "sweep", tmp_path, Launching().record()) as sweep:
            sweep.jobs.append(Job(sweep.path, "0", frozen_digest(directory), [], environment or {}))
            sweep.save()
        return str(tmp_path / "sweep"), started

    return made


def again(directory):
    return resume(directory, [], False, None, None, lambda sweep, settings: 0)


def test_variables_of_the_file_have_to_be_ones_own(handed_over, monkeypatch):
    directory, started = handed_over({"LD_PRELOAD": "x y.so"})
    with pytest.raises(SegbenchError, match=r"LD_PRELOAD\n.*\n.*LD_PRELOAD='x y\.so' segbench sweep resume"):
        again(directory)
    assert not started
    monkeypatch.setattr(os, "environ", os.environ | {"LD_PRELOAD": "x y.so"})
    again(directory)
    assert [(job.name, job.environment) for job in started] == [("0", {"LD_PRELOAD": "x y.so"})]


def test_classes_of_the_file_have_to_be_trusted(handed_over, monkeypatch):
    directory, started = handed_over(model={"_target_": "mine.Net"})
    with pytest.raises(SegbenchError, match=r"mine\.Net.*\n.*\n.*SEGBENCH_TARGETS=mine\.Net"):
        again(directory)
    assert not started
    monkeypatch.setenv("SEGBENCH_TARGETS", "mine.Net")
    again(directory)
    assert started


def poisoned(directory, **changes):
    """Write other values into sweep.yaml; `job` changes its first job."""
    path = f"{directory}/sweep.yaml"
    with open(path) as file:
        content = yaml.safe_load(file)
    content["jobs"][0] |= changes.pop("job", {})
    with open(path, "w") as file:
        yaml.safe_dump(content | changes, file)


@pytest.mark.parametrize("name", ["", ".", "..", "../0", "/etc", "0/../../x", "a/b", "0\n1", "\x1b[2J", "a\\b"])
def test_a_job_does_not_leave_the_sweep(handed_over, name):
    directory, started = handed_over()
    poisoned(directory, job={"name": name})
    with pytest.raises(SegbenchError, match=r"sweep\.yaml: a job of the name"):
        again(directory)
    assert not started


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"job": {"slurm": "--user=me"}}, "jobs.0.slurm"),
        ({"job": {"slurm": "7\n--me"}}, "jobs.0.slurm"),
        ({"job": {"environment": ["A"]}}, "jobs.0.environment"),
        ({"job": {"overrides": [["a"]]}}, "jobs.0.overrides.0"),
        ({"job": {"command": "touch x"}}, "jobs.0.command"),
        ({"job": {"sweep": "/tmp"}}, "jobs.0.sweep"),
        ({"job": {"seconds": "1"}}, "jobs.0.seconds"),
        ({"setup": ["touch x"]}, "setup"),
        ({"commands": "touch x"}, "commands"),
        ({"commands": [[]]}, "commands.0"),
        ({"working_directory": 3}, "working_directory"),
        ({"search": {"metric": "val/mean_iu"}}, "search.direction"),
        ({"jobs": {}}, "jobs"),
    ],
)
def test_a_file_of_another_form_is_no_sweep(handed_over, changes, where):
    directory, started = handed_over()
    poisoned(directory, **changes)
    with pytest.raises(SegbenchError, match=rf"sweep\.yaml cannot be read: {where}"):
        again(directory)
    assert not started


def test_a_cluster_is_typed(handed_over, monkeypatch):
    directory, started = handed_over()
    settings = {"setup": ["touch x; y"], "partition": "gpu", "sbatch": {"account": "a b"}, "time_min": 60}
    poisoned(directory, launcher={"cluster": "slurm", "jobs": 3, "slurm": settings})
    with pytest.raises(SegbenchError, match=r"hydra\.launcher\.cluster=slurm\n.*setup lines from you") as refused:
        again(directory)
    assert not started
    command = shlex.split(refused.value.action.partition(": ")[2])
    typed = command[4:]
    assert command[:4] == ["segbench", "sweep", "resume", directory]
    # Minutes are as by default, and not typed.
    assert sorted(word.partition("=")[0] for word in typed) == [
        *("hydra.launcher.cluster", "hydra.launcher.slurm.partition", "hydra.launcher.slurm.sbatch.account"),
        "hydra.launcher.slurm.setup",
    ]
    given = []
    monkeypatch.setattr(running, "run_jobs", lambda sweep, jobs, settings: given.append(settings))
    resume(directory, [], False, None, None, lambda sweep, settings: 0, typed)
    (launching,) = given
    assert (launching.cluster, launching.jobs) == ("slurm", 3)
    assert launching.slurm == {key: settings[key] for key in ("setup", "partition", "sbatch")}
    resume(directory, [], False, None, None, lambda sweep, settings: 0, ["hydra.launcher.cluster=local"])
    assert (given[1].cluster, given[1].slurm) == ("local", None)


def test_no_database_is_opened_that_the_file_names(handed_over):
    directory, started = handed_over()
    search = {"metric": "val/mean_iu", "direction": "maximize", "space": {}, "storage": "sqlite:////tmp/x.db"}
    poisoned(directory, search=search, commands=[["segbench", "train", "-m", "a b"]])
    with pytest.raises(SegbenchError, match=r"storage=sqlite:////tmp/x\.db(.|\n)*&& segbench train -m 'a b'"):
        again(directory)
    assert not started


def test_jobs_run_where_they_are_continued(handed_over, capsys, monkeypatch, tmp_path):
    directory, started = handed_over()
    poisoned(directory, working_directory="/somewhere else")
    monkeypatch.chdir(tmp_path)
    again(directory)
    assert "launched in /somewhere else" in capsys.readouterr().err
    (sweep,) = {str(job.sweep) for job in started}
    assert running.machine_of(Sweep.open(sweep), Launching(), 1)._working_directory == tmp_path


def test_a_job_or_a_file_that_is_a_link_is_refused(handed_over, tmp_path):
    directory, started = handed_over()
    for name in ("0", ".lock", "slurm", "study.db"):
        path, outside = tmp_path / "sweep" / name, tmp_path / f"outside{name}"
        if path.exists():
            path.rename(outside)
        path.symlink_to(outside)
        with pytest.raises(SegbenchError, match=rf"sweep/{name} is a link to "):
            again(directory)
        path.unlink()
    assert not started


def test_a_launch_sets_its_own_variables_not_the_files(handed_over):
    directory, _ = handed_over({"LD_PRELOAD": "x.so"})
    (job,) = Sweep.open(directory).jobs
    assert (job.environment, job.recorded_environment) == ({}, {"LD_PRELOAD": "x.so"})
    with Sweep.open(directory) as sweep:
        sweep.save()
    assert Sweep.open(directory).jobs == [job]


@pytest.mark.parametrize(
    ("word", "data"),
    [
        *(
            (word, True)
            for word in ("-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "model=unet", "seed=1,2")
        ),
        *((word, True) for word in ("optimizer.lr=interval(1e-5,1e-2)", "+data.test=2", "data.root=/a/../b")),
        *((word, False) for word in ("--config-dir", "-cd", "--config-dir=mine", "hydra/launcher=basic", "mine")),
        *((word, False) for word in ("hydra.callbacks.x._target_=os.system", "hydra.job.env_set.A=1", "name=$\\{a\\}")),
        *((word, False) for word in ("hydra.searchpath=[file:///tmp]", "hydra.sweeper.storage=sqlite:///x.db")),
        *((word, False) for word in ("hydra.sweeper._target_=os.system", "experiment@hydra=x", "name=${oc.env:HOME}")),
        *((word, False) for word in ("experiment=../../x", "model=/tmp/x", "logger=[csv,../x]", "+hydra.launcher=x")),
    ],
)
def test_a_command_out_of_a_file_holds_values_alone(word, data):
    assert _is_data(word) is data
