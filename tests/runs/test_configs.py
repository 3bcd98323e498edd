"""Configurations of many runs: parts that come again are parsed once, and mean what the whole means."""

import pytest
import yaml

from segbench.errors import SegbenchError
from segbench.runs.configs import Configs


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb:\n  c: [1, 2]\n  d: null\ne:\n- x\n- y\n",
        "# a comment\na: 1\n\nb: 2\n# another\nc: 3\n",
        "a: &x {b: 1}\nc: *x\n",
        "---\na: 1\n",
        "a: 'one\n\n  two'\nb: |\n  three\n  four\nc: 5\n",
        "'quoted key': 1\n\"other\": 2\n",
        "a: 1\na: 2\n",
        "[1, 2]",
        "",
        "a: 1e-3\nb: 1.0e-03\nc: yes\n",
    ],
)
def test_parts_are_parsed_as_the_whole(text):
    assert Configs().parse(text, "config.yaml") == yaml.safe_load(text)


def test_a_part_that_comes_again_is_parsed_once(monkeypatch):
    parsed, load = [], yaml.load
    monkeypatch.setattr(yaml, "load", lambda text, Loader: parsed.append(text) or load(text, Loader))
    configs = Configs()
    first, second = (configs.parse(f"seed: {seed}\nmodel:\n  width: 4\n", "config.yaml") for seed in range(2))
    assert (first["seed"], second["seed"], first["model"], second["model"]) == (0, 1, {"width": 4}, {"width": 4})
    assert len(parsed) == 3


@pytest.mark.parametrize("experiment", ["quickstart", "unet_isbi_em", "unet_isbi_em_modern_cpu"])
def test_composed_configs(compose, experiment):
    text = yaml.safe_dump(compose(f"experiment={experiment}", "name=x").tree, sort_keys=False)
    assert Configs().parse(text, "config.yaml") == yaml.safe_load(text)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "config.yaml").write_text("a: [1")
    with pytest.raises(SegbenchError, match=f"{tmp_path}/config.yaml is damaged"):
        Configs().of(tmp_path)
    with pytest.raises(SegbenchError, match=r"^config.yaml is damaged"):
        Configs().of(tmp_path, "config.yaml")
    (tmp_path / "config.yaml").write_text("- 1")
    with pytest.raises(SegbenchError, match="is not a mapping"):
        Configs().of(tmp_path)


def test_an_interpolation_in_any_part_is_refused():
    with pytest.raises(SegbenchError, match=r"name: \$\{oc.env:HOME\}, an interpolation"):
        Configs().parse("seed: 1\nname: ${oc.env:HOME}\n", "config.yaml")
