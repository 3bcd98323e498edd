"""Values as Hydra reads them back."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from segbench.config.grammar import in_hydra, spread

names = st.from_regex(r"[a-z_]{1,5}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


@given(values)
def test_hydra_reads_what_is_written(value):
    assert OverridesParser.create().parse_override(f"key={in_hydra(value)}").value() == value


def test_a_mapping_that_names_a_class_is_spread():
    given = "loss={_target_: a.B, c: [1, {_target_: d.E}], f: 'g, h'}"
    assert spread(given) == ["loss._target_='a.B'", "loss.c=[1,{_target_:'d.E'}]", "loss.f='g, h'"]


@pytest.mark.parametrize("given", ["a={b: 1}", "a={_target_: ", "a={_target_: x.Y},1", "a={b: {_target_: x.Y}}", "a=1"])
def test_other_values_stay(given):
    assert spread(given) == [given]
