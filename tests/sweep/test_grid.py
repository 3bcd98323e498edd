"""The jobs of a grid: every combination, and keys whose values go together."""

import itertools

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.errors import SegbenchError
from segbench.sweep.grid import combinations, parsed, read_zip, zipped


def overrides(*texts, params=None):
    return parsed(OverridesParser.create(), params, texts)


def test_every_combination_the_last_key_fastest():
    assert combinations(overrides("a=1,2", "b=x", "c=range(0,2)")) == [
        *(["a=1", "b=x", "c=0"], ["a=1", "b=x", "c=1"], ["a=2", "b=x", "c=0"], ["a=2", "b=x", "c=1"])
    ]
    assert combinations(overrides("b=x")) == [["b=x"]]


def test_keys_that_go_together_stand_where_the_first_of_them_stands():
    jobs = combinations(overrides("s=0,1", "++a=1,2", "k=9", "b='x y',z"), (("b", "a"),))
    assert jobs == [
        *(["s=0", "k=9", "b='x y'", "++a=1"], ["s=0", "k=9", "b=z", "++a=2"]),
        *(["s=1", "k=9", "b='x y'", "++a=1"], ["s=1", "k=9", "b=z", "++a=2"]),
    ]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(2, 3), st.integers(1, 4))
def test_a_group_counts_as_one_key(counts, keys, steps):
    free = {f"f{place}": range(count) for place, count in enumerate(counts)}
    group = tuple(f"g{place}" for place in range(keys))
    together = {key: [f"{key}{step}" for step in range(max(2, steps))] for key in group}
    texts = [f"{key}={','.join(map(str, values))}" for key, values in (free | together).items()]
    jobs = combinations(overrides(*texts), (group,))
    expected = [
        [*(f"{key}={value}" for key, value in zip(free, chosen, strict=True)), *(f"{key}={key}{step}" for key in group)]
        for *chosen, step in itertools.product(*free.values(), range(max(2, steps)))
    ]
    assert jobs == expected


def test_values_kept_in_a_file_give_way_to_the_command_line():
    params = {"a": "1,2", "b": "3,4"}
    assert combinations(overrides("b=5", params=params)) == [["a=1", "b=5"], ["a=2", "b=5"]]
    assert combinations(overrides("b=5", "b=6,7")) == [["b=6"], ["b=7"]]


@pytest.mark.parametrize(
    ("zip_", "groups"),
    [
        *((None, ()), ([], ()), (["a", "b"], (("a", "b"),)), ([["a", "b"]], (("a", "b"),))),
        ([["a", "b"], ["c", "d", "e"]], (("a", "b"), ("c", "d", "e"))),
    ],
)
def test_groups_are_a_list_of_keys_or_several(zip_, groups):
    assert read_zip(zip_) == groups


@pytest.mark.parametrize("zip_", ["a,b", ["a"], ["a", "a"], [["a", "b"], ["b", "c"]], ["a", ["b", "c"]], [["a", 1]], 3])
def test_what_is_no_group_is_refused(zip_):
    with pytest.raises(SegbenchError, match=r"hydra\.sweeper\.zip=.*\n.*\n.*correct it, e\.g\."):
        read_zip(zip_)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("a=1,2", "b=1,2,3"), r"different lengths: a has 2, b has 3\n.*\n.*same number"),
        (("a=1,2", "b=1"), r"zip with b, which has no list of values\n.*\n.*add b=A,B"),
        (("a=1,2",), "zip with b, which has no list"),
        (("c=1,2",), "zip with a, b, which have no list"),
        (("a=1,2", "b=interval(0,1)"), "zip with b, which has no list"),
    ],
)
def test_lists_that_do_not_fit_are_refused(texts, message):
    with pytest.raises(SegbenchError, match=message):
        zipped(overrides(*texts), ("a", "b"))


def test_an_interval_is_no_list():
    with pytest.raises(SegbenchError, match=r"a=interval\(0,1\) in a grid\n.*\n.*hydra/sweeper=optuna"):
        combinations(overrides("a=interval(0,1)"))
