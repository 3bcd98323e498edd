import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.config.record import LOADER_KEYS, Component, Config
from segbench.errors import SegbenchError


@pytest.fixture(scope="module")
def config(compose):
    return compose("name=x", "trainer=cpu")


def test_the_tree_comes_back_and_is_a_copy(config):
    assert Config.of(config.tree) == config
    config.tree["model"]["width"] = 99
    assert config.tree["model"]["width"] != 99


def test_a_record_is_frozen(config):
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3
    with pytest.raises(ValueError, match="frozen"):
        config.trainer.max_steps = 3


def test_sections_have_their_own_arguments(config):
    assert config.data.loading.keys() == set(LOADER_KEYS)
    assert not config.data.arguments.keys() & {*LOADER_KEYS, "_target_"}
    assert config.trainer.arguments["val_check_interval"] == config.trainer.val_check_interval
    assert "max_time" not in config.trainer.arguments
    assert config.optimizer.name == "adamw"


def test_one_loss_serves_every_head_or_each_has_its_own(config):
    assert config.loss_of("semantic") == config.loss_of("geometric")
    loss = {"_target_": "segbench.losses.Dice", "weight_map": None}
    by_head = config.replace({"loss": {"semantic": loss, "geometric": {**loss, "squared": True}}})
    assert by_head.loss_of("geometric").arguments == {"squared": True}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("trainer.val_check_interval", 0, "greater than or equal to 1"),
        ("trainer.val_check_interval", 1.5, "less than or equal to 1"),
        ("trainer.log_every_n_steps", 0, "greater than or equal to 1"),
        ("trainer.check_val_every_n_epoch", 0, "greater than or equal to 1"),
        ("trainer.accumulate_grad_batches", 0, "greater than or equal to 1"),
        ("trainer.max_steps", -2, "greater than or equal to -1"),
        ("trainer.gradient_clip_val", -1, "greater than or equal to 0"),
        ("data.batch_size", 0, "greater than or equal to 1"),
        ("data.num_workers", -1, "greater than or equal to 0"),
        ("data.num_workers", 10**6, "less than or equal to 1024"),
        ("data.tile", 0, "greater than or equal to 1"),
        ("seed", -1, "greater than or equal to 0"),
        ("seed", 2**32, "less than 4294967296"),
        ("seed", "x", "a valid integer"),
        ("threads", 0, "greater than or equal to 1"),
        ("tta", "d8", "'rot4'"),
        ("tta_scales", [1.0], "null unless tta=multiscale"),
        ("callbacks", None, "an object"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_key(config, key, value, expected):
    with pytest.raises(SegbenchError) as caught:
        config.replace({key: value})
    assert caught.value.found.startswith(f"{key}=")
    assert expected in caught.value.expected
    assert key in caught.value.action


@pytest.mark.parametrize(
    ("key", "near"),
    [("task.compil", "task.compile"), ("weights.nam", "weights.name"), ("task.train_onli", "task.train_only")],
)
def test_an_unknown_key_of_ours_is_told_its_neighbour(config, key, near):
    with pytest.raises(SegbenchError, match=rf"{key}, which is not a setting(.|\n)*write {near}"):
        config.replace({key: "x"})


def test_a_missing_key_is_named(config):
    tree = config.tree
    del tree["model"], tree["trainer"]
    with pytest.raises(SegbenchError, match=r"RUN/config\.yaml without model"):
        Config.of(tree, "RUN/config.yaml")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_a_value_is_there_is_a_record_or_an_error_of_ours(config, data):
    key = data.draw(st.sampled_from(sorted(config.flat)))
    value = data.draw(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()) | st.just({})
    )
    try:
        changed = config.replace({key: value})
    except SegbenchError as error:
        assert error.found and error.expected and error.action
    else:
        assert isinstance(changed, Config)


def test_a_component_is_called_with_what_is_given():
    assert Component(target="a.b.C", width=3).arguments == {"width": 3}
