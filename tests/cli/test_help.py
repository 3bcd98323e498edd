import pytest

from segbench.cli.help import axes_of, help_text


@pytest.mark.parametrize("verb", ["train", "evaluate", "predict", "export"])
def test_the_help_holds_every_key_with_its_comment_and_nothing_of_hydra(verb):
    text = help_text(verb)
    assert text.startswith(f"usage: segbench {verb} [FLAG ...] [KEY=VALUE ...]\n\n")
    assert "--config-dir DIR" in text
    for hidden in ("hydra:", "\ndefaults:", "_self_", "_loader", "override "):
        assert hidden not in text


def test_keys_have_the_comment_above_them():
    above = "none, the symmetries rot4 and d4, or multiscale: scales, each also mirrored."
    shown = f"  # What test predictions are averaged over: {above}\n  tta: none\n"
    assert shown in help_text("train")
    assert "  task:\n    # auto: where it is faster on this hardware.\n    channels_last: auto\n" in help_text("train")
    # What is written above hydra: speaks of hydra.
    assert "no run directory" not in help_text("predict")


def test_an_axis_shows_its_default_and_a_users_own(tmp_path):
    (tmp_path / "decoding").mkdir()
    (tmp_path / "decoding" / "mine.yaml").write_text("a: 1")
    (tmp_path / "decoding" / "_shared.yaml").write_text("a: 1")
    assert "\n  decoding       components*, cores, mine, watershed\n" in help_text("train", tmp_path)


def test_the_axes_of_a_command_stand_in_its_config():
    assert list(axes_of("evaluate")) == ["trainer", "logger"]
    assert axes_of("export") == {}
