"""Configs that an installed package adds: found without importing it, told where hidden, recorded with its version."""

import sys
from pathlib import Path

import pytest

import segbench
from segbench.config.flat import flatten
from segbench.config.installed import FROM_PACKAGES, installed, roots
from segbench.config.no_effect import counting
from segbench.config.packaged import conf_root
from segbench.errors import SegbenchError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """`package(name, files, ...)`: an installed distribution of that name with a config directory."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def made(name, files, version="1.2", folder="conf"):
        (site / name).mkdir()
        # Importing it would fail.
        (site / name / "__init__.py").write_text("raise RuntimeError('imported')\n")
        for path, text in files.items():
            file = site / name / "conf" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        info = site / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[segbench.configs]\n{name} = {name}.{folder}\n")
        # As after an installation: the search path is read again.
        monkeypatch.setattr(sys, "path", [*sys.path, f"{tmp_path}/{name}"])
        return site / name / "conf"

    return made


OPTIONS = {
    "optimizer/quick.yaml": "# Quick steps.\ndefaults: [quick_base]\nlr: 5e-3\n",
    "optimizer/quick_base.yaml": "_target_: torch.optim.RAdam\nlr: 1\nweight_decay: 0.1\n",
    "experiment/theirs.yaml": "# @package _global_\ndefaults: [quickstart, override /optimizer: quick]\nseed: 4\n",
}


def test_an_installed_package_adds_options(package, call, capsys):
    path = package("quickstep", OPTIONS)
    assert [(each.package, each.path) for each in installed()] == [("quickstep 1.2", path)]
    assert roots(Path("mine")) == [path, conf_root(), Path("mine")]
    config = segbench.compose(["experiment=theirs", "optimizer.lr=2e-3"])
    assert (config.seed, config.optimizer.target, config.optimizer.arguments["weight_decay"]) == (
        4,
        "torch.optim.RAdam",
        0.1,
    )
    assert config.tree[FROM_PACKAGES] == dict.fromkeys(
        ["experiment/theirs", "optimizer/quick", "optimizer/quick_base"], "quickstep 1.2"
    )
    assert not any(key.startswith(FROM_PACKAGES) for key in counting(flatten(config.tree)))
    assert FROM_PACKAGES not in segbench.compose().tree
    assert capsys.readouterr().err == ""
    assert "quick                    Quick steps." in call("list", "optimizer")[1]
    assert "quick," in call("train", "--help")[1]
    assert "optimizer=quick" in call("completion", "query", "segbench train optimizer=q")[1].split()
    out = call("train", "-m", "optimizer=quick,adamw", "--dry")[1]
    assert "0  optimizer=quick\n" in out


def test_the_users_own_and_the_packaged_configs_come_first_and_what_is_hidden_is_told(package, tmp_path, capsys):
    package("astep", {"optimizer/adamw.yaml": "_target_: a.B\n", "optimizer/x.yaml": "_target_: torch.optim.SGD\n"})
    package(
        "bstep", {"optimizer/x.yaml": "_target_: b.B\n", "optimizer/y.yaml": "_target_: torch.optim.RAdam\n"}, "2.0"
    )
    installed()
    installed()
    assert capsys.readouterr().err == (
        "astep 1.2: optimizer/adamw.yaml is not used, for segbench has a config of that name\n"
        "bstep 2.0: optimizer/x.yaml is not used, for astep 1.2 has a config of that name\n"
    )
    assert segbench.compose(["optimizer=adamw"]).optimizer.target == "segbench.training.optim.adamw"
    config = segbench.compose(["optimizer=x"])
    assert config.optimizer.target == "torch.optim.SGD"
    assert config.tree[FROM_PACKAGES] == {"optimizer/x": "astep 1.2"}
    (tmp_path / "mine" / "optimizer").mkdir(parents=True)
    (tmp_path / "mine" / "optimizer" / "y.yaml").write_text("_target_: torch.optim.Adam\n")
    config = segbench.compose(["optimizer=y"], config_dir=tmp_path / "mine")
    assert config.optimizer.target == "torch.optim.Adam"
    assert FROM_PACKAGES not in config.tree


def test_a_folder_that_is_missing_is_told_and_the_rest_works(package, capsys):
    package("cstep", {"optimizer/z.yaml": "_target_: torch.optim.SGD\n"}, folder="configs")
    assert installed() == ()
    assert capsys.readouterr().err == "cstep 1.2: its configs cstep.configs are not used, for there is no such folder\n"
    assert segbench.compose().name == "quickstart"
    with pytest.raises(SegbenchError, match="no optimizer=z"):
        segbench.compose(["optimizer=z"])


def test_the_schema_knows_them(package):
    from segbench.config.schema import _named_in

    package("dstep", {"model/net.yaml": "_target_: torch.nn.Identity\n"})
    assert "torch.nn.Identity" in list(_named_in("model", roots()))
