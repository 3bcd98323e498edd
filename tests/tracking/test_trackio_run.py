"""Runs in Trackio, which keeps them on this machine."""

import numpy as np
import pytest

pytest.importorskip("trackio", reason="pip install trackio")

from segbench.tracking.tracker import Picture
from segbench.tracking.trackio_run import RunTrackio

pytestmark = pytest.mark.filterwarnings("default")  # those of Trackio's own dependencies


def test_scores_pictures_and_tables(tiny_config, tmp_path, monkeypatch):
    import trackio

    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    logger = RunTrackio(str(tmp_path / "run"), tiny_config(), project="p")
    logger.begin()
    for step in range(3):
        logger.log_metrics({"val/mean_iu": step / 10}, step)
    logger.pictures("val/images", [Picture("x", np.zeros((4, 4, 3), np.uint8))], 2)
    logger.table("test/per_image", ["id", "image", "iu"], [["x", None, 0.5]])
    logger.summary({"best/mean_iu": 0.2})
    logger.end(0, False)
    assert not logger.failed
    assert list((tmp_path / "trackio").rglob("p.*")) or trackio.Api().runs("p")
