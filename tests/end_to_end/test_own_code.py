"""A user's own classes from the command line: what is typed is trusted, what is read from a file only by name."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml

from segbench.config import own_targets

MINE = """\
import lightning
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, in_channels, num_classes, width=4):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, num_classes, 1)
        )

    def forward(self, images):
        return {"out": self.layers(images)}


class Tversky(nn.Module):
    def __init__(self, beta=0.7):
        super().__init__()
        self.beta = beta

    def forward(self, logits, target):
        hot = nn.functional.one_hot(target, logits.shape[1]).movedim(-1, 1)
        prob = logits.softmax(1)
        hit, missed, extra = (x.sum() for x in (prob * hot, (1 - prob) * hot, prob * (1 - hot)))
        return 1 - hit / (hit + self.beta * missed + (1 - self.beta) * extra)


class Steps(lightning.Callback):
    def __init__(self, note="steps"):
        self.note = note

    def on_train_end(self, trainer, module):
        print(self.note, trainer.global_step, trainer.world_size, flush=True)
"""
OWN = (
    *("model._target_=mine.Net", "loss._target_=mine.Tversky", "loss.beta=0.6"),
    *("callbacks.steps._target_=mine.Steps", "callbacks.steps.note=took"),
)
SMALL = (
    *("trainer=cpu", "threads=1", "trainer.precision=32-true", "trainer.max_steps=2", "trainer.val_check_interval=2"),
    *("data.train=2", "data.val=1", "data.test=1", "data.height=32", "data.width=32", "data.tile=32"),
    *("data.batch_size=2", "data.repeats=4", "callbacks.checkpoint.every_n_train_steps=1", "task.channels_last=false"),
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "lib"), *filter(None, sys.path)]))
    monkeypatch.delenv("SEGBENCH_TARGETS", raising=False)
    return tmp_path


def segbench(*arguments, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "segbench", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
    return done


@pytest.fixture
def inside(here, call, monkeypatch):
    """As `segbench`, in this process: output and errors."""
    monkeypatch.syspath_prepend(here / "lib")
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    own_targets._tell.cache_clear()

    def called(*arguments, code=0):
        done, out, err = call(*arguments)
        assert done == code, out[-2000:] + err[-4000:]
        return out, err

    return called


def test_own_classes_train_and_are_trusted_by_name_afterwards(here, inside):
    out, err = inside("train", *SMALL, *OWN, "hydra.run.dir=run")
    assert "took 2 1" in out
    assert "loss.reduction left out: mine.Tversky does not take them" in err
    assert "output of Net: outputs for out, of which out is used" in (here / "run" / "run.log").read_text()

    _, refused = inside("evaluate", "run=run", "trainer=cpu", code=1)
    command = "segbench evaluate run=run trainer=cpu trust=mine.Net"
    assert "_target_: mine.Net, which a config that was handed over may not name" in refused
    assert refused.strip().endswith(command)
    # Neither the loss nor the callback is built.
    inside(*command.split()[1:], "hydra.run.dir=scored")
    before, after = (json.loads((here / name / "results.json").read_text())["metrics"] for name in ("run", "scored"))
    assert {key: value for key, value in before.items() if key in after} == after

    _, refused = inside("train", "resume=run", "trainer.max_steps=3", code=1)
    assert refused.strip().endswith("'trust=[mine.Net,mine.Tversky,mine.Steps]'")
    out, _ = inside("train", "resume=run", "trainer.max_steps=3", "trust=[mine.Net,mine.Tversky,mine.Steps]")
    assert "took 3 1" in out


def test_a_handed_over_run_cannot_name_a_function_even_of_an_installed_package(here, inside, tiny_run):
    shutil.copytree(tiny_run, here / "theirs")
    path = here / "theirs" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["model"] = {"_target_": "torch.hub.load", "repo_or_dir": str(here), "model": "x", "source": "local"}
    path.write_text(yaml.safe_dump(config))
    (here / "hubconf.py").write_text("open('ran', 'w')\n")
    for command in (("evaluate", "run=theirs"), ("predict", "run=theirs", "split=test", "output=out")):
        _, refused = inside(*command, "trainer=cpu", code=1)
        assert "torch.hub.load, which a config that was handed over may not name" in refused
    assert not (here / "ran").exists()


@pytest.mark.slow
def test_ranks_and_jobs_of_a_sweep_inherit_the_trust(here):
    two = ("trainer.devices=2", "trainer.strategy=ddp", "data.batch_size=1", "hydra.run.dir=two")
    segbench("train", *SMALL, *OWN, *two)
    assert "took 2 2" in (here / "two" / "run.log").read_text()
    segbench("train", "-m", *SMALL, *OWN, "seed=0,1", "hydra.sweep.dir=sweep")
    assert all((here / "sweep" / str(job) / "results.json").is_file() for job in (0, 1))
