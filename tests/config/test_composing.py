import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segbench.config.composed import resolved
from segbench.config.composing import composing
from segbench.errors import SegbenchError


@pytest.fixture
def mine(tmp_path):
    """`mine(file, text)`: a user's config directory with that file."""

    def written(file, text):
        path = tmp_path / "mine" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return tmp_path / "mine"

    return written


def composed(own, *overrides):
    with composing("train", overrides, own):
        return resolved(hydra.compose("train", ["name=x", *overrides]))


def test_a_users_file_wins_over_the_packaged_one(mine):
    mine("experiment/quickstart.yaml", "# @package _global_\nseed: 77\n")
    own = mine("loss/cross_entropy.yaml", "_target_: segbench.losses.Dice\n")
    config = composed(own, "model.width=5")
    assert (config["seed"], config["loss"], config["model"]["width"]) == (77, {"_target_": "segbench.losses.Dice"}, 5)


def test_a_file_that_builds_on_its_own_name_is_refused(mine):
    own = mine("experiment/quickstart.yaml", "# @package _global_\ndefaults: [quickstart]\n")
    with pytest.raises(SegbenchError, match=r"build on one another in a circle\n.*\n.*named like a packaged file"):
        composed(own)


def test_a_broken_file_is_named_with_its_line(mine):
    own = mine("experiment/e.yaml", "a: 1\nb: [\n")
    with pytest.raises(SegbenchError, match=r"experiment/e\.yaml, line 3: .*expected (the )?node content"):
        composed(own, "experiment=e")


def test_a_missing_option_that_a_file_names_is_told_from_one_of_the_command_line(mine):
    own = mine("experiment/e.yaml", "# @package _global_\ndefaults:\n  - override /data: isbi\n")
    with pytest.raises(SegbenchError, match=r"no data=isbi \(defaults of a config\)(.|\n)*did you mean data=isbi_em\?"):
        composed(own, "experiment=e")
    with pytest.raises(SegbenchError, match=r"no data=isbi\n"):
        composed(None, "data=isbi")


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(SegbenchError, match=r"no folder .*nowhere\n.*a config directory"):
        composed(tmp_path / "nowhere")


def test_nothing_is_left_of_hydra():
    with pytest.raises(SegbenchError, match="no model=nope"):
        composed(None, "model=nope")
    assert not GlobalHydra.instance().is_initialized()


def test_what_is_no_exception_passes():
    with pytest.raises(SystemExit), composing("train"):
        raise SystemExit(3)


KEYS = st.sampled_from(
    ["seed", "model", "model.width", "callbacks", "hydra.run.dir", "hydra/launcher", "data", "a.b", ""]
)
JUNK = st.text(st.sampled_from("=[]{}(),:.'\"$~+-@/\\ \0aé1\t%"), max_size=12)
OVERRIDES = st.one_of(JUNK, st.builds("{}{}={}".format, st.sampled_from(["", "+", "++", "~"]), KEYS, JUNK))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(OVERRIDES, min_size=1, max_size=3))
def test_no_override_ends_in_anything_but_three_parts(overrides):
    try:
        composed(None, *overrides)
    except SegbenchError as error:
        assert error.found and error.expected and error.action
