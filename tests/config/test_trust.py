import os

import pytest

from segbench.config import trust as config
from segbench.config.packaged import conf_root
from segbench.config.trust import allow_target, allowed_targets, targets_in
from segbench.runtime.processes import choose_run_id


@pytest.fixture(autouse=True)
def _nothing_allowed(monkeypatch):
    monkeypatch.setattr(config, "_allowed_by_user", set())
    monkeypatch.delenv("SEGBENCH_TARGETS", raising=False)


def test_the_packaged_configs_are_found():
    assert (conf_root() / "train.yaml").is_file()
    assert conf_root().is_absolute()


def test_targets_are_found_at_any_depth():
    nested = {"_target_": "a", "list": [{"_target_": "b"}, [{"x": {"_target_": "c"}}]], "target": "d"}
    assert list(targets_in(nested)) == ["a", "b", "c"]


def test_what_the_packaged_configs_name_is_allowed():
    assert {"segbench.models.unet.UNet", "lightning.Trainer", "albumentations.D4"} <= allowed_targets()


@pytest.mark.parametrize("name", ["torch.hub.load", "os.system", "builtins.eval", "segbench.models.unet"])
def test_nothing_else_is_allowed(name):
    assert name not in allowed_targets()


def test_a_user_allows_a_target_in_code():
    allow_target("mine.Net")
    assert "mine.Net" in allowed_targets()
    assert "mine.Net.load" not in allowed_targets()


def test_a_user_allows_targets_by_the_environment(monkeypatch):
    monkeypatch.setenv("SEGBENCH_TARGETS", "mine.Net, mine.loss,")
    assert allowed_targets() >= {"mine.Net", "mine.loss"}
    assert "" not in allowed_targets()


def test_a_run_is_named_once_for_its_children_too(monkeypatch):
    monkeypatch.delenv("SEGBENCH_RUN_ID", raising=False)
    name = choose_run_id()
    assert choose_run_id() == name == os.environ["SEGBENCH_RUN_ID"]
    monkeypatch.delenv("SEGBENCH_RUN_ID")
    assert choose_run_id() != name
