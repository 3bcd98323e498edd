"""Every experiment composes, says what it is, and agrees with the published rows and with its own stages."""

import inspect
import re
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from segbench.cli.list import options
from segbench.config.packaged import conf_root
from segbench.experiment.stages import names
from segbench.losses.rate import loss_rate_mismatch
from segbench.models import fcn
from segbench.models.published.sets import WEIGHT_SETS
from segbench.training.optim import sgd

HEADERS = options("experiment", [conf_root()])
FCN = sorted(name for name in HEADERS if name.startswith("fcn") and not name.endswith("_cpu"))
"""Those of a paper."""
OWN_SCORES = ("pixel_acc", "mean_acc", "mean_iu", "fw_iu", "geometric/pixel_acc", "rand_error", "pixel_error")
"""Scores that a run computes on the split that the row is of."""
OTHERS = ("fcn_voc_test", "fcn_voc_pytorch")
"""Rows of FCNs without an experiment: the test servers' scores of fcn8s_voc_cvpr, and another reproduction."""
ON = "_voc_sample_cpu"
STAGES_ALONE = {"fcn32s_sift_flow", "fcn16s_sift_flow", "fcn32s_sift_flow_cvpr"}
SPLIT = {"VOC": 375 * 500, "NYUDv2": 425 * 560, "SIFT": 256 * 256, "context": 375 * 500}
"""Pixels of an image."""
RECALLED = {
    "fcn_pascal_context": [
        {"method": "FCN-32s", "pixel_acc": 0.655, "mean_acc": 0.491, "mean_iu": 0.367},
        {"method": "FCN-16s", "pixel_acc": 0.669, "mean_acc": 0.513, "mean_iu": 0.384},
        {"method": "FCN-8s", "pixel_acc": 0.675, "mean_acc": 0.523, "mean_iu": 0.391},
    ],
}
"""Published, but not among the collected rows."""


@pytest.fixture(scope="module")
def published():
    path = Path(__file__).resolve().parents[3] / "shared" / "papers" / "results.yaml"
    if not path.is_file():
        pytest.skip(f"no published rows in {path}")
    return RECALLED | yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def experiments(compose):
    """Composed as the headers' commands say."""
    commands = {name: _said(header, "Command").split()[3:] for name, header in HEADERS.items()}
    return {name: compose(f"name={name}", *overrides) for name, overrides in commands.items()}


@pytest.mark.parametrize("name", HEADERS)
def test_the_header_says_what_how_how_long_and_what_comes_out(name):
    header = HEADERS[name]
    assert len(header) >= 4
    assert re.match(rf"Command: +segbench train( experiment={name}( |$)|$)", _said(header, "Command"))
    assert len(_said(header, "Cost")) > 15
    assert len(_said(header, "Expected")) > 15
    assert not any(len(line) > 118 for line in header)


def _said(header, what):
    (line,) = [line for line in header if line.startswith(f"{what}:")]
    return line


@pytest.mark.parametrize("name", HEADERS)
def test_it_composes_with_its_row_and_its_numbers(name, experiments, published):
    config = experiments[name]
    paper = config.tree["paper"]
    if paper is None:
        assert name not in FCN or name in STAGES_ALONE
        return
    (row,) = [row for row in published[paper["row"]] if row["method"] == paper["method"]]
    if "column" in paper:
        # The table has a column a data set, of one score.
        row = dict.fromkeys(paper["metrics"], row[paper["column"]])
    # With several heads a score bears its head's name; the paper's of the semantic classes bear none.
    ours = {key.removeprefix("semantic/"): value for key, value in paper["metrics"].items()}
    assert {key: value for key, value in row.items() if key in OWN_SCORES} == {
        key: value for key, value in ours.items() if key in OWN_SCORES
    }
    assert any("/" in key for key in paper["metrics"]) == ("sift_flow" in name)
    # Table 2 of the U-Net paper has a column a data set, where a run has a score.
    assert set(paper["metrics"].values()) <= set(row.values())
    expected = " ".join(line for line in HEADERS[name])
    if name.startswith("fcn"):
        assert paper["source"]
        for value in paper["metrics"].values():
            assert f"{value:.3f}" in expected, "the header's numbers are the row's"


