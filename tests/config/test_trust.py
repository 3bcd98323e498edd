import os
import subprocess
import sys
from pkgutil import resolve_name

import pytest

from segbench.config.packaged import conf_root
from segbench.config.trust import (
    KINDS,
    added_targets,
    asked,
    handed_over,
    is_trusted,
    names_in,
    own,
    packaged_targets,
    places_in,
    refuse_handed_over,
    refuse_untrusted,
    targets_in,
    trusting,
    typed,
)
from segbench.errors import SegbenchError
from segbench.runtime.processes import choose_run_id


@pytest.fixture(autouse=True)
def _nothing_allowed(monkeypatch):
    monkeypatch.delenv("SEGBENCH_TARGETS", raising=False)


def test_the_packaged_configs_are_found():
    assert (conf_root() / "train.yaml").is_file()
    assert conf_root().is_absolute()


def test_targets_are_found_at_any_depth():
    nested = {"_target_": "a", "list": [{"_target_": "b"}, [{"x": {"_target_": "c"}}]], "target": "d"}
    assert list(targets_in(nested)) == ["a", "b", "c"]


def test_what_the_packaged_configs_name_is_trusted():
    assert {"segbench.models.unet.UNet", "lightning.Trainer", "albumentations.D4"} <= packaged_targets()
    assert is_trusted("segbench.models.unet.UNet")


@pytest.mark.parametrize(
    "name",
    [
        "torch.optim.RAdam",
        "torch.optim.lr_scheduler.ReduceLROnPlateau",
        "torch.nn.CrossEntropyLoss",
        "torchmetrics.classification.MulticlassAccuracy",
        "albumentations.Blur",
        "lightning.pytorch.callbacks.EarlyStopping",
        "lightning.pytorch.loggers.CSVLogger",
        "lightning.pytorch.strategies.DDPStrategy",
        "lightning.pytorch.profilers.SimpleProfiler",
        "segbench.metrics.pixel.PixelError",
        "segbench.data.synthetic_em.SyntheticEM",
    ],
)
def test_installed_classes_of_the_axes_kinds_are_trusted(name):
    assert is_trusted(name)


@pytest.mark.parametrize(
    "name",
    [
        *("torch.hub.load", "os.system", "builtins.eval", "subprocess.Popen", "torch.load", "pathlib.Path"),
        *("segbench.models.unet", "segbench.experiment.train.train", "nowhere.Net", "torch.nn.Nothing", ""),
    ],
)
def test_nothing_else_is(name):
    assert not is_trusted(name)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_where_it_says(kind):
    found = resolve_name(kind)
    assert f"{found.__module__}.{found.__qualname__}" == kind


def test_a_file_that_shadows_an_installed_package_is_not_installed(tmp_path):
    # Nor is it run.
    (tmp_path / "skimage.py").write_text("open('ran', 'w')\nfrom torch import nn\nclass Net(nn.Module): ...\n")
    code = "from segbench.config.trust import is_trusted; print(is_trusted('skimage.Net'))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
    assert not (tmp_path / "ran").exists()


def test_names_are_trusted_within_a_block_alone():
    with trusting(["mine.Net"]):
        assert is_trusted("mine.Net")
        assert not is_trusted("mine.Net.load")
        assert added_targets() == {"mine.Net"}
    assert not is_trusted("mine.Net")


def test_what_ones_own_configs_name_is_trusted_unless_they_were_read_from_a_file():
    config = {"loss": {"_target_": "torch.hub.load", "inside": [{"_target_": "mine.Loss"}]}}
    with own(config):
        refuse_untrusted(config)
    with handed_over(), own(config):
        assert not is_trusted("mine.Loss")


def test_a_user_trusts_names_by_the_environment(monkeypatch):
    monkeypatch.setenv("SEGBENCH_TARGETS", "mine.Net, mine.loss,")
    assert is_trusted("mine.Net") and is_trusted("mine.loss")
    assert not is_trusted("")


