import pytest

from segbench.compare.records import identity, separating, written


@pytest.mark.parametrize("key", ["seed", "name", "logger.wandb.project", "data.root"])
def test_names_places_and_the_seed_set_nothing_apart(key):
    assert not separating({key: 1})
    assert identity({key: 1, "lr": 2}) == identity({key: 3, "lr": 2}) == identity({"lr": 2})


@pytest.mark.parametrize("key", ["data.rooted", "seeds", "model.name", "optimizer.lr", "data.fold", "loggers"])
def test_settings_do(key):
    assert separating({key: 1})
    assert identity({key: 1}) != identity({key: 2})


def test_what_is_ignored_sets_nothing_apart_with_all_below_it():
    assert not separating({"trainer.devices": 1}, ("trainer",))
    assert identity({"trainer.devices": 1}, ("trainer",)) == identity({"trainer.devices": 2}, ("trainer",))
    assert identity({"trainer.devices": 1}) != identity({"trainer.devices": 2})


def test_equal_numbers_are_equal_and_the_order_of_keys_does_not_count():
    # A W&B server returns 1 for 1.0.
    assert identity({"a": 1.0, "b": None}) == identity({"b": None, "a": 1})
    assert written(1.0) == written(1) != written(1.5)
    assert identity({"a": True}) != identity({"a": "true"})
