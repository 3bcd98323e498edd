"""A network starts from what the config names, and the log says so."""

import pytest
import torch

from segbench.config.record import InitialWeights, Recorded
from segbench.errors import SegbenchError
from segbench.experiment.initialise import initialise
from segbench.models import fcn16s, fcn32s
from segbench.runs.directory import Run

SMALL = {"num_classes": 2, "in_channels": 1, "width": 0.03}


@pytest.fixture
def coarse(tmp_path):
    """A run directory with a trained FCN-32s."""
    run = Run.create(tmp_path / "coarse", Recorded.of({"name": "coarse"}), [])
    run.release()
    network = fcn32s(**SMALL)
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "global_step": 7}, run.checkpoints / "last.ckpt")
    return run.path, network


def test_without_a_word_all_is_drawn():
    assert initialise(fcn16s(**SMALL), None) == ["weights: all drawn"]


def test_a_finer_network_starts_from_a_coarser_run(coarse):
    path, network = coarse
    finer = fcn16s(**SMALL)
    (report,) = initialise(finer, None, str(path))
    assert torch.equal(finer.state_dict()["conv1_1.weight"], network.state_dict()["conv1_1.weight"])
    assert not finer.state_dict()["score_pool4.weight"].any()
    assert "score_pool4" in report
    assert str(path) in report


def test_averaged_weights_are_preferred(coarse):
    path, network = coarse
    checkpoint = torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)
    checkpoint["averaged_model"] = {name: torch.ones_like(value) for name, value in network.state_dict().items()}
    torch.save(checkpoint, path / "checkpoints" / "last.ckpt")
    finer = fcn16s(**SMALL)
    initialise(finer, None, str(path))
    assert finer.state_dict()["conv1_1.weight"].eq(1).all()


def test_a_run_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SegbenchError, match=r"no run in .*: config\.yaml is missing"):
        initialise(fcn16s(**SMALL), None, str(tmp_path))


def test_a_weight_set_needs_its_file():
    with pytest.raises(SegbenchError, match="weights without path"):
        initialise(fcn16s(**SMALL), InitialWeights(name="VGG_ILSVRC_16_layers"))


def test_a_run_to_start_from_stands_in_for_the_weights_that_it_began_with(coarse):
    begun_from = InitialWeights(name="VGG_ILSVRC_16_layers")
    (report,) = initialise(fcn16s(**SMALL), begun_from, str(coarse[0]))
    assert str(coarse[0]) in report
