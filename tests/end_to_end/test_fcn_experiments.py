"""The FCN experiments run whole, stage by stage, on miniatures of their data sets in the official layouts."""

import hydra
import pytest

from segbench.config.composed import resolved
from segbench.config.packaged import conf_root
from segbench.config.record import Config
from segbench.experiment.stages import compose_stages
from segbench.experiment.train import train
from segbench.runs.directory import Run

SMALL = (
    *("weights=null", "model.width=0.02", "data.partial=true", "data.num_workers=0", "trainer=cpu"),
    *("trainer.max_steps=1", "trainer.precision=32-true", "task.channels_last=false", "threads=1", "paper=null"),
)


def run(experiment, folder, directory, *overrides):
    """Train an experiment with its stages; the run and its log."""
    given = [f"experiment={experiment}", f"data.root={folder}", *SMALL, *overrides]
    with hydra.initialize_config_dir(str(conf_root()), version_base="1.3"):
        config = Config.of(resolved(hydra.compose("train", [*given, f"name={experiment}"])))
        stages = compose_stages(config, given)
    train(config, directory, given, stages=stages)
    return Run.open(directory), (directory / "run.log").read_text()


def stages_of(directory):
    return sorted(str(path.parent.relative_to(directory)) for path in directory.rglob("results.json"))


def test_8s_on_voc_and_sbd(voc, tmp_path):
    finished, log = run("fcn8s_voc", voc, tmp_path / "run", "callbacks.panels.count=1")
    assert stages_of(tmp_path / "run") == [".", "stages/fcn16s_voc", "stages/fcn32s_voc"]
    assert "test/mean_iu" in finished.results()["metrics"]
    assert "mean gradients of a pixel" not in log
    assert "stages/fcn16s_voc: 34 loaded" in log


@pytest.mark.slow
def test_the_sample_trains_on_val_and_is_scored_on_train(voc, tmp_path):
    finished, log = run("fcn8s_voc_sample_cpu", voc, tmp_path / "run", "data.tile=32", "data.batch_size=1")
    assert stages_of(tmp_path / "run") == [".", "stages/fcn16s_voc_sample_cpu", "stages/fcn32s_voc_sample_cpu"]
    assert "voc2012: train voc2012_val" in finished.results()["protocol"]["split"]
    assert "stages/fcn16s_voc_sample_cpu: 34 loaded" in log


def test_late_fusion_on_nyudv2_from_a_net_a_modality_then_at_16s(nyud, tmp_path):
    finished, log = run("fcn16s_nyudv2_rgb_hha_cvpr", nyud, tmp_path / "run", "data.batch_size=2")
    late = "stages/fcn32s_nyudv2_rgb_hha_cvpr"
    assert stages_of(tmp_path / "run") == [
        ".",
        late,
        f"{late}/stages/fcn32s_nyudv2_hha_cvpr",
        f"{late}/stages/fcn32s_nyudv2_rgb_cvpr",
    ]
    below = (tmp_path / "run" / late / "run.log").read_text()
    assert "fcn32s_nyudv2_rgb_cvpr: 32 loaded" in below
    assert "fcn32s_nyudv2_hha_cvpr: 32 loaded" in below
    assert "input hha: HHA as in the file, 0 to 255, less 132.431, 94.076, 118.477" in below
    assert "drawn: score_pool4color.weight" in log
    assert 0 <= finished.results()["metrics"]["test/mean_iu"] <= 1


def test_early_fusion_on_nyudv2(nyud, tmp_path):
    _, log = run("fcn32s_nyudv2_rgbd", nyud, tmp_path / "run")
    assert "input depth: ln(millimetres), less 7.844" in log


def test_two_heads_on_sift_flow(sift, tmp_path):
    finished, log = run("fcn8s_sift_flow", sift, tmp_path / "run", "data.hold_out=1", "trainer.max_steps=1")
    assert stages_of(tmp_path / "run") == [".", "stages/fcn16s_sift_flow", "stages/fcn32s_sift_flow"]
    metrics = finished.results()["metrics"]
    assert {"test/semantic/mean_iu", "test/geometric/pixel_acc"} <= metrics.keys()
    assert "best val/semantic/mean_iu so far" in log
    assert finished.results()["protocol"]["checkpoint_chosen_by"] == "val/semantic/mean_iu"


def test_pascal_context_from_the_command_line_with_and_without_background(context, tmp_path, call):
    given = ("experiment=fcn32s_pascal_context", f"data.root={context}", *SMALL, f"hydra.run.dir={tmp_path / 'run'}")
    code, _, err = call("train", *given)
    assert code == 0, err
    assert "input rgb: R, G, B, 0 to 255, less 122.679, 116.669, 104.007" in (tmp_path / "run" / "run.log").read_text()
    code, out, err = call("evaluate", f"run={tmp_path / 'run'}", "split=test", f"hydra.run.dir={tmp_path / 'scored'}")
    assert code == 0 and "mean_iu_without_background" in out + err
    scored, trained = (Run.open(tmp_path / name).results()["metrics"] for name in ("scored", "run"))
    assert scored == trained
    assert 0 <= scored["test/mean_iu_without_background"] <= 1
    assert {"test/mean_iu", "test/mean_acc_without_background", "test/iu/bedcloth"} <= scored.keys()


@pytest.mark.slow
def test_8s_on_pascal_context(context, tmp_path):
    _, log = run("fcn8s_pascal_context", context, tmp_path / "run")
    assert stages_of(tmp_path / "run") == [".", "stages/fcn16s_pascal_context", "stages/fcn32s_pascal_context"]
    assert "stages/fcn16s_pascal_context: 34 loaded" in log


def test_the_last_layer_alone(voc, tmp_path):
    _, log = run("fcn32s_fixed_voc_cvpr", voc, tmp_path / "run", "data.batch_size=2")
    assert "task.train_only: score_fr trained; conv1_1, conv1_2," in log
