from omegaconf import OmegaConf

from segbench.config.composed import resolved
from segbench.config.environment import variables_of


def test_every_way_out_of_the_environment_is_found(monkeypatch):
    monkeypatch.setenv("MINE", "x")
    monkeypatch.setenv("NUMBER", "3")
    config = OmegaConf.create(
        {
            "plain": "x",
            "own": "${oc.env:MINE}",
            "text": "a ${oc.env:MINE} b",
            "through": {"another": "${own}"},
            "section": "${through}",
            "number": "${oc.decode:${oc.env:NUMBER}}",
            "list": ["a", "${oc.env:MINE}"],
            "default": "${oc.env:NOT_SET,y}",
            "other": "${plain}",
        }
    )
    assert variables_of(config) == {
        **{"own": "MINE", "text": "MINE", "through.another": "MINE", "section": "MINE"},
        **{"number": "NUMBER", "list.1": "MINE"},
    }
    # The resolver is OmegaConf's own again.
    assert OmegaConf.create({"a": "${oc.env:MINE}"}).a == "x"


def test_a_record_names_the_variables_only_where_there_are_some(compose, monkeypatch):
    monkeypatch.setenv("MINE", "x")
    assert "from_environment" not in compose("name=a").tree
    assert compose("name=a", "+b=${oc.env:MINE}").tree["from_environment"] == {"b": "MINE"}


def test_the_variable_of_an_argument_that_was_left_out_is_left_out_too(monkeypatch):
    monkeypatch.setenv("MINE", "0.5")
    given = {"_target_": "torch.optim.RAdam", "lr": "${oc.env:MINE}", "momentum": "${oc.env:MINE}", "list": []}
    config = OmegaConf.create({"optimizer": given, "several": [{"a": "${oc.env:MINE}"}]})
    tree = resolved(config, overrides=["optimizer._target_=torch.optim.RAdam"])
    assert "momentum" not in tree["optimizer"]
    assert tree["from_environment"] == {"optimizer.lr": "MINE", "several.0.a": "MINE"}
