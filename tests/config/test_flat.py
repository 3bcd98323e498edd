from hypothesis import given
from hypothesis import strategies as st

from segbench.config.flat import changed, differences, flatten

KEYS = st.text("abc", min_size=1, max_size=3)
TREES = st.recursive(
    st.none() | st.integers() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=8,
)


def test_nested_settings_are_named_by_dots():
    config = {"a": {"b": {"c": 1}, "d": [1, {"e": 2}]}, "f": None, "g": [1, 2], "h": {}, "i": []}
    assert flatten(config) == {"a.b.c": 1, "a.d.0": 1, "a.d.1.e": 2, "f": None, "g": [1, 2], "h": {}, "i": []}


@given(st.dictionaries(KEYS, TREES, max_size=4))
def test_every_value_is_found_and_may_be_changed(config):
    flat = flatten(config)
    for key in flat:
        assert flatten(changed(config, {key: "new"})) == flat | {key: "new"}
    assert changed(config, flat) == config


def test_a_change_makes_what_is_missing_and_leaves_the_original():
    config = {"trainer": {"max_steps": 4}, "weights": None}
    assert changed(config, {"weights.name": "x", "trainer.max_steps": 8}) == {
        "trainer": {"max_steps": 8},
        "weights": {"name": "x"},
    }
    assert config == {"trainer": {"max_steps": 4}, "weights": None}


def test_differences_have_both_values():
    assert differences({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}) == {"b": (2, 3), "c": (None, 4)}
