"""The commands as Python functions, as a notebook calls them."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

import segbench
from segbench.errors import SegbenchError
from segbench.runs.directory import Run

REPO = Path(__file__).resolve().parents[1]
FEW = ("trainer.max_steps=2", "trainer.val_check_interval=2", "trainer=cpu")


@pytest.fixture
def overrides(tiny_overrides):
    return [each for each in tiny_overrides if not each.startswith(("trainer.max_steps", "trainer.val_check"))] + [*FEW]


def of_the_process():
    """What a notebook would notice if a call changed it."""
    import logging
    import signal
    import threading
    import warnings

    import cv2
    import matplotlib
    import numba
    from hydra.core.hydra_config import HydraConfig

    loggers = ("", "lightning", "lightning.pytorch", "lightning.fabric", "segbench", "hydra", "matplotlib")
    return {
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "environment": {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"},
        "logs": {name: (logging.getLogger(name).level, list(logging.getLogger(name).handlers)) for name in loggers},
        "threads": threading.enumerate(),
        "folder": Path.cwd(),
        "arguments": (list(sys.argv), list(sys.path)),
        "streams": (sys.stdout, sys.stderr, sys.excepthook, threading.excepthook),
        "warnings": list(warnings.filters),
        "figures": (matplotlib.get_backend(), dict(matplotlib.rcParams)),
        "hydra": (GlobalHydra.instance().hydra, HydraConfig.instance().cfg),
        "counts": (torch.get_num_threads(), numba.get_num_threads(), cv2.getNumThreads()),
        "torch": (
            *(torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.is_grad_enabled()),
            *(torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
            *(torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.is_anomaly_enabled()),
            *(
                torch.backends.cuda.matmul.allow_tf32,
                torch.backends.cudnn.allow_tf32,
                torch.is_inference_mode_enabled(),
            ),
        ),
    }


def left_alone(before):
    after = of_the_process()
    assert {key: (value, after[key]) for key, value in before.items() if value != after[key]} == {}


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, segbench; segbench.train, segbench.compare; print({'torch', 'hydra'} & set(sys.modules))"
    environment = os.environ | {"PYTHONPATH": str(REPO / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        segbench.nothing  # noqa: B018


def test_a_config_is_composed_without_a_command_line(tmp_path):
    assert segbench.compose().name == "quickstart"
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\ndefaults: [quickstart]\nseed: 7\n")
    config = segbench.compose(["experiment=mine", "trainer.fast_dev_run=true"], config_dir=tmp_path)
    assert (config.name, config.seed, config.trainer.arguments["fast_dev_run"]) == ("mine", 7, True)
    with pytest.raises(SegbenchError, match=r"optimizer\.lr="):
        segbench.compose(["optimzer.lr=1"])
    assert not GlobalHydra.instance().is_initialized()


def test_hydra_that_is_there_already_is_there_afterwards(tmp_path):
    import hydra

    (tmp_path / "theirs.yaml").write_text("a: 1\n")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        segbench.compose()
        assert hydra.compose("theirs").a == 1


def test_train_load_predict_evaluate_and_compare(overrides, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    # What importing does is done.
    import segbench.api
    import segbench.experiment.train

    segbench.build(overrides)
    before = of_the_process()
    run = segbench.train([*overrides, "threads=2", "trainer.deterministic=true"])
    left_alone(before)
    assert run.path.parent == Path("outputs/tiny") and isinstance(run, Run)
    scores = run.results()["metrics"]

    predictor = segbench.load(run, device="cpu")
    parts = segbench.build(overrides)
    raw = parts.dataset.split("test").read(0).images["em"]
    one = predictor.predict(raw)
    assert one.probabilities.shape == (2, *raw.shape) and one.probabilities.dtype == np.float32
    np.testing.assert_allclose(one.probabilities.sum(0), 1, atol=1e-5)
    assert (one.mask == one.probabilities.argmax(0)).all() and one.instances.shape == raw.shape
    cv2.imwrite("raw.png", raw)
    several = list(predictor.predict_all(["raw.png", raw, raw[:20]], batch_size=2))
    assert all(np.allclose(each.probabilities, one.probabilities, atol=1e-5) for each in several[:2])
    assert several[2].mask.shape == raw[:20].shape
    with pytest.raises(SegbenchError, match="the array em holds values from"):
        predictor.predict(raw / 255)

    with pytest.raises(SegbenchError, match=r"segbench train resume=outputs/tiny"):
        segbench.train(segbench.compose([*overrides, f"resume={run.path}"]))
    with pytest.raises(SegbenchError, match="leave out the other one"):
        segbench.train(f"resume={run.path}", directory="other")
    longer = segbench.train([f"resume={run.path}", "trainer.max_steps=3"])
    assert longer.path == run.path and longer.results()["timing"]["steps"] == 3
    scores = longer.results()["metrics"]
    again = segbench.evaluate(run, "trainer=cpu", directory="again").results()["metrics"]
    assert {key: value for key, value in scores.items() if key in again} == again
    assert segbench.compare([run]).table.groups
    left_alone(before)


@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
def test_the_parts_train_under_a_trainer_of_ones_own(overrides):
    import lightning

    parts = segbench.build([*overrides, "model.dropout=0"])
    before = {name: value.clone() for name, value in parts.network.state_dict().items()}
    trainer = lightning.Trainer(
        max_steps=1,
        accelerator="cpu",
        **dict.fromkeys(("logger", "enable_checkpointing", "use_distributed_sampler", "enable_progress_bar"), False),
        enable_model_summary=False,
    )
    trainer.fit(parts.task, parts.data)
    assert any(not torch.equal(value, before[name]) for name, value in parts.network.state_dict().items())


def test_a_class_of_ones_own_is_trusted_by_name(overrides, tmp_path, monkeypatch):
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\n\nclass Net(nn.Conv2d):\n    def __init__(self, in_channels, num_classes):\n"
        "        super().__init__(in_channels, num_classes, 3, padding=1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    given = [each for each in overrides if not each.startswith("model")] + ["model._target_=mynet.Net"]
    run = segbench.train(given, directory=tmp_path / "run")
    with pytest.raises(SegbenchError, match=r"mynet\.Net.*\n.*\n.*trust=\[\.\.\.\]"):
        segbench.load(run, device="cpu")
    predictor = segbench.load(run, device="cpu", trust=["mynet.Net"])
    assert predictor.predict(np.zeros((8, 9), np.uint8)).mask.shape == (8, 9)


def test_parts_are_frozen_as_in_a_training(overrides):
    parts = segbench.build([*overrides, "task.train_only=[conv_u0*]"])
    trained = {name.split(".")[0] for name, each in parts.network.named_parameters() if each.requires_grad}
    assert trained and all(name.startswith("conv_u0") for name in trained)
    with pytest.raises(SegbenchError, match="nothing_of_that_name"):
        segbench.build([*overrides, "task.train_only=[nothing_of_that_name]"])


def test_a_flag_is_no_override():
    with pytest.raises(SegbenchError, match=r"-m among the overrides\n.*\n.*segbench train -m"):
        segbench.train(["-m", "seed=0,1"])


def test_a_config_with_stages_wants_its_overrides():
    config = segbench.compose(["experiment=fcn16s_voc", "data.root=x", "weights=null"])
    with pytest.raises(SegbenchError, match="a config with stages"):
        segbench.train(config)


def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    """Its cells one after another in this process: a kernel brings a dozen packages, and imports torch once more."""
    import json

    import matplotlib

    monkeypatch.chdir(tmp_path)
    notebook = json.loads((REPO / "examples" / "notebook.ipynb").read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    few = ["trainer.max_steps=2", "data.train=2", "data.val=1", "data.test=2", "data.repeats=4", "metrics=overlap"]
    few += ["data.height=64", "data.width=64", "threads=1", "data.tile=32"]
    quick = cells[0].replace('"trainer.max_steps=60", "trainer.val_check_interval=30"', ", ".join(map(repr, few)))
    assert quick != cells[0]
    quick = quick.replace("'trainer.max_steps=2'", "'trainer.max_steps=2', 'trainer.val_check_interval=2'")
    names = {"__name__": "__main__"}
    with matplotlib.rc_context({"backend": "agg"}):
        for place, cell in enumerate([quick, *cells[1:]]):
            exec(compile(cell, f"cell {place}", "exec"), names)
    names["plt"].close("all")
    assert names["prediction"].probabilities.shape == (2, 64, 64)
    assert names["pair"].sentences and 0 <= names["averaged"] <= 1
    out, err = capsys.readouterr()
    assert "did you mean optimizer.lr=1e-3?" in out
    # No terminal, so the progress is lines.
    assert "step 2 of 2, loss" in err


def test_the_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = ("trainer.max_steps=2", "data.train=2", "data.val=1", "data.test=2", "data.repeats=4", "metrics=overlap")
    monkeypatch.setattr(sys, "argv", ["python_api.py", *few, "threads=1", "data.height=64", "data.width=64"])
    runpy.run_path(str(REPO / "examples" / "python_api.py"), run_name="__main__")
    assert (tmp_path / "mask.png").is_file()
