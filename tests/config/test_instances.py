"""Nodes of a config become objects, and nothing in them is resolved."""

import datetime

import pytest

from segbench.config.instances import instance, located
from segbench.config.trust import own
from segbench.errors import SegbenchError


def made(node, **given):
    with own(node):
        return instance(node, **given)


def test_nodes_inside_a_node_are_made_first():
    node = {"_target_": "builtins.dict", "a": [{"_target_": "fractions.Fraction", "_args_": [1, 2]}], "b": {"c": 1}}
    assert made(node, b=2, d=3) == {"a": [0.5], "b": 2, "d": 3}


def test_hydras_keys_work():
    assert made({"_target_": "fractions.Fraction", "_partial_": True, "numerator": 3})(denominator=6) == 0.5
    plain = {"_target_": "builtins.dict", "_recursive_": False, "a": {"_target_": "os.getcwd"}}
    assert made(plain) == {"a": {"_target_": "os.getcwd"}}


def test_interpolations_of_a_recorded_config_stay_text(monkeypatch):
    monkeypatch.setenv("SECRET", "told")
    hidden = "${oc.create:{_target_: os.getcwd}}"
    assert made({"_target_": "builtins.dict", "a": "${oc.env:SECRET}", "b": hidden}) == {
        "a": "${oc.env:SECRET}",
        "b": hidden,
    }


def test_a_target_inside_is_refused_before_anything_is_made():
    node = {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "os.system", "_args_": ["touch made"]}]}
    with pytest.raises(SegbenchError, match=r"os\.system, which a config that was handed over"):
        instance(node)


def test_what_cannot_be_imported_is_told_with_its_key():
    with pytest.raises(SegbenchError, match=r"loss\._target_=nowhere\.Loss: No module.*\n.*\n.*PYTHONPATH"):
        located("nowhere.Loss", "loss")
    assert located("datetime.date") is datetime.date
