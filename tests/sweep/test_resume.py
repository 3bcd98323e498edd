"""A sweep that is continued was written to a file: it sets no environment and names no code of somebody's own."""

import os

import pytest

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
    with pytest.raises(SegbenchError, match=r"LD_PRELOAD\n.*\n.*LD_PRELOAD='x y.so' segbench sweep resume"):
        again(directory)
    assert not started
    monkeypatch.setattr(os, "environ", os.environ | {"LD_PRELOAD": "x y.so"})
    again(directory)
    assert [job.name for job in started] == ["0"]


def test_classes_of_the_file_have_to_be_trusted(handed_over, monkeypatch):
    directory, started = handed_over(model={"_target_": "mine.Net"})
    with pytest.raises(SegbenchError, match=r"mine\.Net.*\n.*\n.*SEGBENCH_TARGETS=mine\.Net"):
        again(directory)
    assert not started
    monkeypatch.setenv("SEGBENCH_TARGETS", "mine.Net")
    again(directory)
    assert started
