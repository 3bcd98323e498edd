"""Training in stages: each one a run of its own that starts from the one before, and can be cut off anywhere."""

import hydra
import pytest
import torch

from segbench.cli.train import resume_run
from segbench.config.composed import resolved
from segbench.config.packaged import conf_root
from segbench.config.record import Config
from segbench.errors import SegbenchError
from segbench.experiment.stages import compose_stages, read_stages, start_of
from segbench.experiment.train import train
from segbench.runs.directory import Run
from segbench.training.callbacks.checkpoints import Checkpoints
from segbench.training.checkpoint import network_weights, read_checkpoint

COARSE = """\
# @package _global_
defaults:
  - override /model: fcn32s
  - override /metrics: overlap
  - override /trainer: cpu
model:
  width: 0.02
data: {train: 2, val: 1, test: 1, height: 32, width: 32, tile: null, batch_size: 1}
optimizer: {lr: 1e-2}
scheduler: {warmup_steps: 0}
trainer: {max_steps: 2, val_check_interval: 1.0, precision: 32-true}
callbacks: {panels: null, checkpoint: {every_n_train_steps: 1}}
threads: 1
"""
FINER = """\
# @package _global_
defaults:
  - {parent}
  - override /model: {model}
optimizer: {{lr: {lr}}}
stages: {stages}
"""


@pytest.fixture
def experiments(tmp_path):
    """Three experiments, 32s, 16s from it and 8s from that, in a user's config folder."""
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    (folder / "e32.yaml").write_text(COARSE)
    (folder / "e16.yaml").write_text(FINER.format(parent="e32", model="fcn16s", lr="1e-3", stages="[e32]"))
    (folder / "e8.yaml").write_text(FINER.format(parent="e32", model="fcn8s", lr="1e-4", stages="[e32, e16]"))
    (folder / "loop.yaml").write_text(FINER.format(parent="e32", model="fcn8s", lr="1e-4", stages="[loop]"))
    (folder / "nowhere.yaml").write_text(FINER.format(parent="e32", model="fcn8s", lr="1e-4", stages="[e64]"))
    return tmp_path / "mine"


def composed(folder, *overrides):
    with hydra.initialize_config_dir(str(conf_root()), version_base="1.3"):
        given = [f"hydra.searchpath=[file://{folder}]", *overrides]
        name = next(o.removeprefix("experiment=") for o in overrides if o.startswith("experiment="))
        config = Config.of(resolved(hydra.compose("train", [*given, f"name={name}"])))
        return config, compose_stages(config, [f"hydra.searchpath=[file://{folder}]", *overrides])


def test_overrides_hold_for_every_stage_save_those_of_the_optimiser_and_the_choice_of_a_net(experiments):
    given = ("experiment=e8", "model.width=0.03", "optimizer.lr=7", "seed=5", "trainer.max_steps=9", "scheduler=cosine")
    config, stages = composed(experiments, *given)
    assert config.flat["optimizer.lr"] == 7
    assert [stage.experiment for stage in stages] == ["e32", "e16"]
    assert [stage.config.flat["optimizer.lr"] for stage in stages] == [1e-2, 1e-3]
    assert [stage.config.scheduler.target for stage in stages] == ["segbench.training.optim.constant"] * 2
    for stage in stages:
        assert stage.config.name == stage.experiment
        assert (stage.config.flat["model.width"], stage.config.seed) == (0.03, 5)
        assert stage.config.trainer.max_steps == 9
        assert stage.config.stages is None or stage.experiment == "e32"


def test_a_run_that_starts_from_another_has_no_stages(experiments):
    assert composed(experiments, "experiment=e8", "init_from=somewhere")[1] == ()


def test_an_experiment_before_itself_and_an_unknown_one_are_refused(experiments):
    with pytest.raises(SegbenchError, match=r"loop comes before itself \(loop <- loop\)"):
        composed(experiments, "experiment=loop")
    with pytest.raises(SegbenchError, match="no experiment e64"):
        composed(experiments, "experiment=nowhere")


