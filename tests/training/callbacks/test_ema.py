import pytest
import torch
from torch import nn

from segbench.errors import SegbenchError
from segbench.experiment.build import build_dataset, build_task
from segbench.experiment.train import train
from segbench.runs.directory import Run
from segbench.training.callbacks.checkpoints import Checkpoints
from segbench.training.callbacks.ema import AveragedWeights
from segbench.training.checkpoint import load_weights


def averages(steps, decay=0.999):
    """The weight is -t after step t; its average by the formula."""
    average, seen = 0.0, []
    for t in range(1, steps + 1):
        share = 1 - min(decay, (1 + t) / (10 + t))
        average += share * (-t - average)
        seen.append(average)
    return seen


@pytest.mark.parametrize("decay", [0.0, 0.1, 0.999])
def test_the_average_follows_its_formula(fit, scripted, decay):
    callback = AveragedWeights(decay)
    fit(scripted(), callback, steps=5)
    assert callback.average["weight"].item() == pytest.approx(averages(5, decay)[-1])


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5, float("nan")])
def test_a_decay_that_forgets_nothing_or_explodes_is_refused(decay):
    with pytest.raises(SegbenchError, match=r"averaged_weights\.decay"):
        AveragedWeights(decay)


def test_validation_sees_the_average_and_training_goes_on_without_it(fit, scripted):
    module = scripted([0.0] * 4)
    fit(module, AveragedWeights(), steps=4)
    assert module.validated_with == pytest.approx(averages(4))
    assert module.model.weight.item() == -4


def test_a_step_of_several_batches_is_averaged_once(fit, scripted):
    callback = AveragedWeights()
    fit(scripted(), callback, steps=3, accumulate_grad_batches=2)
    assert callback.average["weight"].item() == pytest.approx(averages(3)[-1])


def test_a_checkpoint_holds_both(fit, scripted, tmp_path):
    fit(scripted([1.0, 2.0, 3.0]), AveragedWeights(), Checkpoints(tmp_path, 1, "val/score"), steps=3)
    for name in ("last", "best"):
        checkpoint = torch.load(tmp_path / f"{name}.ckpt", weights_only=True)
        assert checkpoint["state_dict"]["model.weight"].item() == -3
        assert checkpoint["averaged_model"]["weight"].item() == pytest.approx(averages(3)[-1])


def test_a_checkpoint_from_within_a_validation_holds_the_trained_weights_too(fit, scripted):
    module, callback = scripted(), AveragedWeights()
    trainer = fit(module, callback, steps=2)
    trainer.state.fn = "fit"
    callback.on_validation_start(trainer, module)
    checkpoint = {"state_dict": module.state_dict()}
    callback.on_save_checkpoint(trainer, module, checkpoint)
    assert checkpoint["state_dict"]["model.weight"].item() == -2
    assert checkpoint["averaged_model"]["weight"].item() == module.model.weight.item() == pytest.approx(averages(2)[-1])
    callback.on_validation_end(trainer, module)
    assert module.model.weight.item() == -2


def test_a_continued_run_goes_on_averaging(fit, scripted, tmp_path):
    fit(scripted(), AveragedWeights(), Checkpoints(tmp_path, 1), steps=2)
    callback = AveragedWeights()
    fit(scripted(), callback, Checkpoints(tmp_path, 1), steps=5, resume=tmp_path / "last.ckpt")
    assert callback.average["weight"].item() == pytest.approx(averages(5)[-1])


def test_statistics_of_norms_are_averaged_and_integers_copied(fit, scripted):
    module = scripted()
    module.model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    callback = AveragedWeights()
    fit(module, callback, steps=1)
    now = module.model[1]
    assert callback.average["1.running_mean"].item() == pytest.approx(9 / 11 * now.running_mean.item()) != 0
    assert callback.average["1.num_batches_tracked"].item() == now.num_batches_tracked.item() == 1


def test_what_is_scored_is_the_average(tiny_config, tmp_path):
    config = tiny_config("callbacks=averaged", "callbacks.averaged_weights.decay=0.5")
    train(config, tmp_path / "run", [])
    path = Run.open(tmp_path / "run").checkpoint()
    task = build_task(config, build_dataset(config.data, config.weights).spec)
    load_weights(task.model, path)
    averaged = torch.load(path, weights_only=True)["averaged_model"]
    assert all(torch.equal(value, averaged[name]) for name, value in task.model.state_dict().items())
    trained = torch.load(path, weights_only=True)["state_dict"]
    assert not torch.equal(averaged["conv_d0a_b.weight"], trained["model.conv_d0a_b.weight"])
