"""The schemas take every packaged config, and refuse what a training would refuse."""

import json

import jsonschema
import pytest
from omegaconf import OmegaConf

from segbench.config.packaged import conf_root
from segbench.config.schema import CONFIG, schemas

WHOLE = ("experiment", "debug", "run_directory", "train.yaml")
FILES = [
    path
    for path in sorted(conf_root().rglob("*.yaml"))
    if path.relative_to(conf_root()).parts[0] not in ("sweep", "hydra")
]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A config directory with a class of the user's own."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "model").mkdir()
    (folder / "model" / "ours.yaml").write_text("_target_: ournet.Net\nside: 3\n")
    (folder / "ournet.py").write_text("class Net:\n    def __init__(self, side: int, *, far: float = 1.0): ...\n")
    return folder


@pytest.fixture(scope="module")
def written(own):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(own)
        made = schemas([conf_root(), own])
    for schema in made.values():
        jsonschema.Draft7Validator.check_schema(schema)
        assert json.dumps(schema)
    return made


def faults(written, name, text):
    tree = OmegaConf.to_container(OmegaConf.create(text))
    return list(jsonschema.Draft7Validator(written[name]).iter_errors(tree))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(conf_root())))
def test_every_packaged_config_fits(path, written):
    group = path.relative_to(conf_root()).parts[0]
    assert faults(written, CONFIG if group in WHOLE else group.removesuffix(".yaml"), path.read_text()) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("optimizer", "{_target_: torch.optim.RAdam, lr: 1e-3, decoupled_weight_decay: true, bias_lr_factor: 2.0}"),
        ("optimizer", "{_target_: mine.Sign, anything: 3}"),
        ("optimizer", "{lr: '${oc.env:LR}', weight_decay: '???'}"),
        ("model", "{_target_: ournet.Net, side: 4}"),
        ("model", "{_target_: segbench.models.wrapped.Wrapped, step: 32, network: {_target_: mine.Net, a: 1}}"),
        ("trainer", "{strategy: {_target_: lightning.pytorch.strategies.DDPStrategy}, max_steps: 3, precision: auto}"),
        ("loss", "{a: {_target_: segbench.losses.CrossEntropy}, b: {_target_: mine.Loss}}"),
        ("callbacks", "{panels: null, mine: {_target_: mine.Callback, note: x}}"),
        (CONFIG, "{defaults: [quickstart, {override /model: unet}], model: {width: 8}, data: {tile: null}, tile: 64}"),
        (CONFIG, "{model: {side: 3}, hydra: {sweeper: {n_trials: 3}}, metrics: {x: null}}"),
    ],
)
def test_what_may_stand_in_a_config(written, name, text):
    assert faults(written, name, text) == []


@pytest.mark.parametrize(
    ("name", "text", "key"),
    [
        ("optimizer", "{_target_: torch.optim.RAdam, momentum: 0.9}", ""),
        ("optimizer", "{_target_: torch.optim.RAdam, weight_decay: much}", "weight_decay"),
        ("optimizer", "{lrr: 0.1}", ""),
        ("model", "{_target_: segbench.models.unet.UNet, width: wide}", "width"),
        ("model", "{_target_: ournet.Net, side: 2.5}", "side"),
        ("model", "{_target_: ournet.Net, sides: 2}", ""),
        ("data", "{batch_size: 0}", "batch_size"),
        ("scheduler", "{interval: never}", "interval"),
        ("trainer", "{max_step: 3}", ""),
        ("trainer", "{max_steps: many}", "max_steps"),
        ("loss", "{_target_: segbench.losses.CrossEntropy, weights: 3}", ""),
        ("augment", "{transforms: [{_target_: albumentations.GaussNoise, std_rang: [0.1, 0.2]}]}", "transforms"),
        ("callbacks", "{panels: {count: few}}", "panels"),
        ("decoding", "{_target_: 3}", "_target_"),
        (CONFIG, "{optimzer: {lr: 1}}", ""),
        (CONFIG, "{optimizer: {lr: fast}}", "optimizer.lr"),
        (CONFIG, "{tta: d8}", "tta"),
        (CONFIG, "{task: {compiled: true}}", "task"),
    ],
)
def test_a_wrong_key_and_a_wrong_value_are_found(written, name, text, key):
    found = faults(written, name, text)
    assert found
    assert any(".".join(map(str, fault.absolute_path)).startswith(key) for fault in found)


def test_the_command_writes_them(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call("schema", "out")
    assert code == 0, err
    assert '".schemas' not in out and '  "out/optimizer.json": "FOLDER/optimizer/*.yaml"' in out
    launcher = json.loads((tmp_path / "out" / "hydra_launcher.json").read_text())
    sweeper = json.loads((tmp_path / "out" / "hydra_sweeper.json").read_text())
    hydra = conf_root() / "hydra"
    for schema, files in ((launcher, hydra.glob("launcher/*.yaml")), (sweeper, hydra.glob("sweeper/*.yaml"))):
        for path in files:
            jsonschema.Draft7Validator(schema).validate(OmegaConf.to_container(OmegaConf.load(path)))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"launcher": {"slurm": {"partitions": "x"}}}, launcher)
    assert "no folder nowhere" in call("schema", "out", "--config-dir", "nowhere")[2]
