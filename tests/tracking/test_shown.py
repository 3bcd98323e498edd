"""What trackers show of a configuration."""

import pytest

from segbench.errors import SegbenchError
from segbench.tracking.shown import shown


def test_places_and_what_is_out_of_the_environment_stay_here(tiny_config, monkeypatch):
    monkeypatch.setenv("MINE", "between us")
    config = tiny_config(
        "+note=${oc.env:MINE}",
        "+again=see ${note}",
        "+default=${oc.env:NOT_SET,public}",
        "+scratch=/tmp/scratch",
        "+lists=[/a,/b]",
        "+plain=a/b",
        "init_from=outputs/other",
        "+api_token=abc",
    )
    tree, stays = shown(config)
    assert sorted(stays) == ["again", "api_token", "init_from", "lists", "note", "scratch"]
    assert not set(stays) & set(tree)
    assert (tree["default"], tree["plain"], tree["seed"]) == ("public", "a/b", 0)
    assert tree["model"]["width"] == 4
    assert "from_environment" not in tree
    assert "between us" not in str(tree)


@pytest.mark.parametrize("key", ["hub.token", "db_password", "aws_secret_access_key", "anything"])
def test_a_secret_out_of_the_environment_is_refused(key, tiny_config, monkeypatch):
    variable = "HF_TOKEN" if key == "anything" else "MINE"
    monkeypatch.setenv(variable, "between us")
    config = tiny_config(f"+{key}=${{oc.env:{variable}}}")
    with pytest.raises(SegbenchError, match=rf"{key}=\${{oc.env:{variable}}}: a secret.*\n.*\n.*itself") as raised:
        shown(config)
    assert "between us" not in str(raised.value)


@pytest.mark.parametrize("key", ["num_tokens", "tokenizer", "secretary", "author", "key"])
def test_names_that_only_sound_like_secrets(key, tiny_config):
    assert shown(tiny_config(f"+{key}=abc"))[0][key] == "abc"
