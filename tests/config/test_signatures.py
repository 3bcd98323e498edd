"""Values of the wrong type and names that nothing takes are refused by their key before anything is built."""

import subprocess
import sys
from pathlib import Path

import pytest

from segbench.cli.list import options
from segbench.config.packaged import conf_root
from segbench.config.record import LOADER_KEYS, Augment, Data, Trainer
from segbench.config.signatures import refuse_misfits
from segbench.data.datamodule import SegmentationData
from segbench.errors import SegbenchError
from segbench.runtime.hardware import settle

SEGBENCH = Path(sys.executable).with_name("segbench")
LOADERS: dict = {f"data.{key}": SegmentationData for key in LOADER_KEYS}
LOADERS |= {"data.tile": Data, "data.balance": Data, "augment.pick": Augment}
LOADERS |= {f"trainer.{key}": Trainer for key in Trainer.apart}


@pytest.fixture
def on_cpu(compose):
    def composed(*overrides):
        return settle(compose("name=x", "trainer=cpu", *overrides))[0].tree

    return composed


@pytest.mark.parametrize("experiment", options("experiment", [conf_root()]))
def test_every_experiment_fits(experiment, on_cpu):
    own = ["data.images=FOLDER", "data.masks=FOLDER"] if experiment.startswith("image_") else []
    refuse_misfits(on_cpu(f"experiment={experiment}", *own), LOADERS)


@pytest.mark.parametrize(
    ("override", "found", "expected"),
    [
        ("optimizer.lr=bad", 'optimizer.lr="bad"', "a valid number"),
        ("optimizer.betas=[0.9,x]", 'optimizer.betas=[0.9, "x"], at 1', "a valid number"),
        ("data.batch_size=2.5", "data.batch_size=2.5", "a valid integer or 'auto'"),
        ("data.batch_size=null", "data.batch_size=null", "a valid integer or 'auto'"),
        ("data.num_workers=two", 'data.num_workers="two"', "a valid integer or 'auto'"),
        ("trainer.max_steps=many", 'trainer.max_steps="many"', "a valid integer"),
        ("seed=x", 'seed="x"', "a valid integer"),
        ("tile=big", 'tile="big"', "a valid integer"),
        ("model.width=wide", 'model.width="wide"', "a valid integer"),
        (
            "callbacks.checkpoint.every_n_train_steps=a",
            'callbacks.checkpoint.every_n_train_steps="a"',
            "a valid integer",
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_its_key(override, found, expected, on_cpu):
    with pytest.raises(SegbenchError) as caught:
        refuse_misfits(on_cpu(override), LOADERS)
    assert (caught.value.found, caught.value.expected) == (found, expected)
    assert override.split("=")[0] in caught.value.action


def test_a_misspelt_name_is_told_the_right_one(on_cpu):
    with pytest.raises(
        SegbenchError, match=r"optimizer.weight_decai, which segbench.training.optim.adamw does not take"
    ):
        refuse_misfits(on_cpu("+optimizer.weight_decai=0.1"), LOADERS)
    with pytest.raises(SegbenchError, match=r"to do:    write optimizer.weight_decay"):
        refuse_misfits(on_cpu("+optimizer.weight_decai=0.1"), LOADERS)


@pytest.mark.parametrize(
    "override",
    [
        "trainer.sync_batchnorm=true",
        "optimizer.lr=1",
        "optimizer.betas=[0,0.9]",
        "tile=null",
        "tile=256",
        "trainer.gradient_clip_val=1",
    ],
)
def test_what_fits_is_let_through(override, on_cpu):
    refuse_misfits(on_cpu(override), LOADERS)


def test_a_run_with_a_bad_value_tells_it_without_a_traceback(tiny_overrides, tmp_path):
    command = [SEGBENCH, "train", *tiny_overrides, "optimizer.lr=bad", f"hydra.run.dir={tmp_path / 'run'}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert 'error: optimizer.lr="bad"' in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_that_are_left_to_the_machine_fit(compose):
    refuse_misfits(compose("name=x").tree, LOADERS)
