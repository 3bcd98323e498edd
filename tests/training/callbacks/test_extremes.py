"""The best, the median and the worst image of a test are drawn and listed."""

import json

import numpy as np
import pytest

from segbench.errors import SegbenchError
from segbench.experiment.train import train
from segbench.training.callbacks.extremes import Extremes, _ranks


def test_ranks_hold_each_image_once():
    assert _ranks(np.array([0.1, 0.9, 0.5, 0.3, 0.7]), 1) == {"best": [1], "median": [2], "worst": [0]}
    assert _ranks(np.array([0.1, 0.9, 0.5, 0.3, 0.7, 0.6]), 2) == {"best": [1, 4], "median": [5, 2], "worst": [0, 3]}
    assert _ranks(np.array([0.4]), 3) == {"best": [], "median": [], "worst": [0]}
    assert _ranks(np.array([0.4, 0.6]), 3) == {"best": [1], "median": [], "worst": [0]}


def mean_iu(matrix):
    right = np.diag(matrix)
    return (right / (matrix.sum(0) + matrix.sum(1) - right)).mean()


def test_a_test_draws_them(tiny_config, tmp_path):
    train(tiny_config("callbacks.panels=null"), tmp_path / "run", [])
    entries = json.loads((tmp_path / "run" / "extremes" / "extremes.json").read_text())
    assert [entry["rank"] for entry in entries] == ["best", "median", "worst"]
    with np.load(tmp_path / "run" / "per_image.npz") as stored:
        ids, matrices = stored["ids"].tolist(), stored["semantic/confusion/matrix"]
    alone = {name: mean_iu(matrix) for name, matrix in zip(ids, matrices, strict=True)}
    ordered = sorted(alone, key=alone.get)
    assert [entry["id"] for entry in entries] == [ordered[-1], ordered[len(ordered) // 2], ordered[0]]
    for entry in entries:
        assert entry["value"] == pytest.approx(alone[entry["id"]])
        assert (tmp_path / "run" / "extremes" / entry["file"]).read_bytes()[:4] == b"\x89PNG"


def test_a_count_of_none_is_refused(tmp_path):
    with pytest.raises(SegbenchError, match=r"callbacks\.extremes\.count=0"):
        Extremes(tmp_path, count=0)
