import json
import logging

import pytest
import torch

from segbench.training.callbacks.progress import RunProgress, _clock, _rate


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.INFO, "segbench")
    # The log of a run takes the handlers of the root logger.
    logging.getLogger("segbench").addHandler(caplog.handler)
    yield lambda: [record.getMessage() for record in caplog.records if "progress" in record.name]
    logging.getLogger("segbench").removeHandler(caplog.handler)


def test_without_a_terminal_the_log_has_step_loss_rate_and_time_left(fit, scripted, logged):
    fit(scripted(), RunProgress(log_every_s=0), steps=3)
    assert [line.split(",")[0] for line in logged()] == ["step 1 of 3", "step 2 of 3", "step 3 of 3"]
    assert "loss -1.0000" in logged()[1]
    assert "step" in logged()[1].split(", ")[2]
    assert logged()[2].endswith("0:00:00 left")


def test_the_last_step_is_logged_however_short_the_run(fit, scripted, logged):
    fit(scripted(), RunProgress(log_every_s=3600), steps=3)
    assert [line.split(",")[0] for line in logged()] == ["step 3 of 3"]


def test_the_loss_that_is_shown_is_the_batchs_not_a_part_of_it(fit, scripted, logged, tmp_path):
    class Accumulating(scripted):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx) - 3
            return {"loss": loss, "batch_loss": loss.detach()}

    fit(Accumulating(), RunProgress(log_every_s=3600), steps=1, accumulate_grad_batches=4)
    assert "loss -3.0000" in logged()[0]
    assert json.loads((tmp_path / ".progress.json").read_text())["loss"] == -3


def test_a_validation_is_logged(fit, scripted, logged):
    module = scripted([0.25, 0.5])
    module.log = lambda name, value, **settings: type(module).log(module, "val/mean_iu", value, **settings)
    fit(module, RunProgress(log_every_s=3600), steps=2)
    assert [line for line in logged() if "mean_iu" in line] == [
        "step 1: val/mean_iu 0.2500",
        "step 2: val/mean_iu 0.5000",
    ]


def test_other_ranks_are_silent(fit, scripted, logged):
    callback = RunProgress(log_every_s=0)
    callback.disable()
    fit(scripted(), callback, steps=3)
    assert logged() == []


def test_a_terminal_gets_a_bar_over_the_whole_run(fit, scripted, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    callback = RunProgress(refresh_every_s=0)
    fit(scripted(), callback, steps=3)
    drawn = capsys.readouterr().err
    assert "3/3" in drawn
    assert "loss -2.0000" in drawn
    assert callback._bar is None


@pytest.mark.parametrize(("per_second", "shown"), [(2.5, "2.50 steps/s"), (0.25, "4.00 s/step")])
def test_a_slow_rate_is_shown_in_seconds(per_second, shown):
    assert _rate(per_second) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00:00"), (3661.9, "1:01:01"), (float("inf"), "99:59:59")])
def test_time_is_shown_in_hours(seconds, shown):
    assert _clock(seconds) == shown


def test_on_a_gpu_the_loss_is_that_of_the_last_step_that_was_logged(fit, scripted, logged):
    class OnADevice(torch.Tensor):
        """Says where it would be; read on a CPU."""

        device = torch.device("cuda")

    class Away(RunProgress):
        def on_train_batch_end(self, trainer, module, outputs, *arguments):
            super().on_train_batch_end(trainer, module, {"loss": outputs["loss"].as_subclass(OnADevice)}, *arguments)

    fit(scripted(), Away(log_every_s=0), steps=5, log_every_n_steps=3)
    shown = ["loss not read yet"] * 2 + ["loss -2.0000"] * 2 + ["loss -4.0000"]
    assert [line.split(", ")[1] for line in logged()] == shown
