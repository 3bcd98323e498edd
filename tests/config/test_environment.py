from omegaconf import OmegaConf

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
