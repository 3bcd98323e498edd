"""What changes no score is known by name and reason; everything else counts."""

import pytest

from segbench.config.no_effect import NO_EFFECT, counting

PANELS = "segbench.training.callbacks.pictures.Panels"


@pytest.mark.parametrize(
    "key", ["seed", "logger.wandb.project", "loss.weight_map.folder", "loss.semantic.weight_map.folder"]
)
def test_a_known_key_and_all_below_it_count_for_nothing(key):
    assert counting({key: 1}) == {}


@pytest.mark.parametrize(
    "key", ["seeds", "data.rooted", "loss.weight_map.w0", "users_own.key", "callbacks.checkpoint.monitor"]
)
def test_any_other_key_counts(key):
    assert counting({key: 1}) == {key: 1}


def test_a_callback_is_known_by_its_class_and_not_by_its_key():
    panels = {"callbacks.panels._target_": PANELS, "callbacks.panels.count": 4}
    other = {"callbacks.panels._target_": "mine.Averaging", "callbacks.panels.count": 4}
    assert counting(panels) == {}
    assert counting(other) == other
    assert counting({"callbacks.other._target_": PANELS}) == {}
    assert counting({"callbacks.averaged_weights": None}) == {}


def test_a_class_of_others_below_a_known_key_counts():
    assert counting({"logger.csv._target_": "segbench.x.RunCsv", "logger.csv.a": 1}) == {}
    own = {"logger.mine._target_": "mine.Logger", "logger.mine.a": 1, "trainer.profiler._target_": "mine.Profiler"}
    assert counting(own) == own
    assert counting({"trainer.profiler": "simple"}) == {}


def test_scales_count_where_there_are_any():
    # Older runs do not have the key.
    assert counting({"tta": "none", "tta_scales": None}) == {"tta": "none"}
    assert counting({"tta_scales": [1.0]}) == {"tta_scales": [1.0]}
    assert counting({"input_scale": None}) == {} and counting({"input_scale": 2.0}) == {"input_scale": 2.0}


def test_every_entry_has_a_reason():
    assert all(len(reason) > 10 for reason in NO_EFFECT.values())