def test_by_modality_each_stage_starts_from_nothing(tmp_path, tiny_config):
    config = tiny_config().replace({"stages": {"rgb": "a", "hha": "b"}})
    assert start_of(config, tmp_path) == {"rgb": str(tmp_path / "stages/a"), "hha": str(tmp_path / "stages/b")}
    assert start_of(config, tmp_path, 1) is None
    chain = config.replace({"stages": ["a", "b"]})
    assert [start_of(chain, tmp_path, n) for n in (0, 1, None)] == [
        None,
        str(tmp_path / "stages/a"),
        str(tmp_path / "stages/b"),
    ]
    assert start_of(chain.replace({"init_from": "given"}), tmp_path) == "given"


def final_weights(path):
    return network_weights(read_checkpoint(path / "checkpoints" / "last.ckpt"))


class Cut(RuntimeError):
    pass


@pytest.mark.parametrize("cut_in", ["e32", "e16", "e8"])
def test_stages_run_in_order_and_go_on_where_they_were_cut_off(experiments, tmp_path, monkeypatch, cut_in):
    config, stages = composed(experiments, "experiment=e8")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config, whole, [], stages=stages)
    log = (whole / "run.log").read_text()
    assert "stage 1 of 3: e32" in log and "stage 3 of 3: e8" in log
    assert str(whole / "stages" / "e16") in log
    assert "weights: all drawn" in (whole / "stages" / "e32" / "run.log").read_text()
    assert str(whole / "stages" / "e32") in (whole / "stages" / "e16" / "run.log").read_text()
    for name in ("e32", "e16"):
        assert Run.open(whole / "stages" / name).state() == "finished"
        assert Run.open(whole / "stages" / name).results()["metrics"]

    config, stages = composed(experiments, "experiment=e8")
    original = Checkpoints.on_train_batch_end

    def cut_off(self, trainer, *arguments):
        original(self, trainer, *arguments)
        folder = cut if cut_in == "e8" else cut / "stages" / cut_in
        if self._directory == folder / "checkpoints":
            raise Cut

    monkeypatch.setattr(Checkpoints, "on_train_batch_end", cut_off)
    with pytest.raises(Cut):
        train(config, cut, [], stages=stages)
    monkeypatch.setattr(Checkpoints, "on_train_batch_end", original)
    assert Run.open(cut).state() == "failed"
    assert [stage.experiment for stage in read_stages(Run.open(cut).config(), cut)] == ["e32", "e16"]
    resume_run([f"resume={cut}"])
    assert Run.open(cut).state() == "finished"
    for name in (".", "stages/e32", "stages/e16"):
        expected, continued = final_weights(whole / name), final_weights(cut / name)
        assert all(torch.equal(expected[key], continued[key]) for key in expected)


def test_a_finished_run_says_so_and_is_left_alone(tiny_run, capsys):
    before = (tiny_run / "results.json").stat().st_mtime_ns
    resume_run([f"resume={tiny_run}"])
    assert "is finished" in capsys.readouterr().out
    assert (tiny_run / "results.json").stat().st_mtime_ns == before


def test_a_prepared_run_is_begun_by_a_resume(tiny_config, tiny_run, tmp_path):
    run = Run.prepare(tmp_path / "run", tiny_config(), [])
    assert run.state() == "prepared"
    assert run.config().task.channels_last is False
    assert run.config().trainer.accelerator == "cpu"
    resume_run([f"resume={run.path}"])
    assert run.state() == "finished"
    expected, begun = final_weights(tiny_run), final_weights(run.path)
    assert all(torch.equal(expected[key], begun[key]) for key in expected)


def test_what_is_left_to_the_machine_is_settled_where_a_prepared_run_begins(tiny_config, tmp_path):
    run = Run.prepare(tmp_path / "run", tiny_config("threads=auto", "trainer.accelerator=auto"), [])
    assert run.config().threads == "auto"
    resume_run([f"resume={run.path}"])
    assert isinstance(run.config().threads, int)
    assert run.config().trainer.accelerator in ("cpu", "gpu")
