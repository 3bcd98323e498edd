import pytest
import torch

from segbench.errors import SegbenchError
from segbench.experiment.train import train
from segbench.runs.directory import Run
from segbench.training.callbacks.checkpoints import Checkpoints
from segbench.training.callbacks.guard import FiniteLoss


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(fit, scripted, loss):
    module = scripted(losses={"sample-3": float("nan") if loss != loss else loss})
    with pytest.raises(SegbenchError, match=r"samples sample-3\n.*a finite loss\n.*optimizer\.lr.*gradient_clip_val"):
        fit(module, FiniteLoss(), steps=9)
    assert module.model.weight.item() == -3


def test_the_step_is_named(fit, scripted):
    with pytest.raises(SegbenchError, match=r"a loss of nan at step 2, samples sample-2\n"):
        fit(scripted(losses={"sample-2": float("nan")}), FiniteLoss(), steps=9)


def test_the_last_good_checkpoint_is_kept(fit, scripted, tmp_path):
    with pytest.raises(SegbenchError, match="a loss of"):
        fit(scripted(losses={"sample-3": float("nan")}), FiniteLoss(), Checkpoints(tmp_path, 1), steps=9)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]["model.weight"].item() == -3
    assert torch.load(tmp_path / "previous.ckpt", weights_only=True)["global_step"] == 2


def test_finite_losses_pass(fit, scripted):
    assert fit(scripted(), FiniteLoss(), steps=3).global_step == 3


def test_a_run_that_diverges_fails_and_keeps_its_checkpoint(tiny_config, tmp_path):
    config = tiny_config("optimizer.lr=1e30", "callbacks.checkpoint.every_n_train_steps=1", "trainer.max_steps=20")
    with pytest.raises(
        SegbenchError, match=r"a loss of (nan|inf|-inf) at step \d+, samples train-000\d, train-000\d\n"
    ):
        train(config, tmp_path / "run", [])
    run = Run.open(tmp_path / "run")
    assert '"failed"' in (run.path / "state.json").read_text()
    weights = torch.load(run.checkpoint("last"), weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in weights.values())
    run.lock()
    run.release()


@pytest.fixture
def on_a_gpu(monkeypatch):
    """A loss that is kept as on a GPU, and read on a CPU."""
    monkeypatch.setattr(FiniteLoss, "on_before_backward", lambda self, trainer, module, loss: self._keep(loss))


def test_on_a_gpu_step_and_samples_are_named_when_they_are_read(fit, scripted, on_a_gpu):
    with pytest.raises(SegbenchError, match=r"a loss of nan at step 2, samples sample-2 \(read after step 4\)\n"):
        fit(scripted(losses={"sample-2": float("nan")}), FiniteLoss(), steps=9, log_every_n_steps=4)


def test_on_a_gpu_it_is_read_before_a_checkpoint_is_written(fit, scripted, on_a_gpu, tmp_path):
    guard, checkpoints = FiniteLoss(), Checkpoints(tmp_path, 3)
    with pytest.raises(SegbenchError, match=r"a loss of inf at step 4, samples sample-4 \(read after step 6\)\n"):
        fit(scripted(losses={"sample-4": -float("inf")}), checkpoints, guard, steps=9, log_every_n_steps=50)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3


def test_on_a_gpu_the_end_is_read(fit, scripted, on_a_gpu):
    with pytest.raises(SegbenchError, match=r"a loss of nan at step 1, samples sample-1 \(read after step 3\)\n"):
        fit(scripted(losses={"sample-1": float("nan")}), FiniteLoss(), steps=3, log_every_n_steps=50)