def test_every_row_of_an_fcn_has_its_experiment(experiments, published):
    rows = {
        (group, row["method"])
        for group, rows in published.items()
        for row in rows
        if row["method"].startswith("FCN") and group not in OTHERS
    }
    have = [(c.paper.row, c.paper.method) for name, c in experiments.items() if name in FCN and c.paper]
    assert sorted(have) == sorted(rows)


@pytest.mark.parametrize("name", FCN)
def test_an_fcn_is_trained_as_its_protocol_says(name, experiments):
    config = experiments[name]
    optimizer, trainer, data = config.optimizer, config.trainer, config.data
    heavy = config.loss_of("semantic").reduction == "sum"
    assert heavy == (not name.endswith("_cvpr") and name != "fcn_alexnet_voc")
    assert (optimizer.bias_lr_factor, optimizer.bias_weight_decay, optimizer.weight_decay) == (2, 0, 5e-4)
    assert optimizer.momentum == (0.99 if heavy else 0.9)
    assert config.augment.transforms == []
    assert (data.tile, data.hold_out, data.partial, data.repeats) == (None, 0, False, 1)
    assert data.batch_size * trainer.accumulate_grad_batches == (1 if heavy else 20)
    assert config.model.upsampling == ("intermediate" if name.endswith("_cvpr") else "fixed")
    if name.endswith("_cvpr"):
        assert (trainer.max_epochs, trainer.max_steps) == (175, -1)
    else:
        long = any(each in name for each in ("nyudv2", "sift_flow", "pascal_context", "at_once"))
        assert trainer.max_steps == (300_000 if long else 100_000)


RATES = {
    **{"fcn32s_voc": 1e-10, "fcn16s_voc": 1e-12, "fcn8s_voc": 1e-14, "fcn8s_at_once_voc": 1e-10},
    **{"fcn_alexnet_voc": 1e-4, "fcn32s_voc_cvpr": 1e-4, "fcn16s_voc_cvpr": 1e-6, "fcn8s_voc_cvpr": 1e-8},
    **{"fcn_alexnet_voc2011_cvpr": 1e-3, "fcn_vgg16_voc2011_cvpr": 1e-4, "fcn_googlenet_voc2011_cvpr": 5e-5},
    **{"fcn32s_nyudv2_rgb": 1e-10, "fcn32s_nyudv2_rgbd": 1e-10, "fcn32s_nyudv2_hha": 1e-10},
    **{"fcn32s_nyudv2_rgb_hha": 1e-12, "fcn32s_sift_flow": 1e-10, "fcn16s_sift_flow": 1e-12, "fcn8s_sift_flow": 1e-12},
    **{"fcn32s_pascal_context": 1e-10, "fcn16s_pascal_context": 1e-12, "fcn8s_pascal_context": 1e-14},
}


@pytest.mark.parametrize("name", RATES)
def test_the_published_rates(name, experiments):
    assert experiments[name].optimizer.lr == RATES[name]


@pytest.mark.parametrize("name", FCN)
def test_its_rate_fits_its_loss_and_not_the_other(name, experiments):
    config = experiments[name]
    side = next(pixels for key, pixels in SPLIT.items() if key.lower() in name.replace("sift_flow", "sift"))
    pixels = side * config.data.batch_size
    optimizer = sgd(nn.Conv2d(1, 1, 1), lr=config.optimizer.lr, momentum=config.optimizer.momentum)
    own = config.loss_of("semantic").reduction
    assert loss_rate_mismatch(own, optimizer, pixels) is None
    assert loss_rate_mismatch("mean" if own == "sum" else "sum", optimizer, pixels) is not None


