import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st

from segbench.cli.arguments import PATHS, pairs, quoted, split_arguments, unquoted
from segbench.errors import SegbenchError

PARSER = OverridesParser.create()

# What a file system takes, and what means something in a shell, in YAML or in Hydra's grammar; not ${}, which stays an
# interpolation.
names = st.text(st.sampled_from("abz09_-./=,:;'\"\\ ()[]{}#~&!@%^+*?<>|$é日"), min_size=1).filter(
    lambda name: "${" not in name
)


def taken(argument):
    """The value that Hydra hands on."""
    override = PARSER.parse_override(argument)
    assert not override.is_sweep_override() and not override.is_delete()
    return override.value()


@given(key=st.sampled_from([*PATHS, "+data.lists", "++data.root"]), name=names)
@example(key="run", name="outputs/swN/optimizer.lr=0.001,seed=0")
@example(key="run", name="2024_01")
@example(key="run", name="true")
@example(key="run", name=" leading and trailing ")
@example(key="run", name="ends in \\")
@example(key="run", name="it's \\'mine\\'")
@example(key="run", name="choice(a,b)")
@example(key="run", name="[a]")
def test_hydra_takes_a_path_as_it_is(key, name):
    (argument,) = quoted([f"{key}={name}"])
    is_mapping = key in ("input", "init_from") and name.startswith("{")
    if unquoted(name) == name and not is_mapping:
        assert taken(argument) == name
        assert quoted([argument]) == [argument]
        assert unquoted(argument.partition("=")[2]) == name


@given(name=names)
def test_quotes_that_a_user_gives_are_taken_off_as_hydra_takes_them_off(name):
    for mark in "'\"":
        value = f"{mark}{name}{mark}"
        (argument,) = quoted([f"run={value}"])
        assert taken(argument) == unquoted(value)


@pytest.mark.parametrize(
    "argument",
    [
        "run=outputs/a",
        "run=null",
        "run=",
        "run=${oc.env:HOME}/a",
        "run='a=b'",
        "input={rgb:a,hha:b}",
        "init_from={rgb:a}",
        "optimizer.lr=1e-3,1e-4",
        "seed=a=b",
        "~data.root",
        "-m",
        "--cfg",
        "a/b=c",
    ],
)
def test_what_needs_no_quotes_gets_none(argument):
    assert quoted([argument]) == [argument]


def test_a_sweep_keeps_its_lists_and_takes_odd_paths():
    lists = ["-m", "data.root=a,b", "data.root=choice(a,b)", "seed=0,1"]
    assert quoted(lists) == lists
    assert quoted(["-m", "hydra.sweep.dir=outputs/lr=1,seed=0"]) == ["-m", "hydra.sweep.dir='outputs/lr=1,seed=0'"]
    assert quoted(["data.root=a,b"]) == ["data.root='a,b'"]


@pytest.mark.parametrize(("argument", "inside"), [("input.rgb=a=b", "'a=b'"), ("init_from.hha=1", "'1'")])
def test_a_path_by_name_is_quoted_too(argument, inside):
    assert quoted([argument]) == [f"{argument.partition('=')[0]}={inside}"]


def test_an_interpolation_stays_one():
    assert quoted(["hydra.run.dir=outputs/${name}/lr=0.1"]) == ["hydra.run.dir='outputs/${name}/lr=0.1'"]


def test_a_key_that_is_unknown_or_given_twice_is_told():
    with pytest.raises(SegbenchError, match=r"ouput=x\n.*one of output, metric; did you mean output=\?\n.*x --help"):
        pairs(["ouput=x"], ["output", "metric"], "x")
    with pytest.raises(SegbenchError, match=r"output= given twice"):
        pairs(["output=x", "output=y"])


def test_sources_and_values_lose_their_quotes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert split_arguments(["'a=b'", 'output="c d"'], ["output"], "compare") == (["a=b"], {"output": "c d"})
    (tmp_path / "'there'").mkdir()
    assert split_arguments(["'there'"], [], "compare") == (["'there'"], {})


@pytest.mark.parametrize(
    ("argument", "overrides"),
    [
        ("optimizer.lr=0.01", ["optimizer.lr=0.01"]),
        ("tile=None", ["tile=null"]),
        ("flag=True", ["flag=True"]),
        ("sides=[1, 2]", ["sides=[1,2]"]),
        ("mixed=['a b', None, 1.5, True]", ["mixed=['a b',null,1.5,true]"]),
        ("optimizer={'lr': 1e-05, 'betas': [0.9, 0.99]}", ["optimizer.lr=1e-05", "optimizer.betas=[0.9,0.99]"]),
        ("a={'b': {'c': None, 'd': 'x, y'}}", ["a.b.c=null", "a.b.d='x, y'"]),
        ("+a={'b': 1}", ["+a.b=1"]),
        ("a={}", ["a={}"]),
        ("notes=one, two", ["notes='one, two'"]),
        ("notes=[unclosed", ["notes='[unclosed'"]),
        ("name=plain words", ["name=plain words"]),
        ("name=it's", ["name='it\\'s'"]),
    ],
)
def test_what_an_agent_writes_means(argument, overrides):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from segbench.cli.arguments import of_an_agent

    assert of_an_agent(argument) == overrides
    # Hydra takes each of them.
    OverridesParser.create().parse_overrides(overrides)
