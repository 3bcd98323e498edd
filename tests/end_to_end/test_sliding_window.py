"""The sliding-window network from windows to scores, and the two ways through an image."""

import pytest
from tests.conftest import DRAWN

from segbench.cli import main as cli
from segbench.experiment.train import train
from segbench.runs.directory import Run

SMALL = ("model=sliding_window", "model.window=23", "model.kernels=[4,3]", "model.maps=4", "model.hidden=6")


@pytest.mark.slow
def test_a_window_at_every_pixel_scores_as_an_image_at_once(compose, tmp_path, monkeypatch):
    given = [each for each in DRAWN if not each.startswith(("model", "data.repeats", "data.test"))]
    windows = ("data.tile=23", "data.draw=pixels", "data.batch_size=20", "data.test=1", "data.repeats=1")
    experiment = ("trainer.max_steps=6", "trainer.check_val_every_n_epoch=null", "calibration=cubic", "median=2")
    train(compose(*given, *SMALL, *windows, *experiment), tmp_path / "run", [])
    run = Run(tmp_path / "run")
    command = ["segbench", "evaluate", f"run={run.path}", "tile=1", "trainer=cpu", f"hydra.run.dir={tmp_path}/windows"]
    monkeypatch.setattr("sys.argv", command)
    cli.main()
    scores, again = (Run(path).results()["metrics"] for path in (run.path, tmp_path / "windows"))
    for name, score in again.items():
        assert score == pytest.approx(scores[name], abs=2e-3)
    assert run.results()["protocol"]["calibration"]