@pytest.mark.parametrize("name", FCN)
def test_its_weights_are_of_its_backbone_and_those_of_the_paper(name, experiments, compose):
    config = experiments[name]
    weights = WEIGHT_SETS[config.weights.name]
    backbone = next((b for b in ("alexnet", "googlenet") if b in config.model.target), "vgg16")
    assert (weights.kind, weights.architecture) == ("ImageNet", backbone)
    path = compose(f"experiment={name}", f"name={name}").weights.path
    assert path == str(Path.cwd() / "data" / "weights" / f"{weights.name}.caffemodel")
    assert config.paper is None or config.paper.weights == weights.name


@pytest.mark.parametrize("name", FCN)
def test_its_stages_exist_and_differ_from_it_in_the_net_and_its_rate_alone(name, experiments):
    config = experiments[name]
    before = names(config)
    finer = not re.search(r"fcn32s|at_once|alexnet|googlenet|vgg16", name) or "rgb_hha" in name
    assert bool(before) == finer
    assert set(before) <= set(HEADERS)
    for stage in (experiments[other] for other in before):
        assert stage.data.target == config.data.target
        assert (stage.loss, stage.weights) == (config.loss, config.weights)
        own, earlier = config.tree["optimizer"], stage.tree["optimizer"]
        assert own.pop("lr") <= earlier.pop("lr")
        assert own == earlier


def test_the_stages_on_the_sample_differ_in_the_net_the_rate_and_the_steps_alone(experiments):
    trees = [experiments[f"fcn{stride}s_voc_sample_cpu"].tree for stride in (32, 16, 8)]
    assert [tree["optimizer"].pop("lr") for tree in trees] == [1e-4, 5e-5, 5e-5]
    assert [tree["trainer"].pop("max_steps") for tree in trees] == [1400, 300, 300]
    assert [tree.pop("stages") for tree in trees] == [None, [f"fcn32s{ON}"], [f"fcn32s{ON}", f"fcn16s{ON}"]]
    for tree in trees:
        del tree["name"], tree["model"]["_target_"]
        assert tree == trees[0]
        assert tree["weights"] is tree["paper"] is None


def test_late_fusion_starts_from_one_net_a_modality(experiments):
    for name in ("fcn32s_nyudv2_rgb_hha", "fcn32s_nyudv2_rgb_hha_cvpr"):
        config = experiments[name]
        assert config.data.modalities == list(config.stages) == ["rgb", "hha"]
        for modality, stage in config.stages.items():
            assert experiments[stage].data.modalities == [modality]
    assert experiments["fcn16s_nyudv2_rgb_hha_cvpr"].stages == ["fcn32s_nyudv2_rgb_hha_cvpr"]


@pytest.mark.parametrize("name", FCN)
def test_its_network_can_be_built_and_its_patterns_name_layers(name, experiments):
    config = experiments[name]
    build = getattr(fcn, config.model.name)
    assert set(config.model.arguments) <= set(inspect.signature(fcn.FCN).parameters)
    options = {key: config.model.arguments[key] for key in ("fusion", "upsampling", "dropout")}
    modalities = {"rgb": 3, "hha": 3, "depth": 1}
    channels = {m: modalities[m] for m in config.data.arguments.get("modalities", ["rgb"])}
    classes = {"semantic": 33, "geometric": 3} if "sift" in name else 60 if "context" in name else 21
    with torch.device("meta"):
        network = build(num_classes=classes, in_channels=channels, width=0.05, **options)
    layers = {name for name, _ in network.named_modules()}
    patterns = [*(config.optimizer.bias_layers or []), *(config.task.train_only or [])]
    assert set(patterns) <= layers
    assert bool(config.task.train_only) == ("fixed" in name)


def test_shared_parts_are_no_experiments_of_their_own():
    assert not any(name.startswith("_") for name in HEADERS)
