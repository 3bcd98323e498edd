"""A paper's facts come from the packaged experiments alone."""

import subprocess
import sys

import hydra
import pytest

from segbench.config.composed import resolved
from segbench.config.composing import composing
from segbench.config.paper import packaged_facts, paper_blocks, refuse_other_facts
from segbench.config.record import Config
from segbench.errors import SegbenchError


def composed(*overrides, own=None):
    given = ["experiment=unet_isbi_em", "name=x", "data.root=folder", *overrides]
    with composing("train", given, own):
        return resolved(hydra.compose("train", given))


@pytest.mark.parametrize("name", ["unet_isbi_em_cpu", "unet_dic_hela_modern_cpu", "fcn8s_voc"])
def test_blocks_are_what_hydra_composes(name):
    overrides = [f"experiment={name}", "name=x", "data.root=folder"]
    with composing("train", overrides):
        assert resolved(hydra.compose("train", overrides))["paper"] == paper_blocks()[name]


@pytest.mark.parametrize(
    "override",
    [
        "paper.metrics.rand_error=0.5",
        "paper.source=mine",
        "paper.not_comparable=null",
        "paper.deviations=[]",
        "+paper.metrics.v_rand=0.1",
        "~paper.metrics.pixel_error",
        "paper.experiment=unet_isbi_em_cpu",
        "paper.method=another",
    ],
)
def test_an_override_of_a_fact_is_refused(override):
    with pytest.raises(SegbenchError, match="leave it out; paper=null"):
        composed(override)


@pytest.mark.parametrize(
    "overrides",
    [
        ("paper.row=mine", "paper.experiment=mine", "paper.metrics.rand_error=0.9"),
        ("paper.row=null",),
        ("++paper.looked_at=null",),
        ("paper={row: mine, metrics: {rand_error: 0.9}}",),
    ],
)
def test_no_override_of_the_paper_passes(overrides):
    with pytest.raises(SegbenchError, match="leave it out; paper=null"):
        composed(*overrides)


def test_a_row_of_another_name_on_a_packaged_experiment_is_no_way_round(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults: [unet_isbi_em]\npaper: {row: mine, metrics: {rand_error: 0.9}}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    with pytest.raises(SegbenchError, match="where the packaged experiment has"):
        composed("experiment=mine", own=tmp_path)
    with pytest.raises(SegbenchError, match=r"without paper\.row"):
        refuse_other_facts({"row": None, "experiment": "unet_isbi_em", "metrics": {"rand_error": 0.9}})


def test_no_paper_or_one_of_the_users_own_is_accepted():
    assert composed("paper=null")["paper"] is None
    refuse_other_facts({"row": "of_mine", "method": "m", "metrics": {"mean_iu": 0.1}})


def test_a_users_experiment_cannot_change_a_fact_either(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults: [unet_isbi_em]\npaper: {metrics: {rand_error: 0.9}}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    with pytest.raises(SegbenchError, match=r"paper\.metrics\.rand_error=0\.9"):
        composed("experiment=mine", own=tmp_path)


def test_a_recorded_block_stands_for_the_packaged_facts():
    block = paper_blocks()["unet_isbi_em_cpu"]
    changed = block | {
        "metrics": {"rand_error": 0.9},
        "not_comparable": None,
        "deviations": ["one of an older version"],
    }
    read = Config.of(composed() | {"paper": changed}).paper
    assert read.metrics == block["metrics"]
    assert read.not_comparable == block["not_comparable"]
    assert read.deviations == [*block["deviations"], "one of an older version"]
    unknown = packaged_facts(block | {"method": "another"})
    assert unknown["metrics"] == {}
    own = {"row": "of_mine", "method": "m", "metrics": {"mean_iu": 0.1}}
    assert packaged_facts(own) == own
    assert packaged_facts(None) is None


def test_the_command_refuses_in_three_parts(tmp_path):
    command = [sys.executable, "-m", "segbench.train", "experiment=unet_isbi_em", "data.root=x", "paper.source=mine"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: paper.source=mine")
    assert "expected:" in done.stderr and "to do:" in done.stderr
    assert not (tmp_path / "outputs").exists()
