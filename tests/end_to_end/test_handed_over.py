"""A run that a stranger hands over: whatever is written into it, nothing runs, and nothing outside it is written."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml

import segbench
from segbench.config.flat import changed, flatten
from segbench.config.record import Config
from segbench.display.panels import write_png
from segbench.errors import SegbenchError
from segbench.runs.directory import Run
from segbench.sweep.scores import error_of

CANARY = "canary"
INTERPOLATIONS = (
    "${oc.env:HOME}",
    "${oc.env:SURELY_UNSET,x}",
    "${oc.create:{_target_: os.system}}",
    "${oc.decode:'[1, 2]'}",
    "${hydra:runtime.cwd}",
    "${experiment_name:}",
    "${mine:x}",
    "${seed}",
    "${..seed}",
    "x${oc.env:${oc.env:HOME}}y",
    "\\${oc.env:HOME}",
)
TOUCH = {"_target_": "os.system", "_args_": [f"touch {CANARY}"]}
TARGETS = {
    "a function": TOUCH,
    "in a list": {"_target_": "segbench.models.unet.UNet", "width": [1, [TOUCH]]},
    "in _args_": {"_target_": "segbench.models.unet.UNet", "_args_": [TOUCH]},
    "partial": {**TOUCH, "_partial_": True},
    "converted": {"_target_": "segbench.models.unet.UNet", "_convert_": "all", "width": {"a": TOUCH}},
    "of an installed package": {"_target_": "torch.hub.load", "repo_or_dir": ".", "model": "x", "source": "local"},
    "with a colon": {"_target_": "os:system", "_args_": [f"touch {CANARY}"]},
    "a program": {"_target_": "pip.__main__.main"},
    "a method": {"_target_": "torch.nn.Module.__init_subclass__"},
    "no name": {"_target_": "../mine.Net"},
    "a number": {"_target_": 3},
    "interpolated": {"_target_": "${oc.env:TARGET}"},
}
VERBS = {
    "evaluate": ("evaluate", "run=RUN", "hydra.run.dir=out"),
    "predict": ("predict", "run=RUN", "input=image.png", "output=out"),
    "export": ("export", "run=RUN", "format=onnx", "output=out.onnx"),
    "resume": ("train", "resume=RUN", "trainer.max_steps=4"),
    "compare": ("compare", "RUN"),
    "report": ("report", "RUN"),
}


@pytest.fixture
def here(tmp_path, monkeypatch, tiny_run):
    """A working directory with a run in it that has been handed over."""
    for name in ("SEGBENCH_TARGETS", "HYDRA_FULL_ERROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGBENCH_RUN_ID", "here")
    shutil.copytree(tiny_run, tmp_path / "RUN")
    return tmp_path


@pytest.fixture
def refused(call, here):
    """`refused(verb)`: its error in three parts; nothing ran and nothing was written beside the run."""

    def told(verb, *more):
        before = {path.name for path in here.iterdir()}
        code, out, err = call(*VERBS[verb], *more)
        assert code == 1, out + err
        assert err.count("error: ") == 1 and "Traceback" not in err and "HYDRA_FULL_ERROR" not in err
        assert "\n  expected: " in err and "\n  to do: " in err
        assert {path.name for path in here.iterdir()} <= before | {"out"}
        assert not [path for path in here.rglob(CANARY)]
        return err

    return told


def rewrite(run, changes):
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(changed(config, changes)))


def test_an_interpolation_is_refused_at_every_key(tiny_config, here):
    tree = tiny_config().tree
    for number, key in enumerate(flatten(tree)):
        text = INTERPOLATIONS[number % len(INTERPOLATIONS)]
        for value in (text, [1, text], {"a": {"b": text}}, {text: 1}):
            with pytest.raises(SegbenchError, match="an interpolation"):
                Config.of(changed(tree, {key: value}))


@pytest.mark.parametrize("text", INTERPOLATIONS)
def test_a_recorded_config_with_an_interpolation_is_not_read(here, text):
    rewrite(here / "RUN", {"data.height": text})
    run = Run.open("RUN")
    for read in (run.config, run.recorded, run.as_written, lambda: segbench.load("RUN")):
        with pytest.raises(SegbenchError, match=r"RUN/config\.yaml: data\.height: .*, an interpolation"):
            read()


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_refuses_an_interpolation(here, refused, verb):
    rewrite(here / "RUN", {"model.width": "${oc.env:HOME}"})
    assert "config.yaml: model.width: ${oc.env:HOME}, an interpolation" in refused(verb)


def test_nor_is_one_taken_from_the_history(here, refused):
    history = here / "RUN" / "history.jsonl"
    line = '{"step": 2, "changes": {"data.height": "${oc.env:HOME}"}, "settled": {}, "provenance": {}, "accepted": []}'
    history.write_text(history.read_text() + line + "\n")
    for verb in ("resume", "compare"):
        assert "history.jsonl at step 2: 0.data.height" in refused(verb)


@pytest.mark.parametrize("where", TARGETS)
@pytest.mark.parametrize("verb", ["predict", "export", "resume"])
def test_no_command_makes_what_is_not_trusted(here, refused, verb, where):
    rewrite(here / "RUN", {"model": TARGETS[where]})
    refused(verb)


@pytest.mark.parametrize(
    "key",
    [
        *("loss.mine", "optimizer.mine", "callbacks.mine", "logger.mine", "metrics.mine", "trainer.mine"),
        *("decoding.mine", "augment.mine", "scheduler.mine", "data.mine", "trainer.strategy", "mine"),
    ],
)
def test_nor_in_another_section(here, refused, key):
    rewrite(here / "RUN", {key: TOUCH})
    assert "os.system, which a config that was handed over may not name" in refused("resume")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("callbacks.mine", {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": "elsewhere"}),
        ("callbacks.mine", {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "filename": "../../x"}),
        ("logger.mine", {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "/tmp/elsewhere"}),
        ("logger.mine", {"_target_": "lightning.pytorch.loggers.CSVLogger", "name": "~/x", "save_dir": None}),
        ("logger.mine", {"_target_": "segbench.tracking.mlflow_run.RunMlflow", "uri": "http://localhost:1"}),
        ("trainer.profiler", {"_target_": "lightning.pytorch.profilers.SimpleProfiler", "dirpath": "."}),
    ],
)
def test_no_place_is_written_or_sent_to_that_a_config_names(here, refused, key, value):
    rewrite(here / "RUN", {key: value})
    said = refused("resume")
    assert "a place that a config which was handed over may not write or send to" in said
    assert f"segbench train resume=RUN trainer.max_steps=4 trust={key}." in said


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "", "..", "a/../b", "a\nb"])
def test_a_stage_does_not_leave_the_run(here, refused, name):
    rewrite(here / "RUN", {"stages": [name]})
    assert "names of experiments" in refused("resume")


def test_a_stage_is_checked_as_the_run_is(here, refused):
    stage = here / "RUN" / "stages" / "before"
    shutil.copytree(here / "RUN", stage)
    rewrite(here / "RUN", {"stages": ["before"]})
    rewrite(stage, {"model.mine": TOUCH})
    assert "os.system, which a config that was handed over" in refused("resume")
    rewrite(stage, {"model.mine": "${oc.env:HOME}"})
    assert "stages/before/config.yaml: model.mine" in refused("resume")


FILES = (
    "run.log",
    ".lock",
    "history.jsonl",
    "metrics.csv",
    "state.json",
    "provenance.json",
    "splits.json",
    "energy.json",
)
FOLDERS = ("checkpoints", "panels", "extremes", "predictions", "wandb", "tensorboard", "stages", "new")


@pytest.mark.parametrize("name", [*FILES, *FOLDERS, "checkpoints/last.ckpt", "panels/new.png", ".state.json.1.partial"])
def test_a_link_that_leads_out_of_a_run_is_not_followed(here, refused, name):
    outside, path = here / "outside", here / "RUN" / name
    outside.mkdir()
    target = outside / "target"
    if path.is_dir() and not path.is_symlink():
        shutil.move(path, target)
    elif path.exists():
        shutil.move(path, target)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(target)
    before = contents(outside)
    assert f"RUN/{name} is a link to {target}" in refused("resume")
    assert contents(outside) == before


def contents(folder):
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("name", ["report.html", ".report.html.partial", "deviations.json"])
def test_nor_by_a_report(here, call, name):
    (here / "outside.txt").write_text("mine")
    path = here / "RUN" / name
    path.unlink(missing_ok=True)
    path.symlink_to(here / "outside.txt")
    code, _, err = call("report", "RUN")
    # What cannot be read costs its section, not the page.
    assert code == 0, err
    assert (here / "outside.txt").read_text() == "mine"
    assert not (here / "RUN" / "report.html").is_symlink()


@pytest.mark.parametrize("name", ["config.yaml", "run.log", "checkpoints", "panels", "per_image.npz"])
def test_nor_in_the_directory_of_a_new_run(here, refused, name):
    outside = here / "outside"
    outside.mkdir()
    (here / "out").mkdir()
    (here / "out" / name).symlink_to(outside if "." not in name else outside / "x")
    assert f"out/{name} is a link" in refused("evaluate")
    assert contents(outside) == {}


def test_nor_in_a_folder_of_predictions(here, call):
    outside = here / "outside"
    outside.mkdir()
    os.symlink(outside, here / "out")
    (outside / "masks").symlink_to(here)
    write_png(here / "image.png", np.zeros((48, 48), np.uint8))
    code, _, err = call(*VERBS["predict"])
    assert code == 1 and "out/masks is a link" in err


def test_a_pipe_does_not_hang_a_command(here, refused):
    (here / "RUN" / ".lock").unlink(missing_ok=True)
    os.mkfifo(here / "RUN" / ".lock")
    assert "RUN/.lock is neither a file nor a folder" in refused("resume")


def test_what_is_recorded_holds_no_interpolation(here, tiny_config):
    with pytest.raises(SegbenchError, match="an interpolation"):
        tiny_config(r"name='\${x}'")
    for path in here.rglob("*.yaml"):
        assert "${" not in path.read_text()


@pytest.mark.parametrize("verb", ["report", "compare"])
@pytest.mark.parametrize(
    "name", ["config.yaml", "dataset.json", "history.jsonl", "metrics.csv", "extremes/extremes.json", "panels/a.png"]
)
def test_pages_and_comparisons_do_not_wait_for_a_pipe(verb, name, here):
    path = here / "RUN" / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    command = [sys.executable, "-m", "segbench", verb, "RUN"]
    # Waits for a process, so that one that hangs ends the test.
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr


def test_the_last_lines_of_a_job_are_not_read_through_a_link(here, call):
    (here / "secret").write_text("secret")
    run = Run(here / "RUN")
    run.set_state("failed")
    (here / "RUN" / "console.log").write_text("x" * 10**6 + "\nwhy\n")
    assert error_of(run).endswith("\nwhy")
    (here / "RUN" / "console.log").unlink()
    (here / "RUN" / "console.log").symlink_to(here / "secret")
    assert error_of(run) == "no console.log"
