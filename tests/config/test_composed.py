from pathlib import Path

from omegaconf import OmegaConf

from segbench.config.composed import resolved


def test_paths_to_data_are_absolute_and_nothing_else_changes():
    config = OmegaConf.create(
        {
            "name": "data/x",
            "data": {"root": "data/isbi", "images": "/abs", "masks": None, "lists": {"train": "a.txt"}, "depth": "raw"},
            "weights": {"name": "w", "path": "${data.root}/../w.caffemodel"},
            "init_from": {"rgb": "outputs/a"},
            "loss": {"weight_map": {"folder": "maps"}},
            "other": {"root": "r"},
        }
    )
    assert resolved(config, Path("/start")) == {
        "name": "data/x",
        "data": {
            **{"root": "/start/data/isbi", "images": "/abs", "masks": None},
            **{"lists": {"train": "/start/a.txt"}, "depth": "raw"},
        },
        "weights": {"name": "w", "path": "/start/data/w.caffemodel"},
        "init_from": {"rgb": "/start/outputs/a"},
        "loss": {"weight_map": {"folder": "/start/maps"}},
        "other": {"root": "r"},
    }