def test_the_error_is_the_command_that_trusts():
    config = [{"_target_": "mine.Net"}, {"_target_": "mine.Loss"}]
    arguments = ["run=a b", "hydra.run.dir=x", "trust=other.Net"]
    command = r"segbench evaluate 'run=a b' hydra\.run\.dir=x 'trust=\[other\.Net,mine\.Net,mine\.Loss\]'$"
    with typed("evaluate", arguments), pytest.raises(SegbenchError, match=command):
        refuse_untrusted(config)
    with pytest.raises(SegbenchError, match=r"set SEGBENCH_TARGETS=mine\.Net"):
        refuse_untrusted(config[:1])


@pytest.mark.parametrize("given", ["a.B,c.D", "[a.B, c.D]", ["a.B", "c.D"]])
def test_names_are_given_in_any_form(given):
    assert names_in(given) == ("a.B", "c.D")


def test_a_run_is_named_once_for_its_children_too(monkeypatch):
    monkeypatch.delenv("SEGBENCH_RUN_ID", raising=False)
    name = choose_run_id()
    assert choose_run_id() == name == os.environ["SEGBENCH_RUN_ID"]
    monkeypatch.delenv("SEGBENCH_RUN_ID")
    assert choose_run_id() != name


PLACES = {
    "callbacks": {"a": {"_target_": "x", "dirpath": "out"}, "b": {"filename": "../x", "monitor": "val/mean_iu"}},
    "logger": {"a": {"tracking_uri": "databricks", "tags": ["a", "file:///x"], "host": None, "save_dir": ""}},
    "loss": {"weight_map": {"folder": "/tmp/x"}},
    "trainer": {"default_root_dir": "/tmp/x", "profiler": "simple"},
    # These are read.
    "data": {"root": "/data"},
    "model": {"path": "/weights"},
    "init_from": "/run",
}


def test_places_that_a_training_writes_to_are_found():
    assert list(places_in(PLACES)) == [
        ("callbacks.a.dirpath", "out"),
        ("callbacks.b.filename", "../x"),
        ("logger.a.tracking_uri", "databricks"),
        ("logger.a.tags", "file:///x"),
        ("loss.weight_map.folder", "/tmp/x"),
    ]


@pytest.mark.parametrize("positional", [["ckpt"], [["/home/x"]], [{"a": ["ckpt"]}, "ckpt"]])
def test_a_positional_argument_may_be_a_place(positional):
    config = {"callbacks": {"a": {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "_args_": positional}}}
    assert {key.partition("._args_")[0] for key, _ in places_in(config)} == {"callbacks.a"}
    with pytest.raises(SegbenchError, match=r"TARGETS=callbacks\.a\._args_"):
        refuse_handed_over([config])


def test_places_inside_lists_of_lists_are_found():
    assert list(places_in({"callbacks": {"a": {"folders": [["x", "../y"]]}}})) == [("callbacks.a.folders", "../y")]


def test_a_name_in_the_command_that_trusts_is_no_command():
    config = {"loss": {"_target_": "a.B; touch c"}}
    with pytest.raises(SegbenchError, match=r"set SEGBENCH_TARGETS='a\.B; touch c'$"):
        refuse_untrusted(config)
    with asked("segbench evaluate run=r"), pytest.raises(SegbenchError, match=r"run=r 'trust=a\.B; touch c'$"):
        refuse_untrusted(config)


def test_places_are_ones_own_or_trusted_by_their_keys():
    config = {"loss": PLACES["loss"]}
    with asked("segbench train resume=RUN"), pytest.raises(SegbenchError, match=r"trust=loss\.weight_map\.folder$"):
        refuse_handed_over([config])
    with own(config):
        refuse_handed_over([config])
        # Children inherit it.
        assert "loss.weight_map.folder" in added_targets()
    with trusting(["loss.weight_map.folder"]):
        refuse_handed_over([config])


@pytest.mark.parametrize("name", ["pip.__main__.main", "os:system", "torch..nn", "torch.nn.Module.__init_subclass__"])
def test_programs_and_odd_names_are_not_looked_up(name):
    assert not is_trusted(name)
