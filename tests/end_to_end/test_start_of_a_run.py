"""An experiment starts from a published file: what goes where, in which channel order and scale, and what is said."""

from pathlib import Path

import numpy as np
import pytest
import torch

from segbench.config.record import Component, InitialWeights, Recorded
from segbench.data.nyudv2 import MODALITIES
from segbench.errors import SegbenchError
from segbench.experiment.build import build_dataset, build_model
from segbench.experiment.initialise import initialise
from segbench.experiment.train import train
from segbench.models import fcn8s, fcn32s
from segbench.runs.directory import Run
from segbench.spec import DatasetSpec, HeadSpec

WIDTH = 1 / 32
VGG = "VGG_ILSVRC_16_layers"


def nyud_spec(*modalities):
    chosen = {name: MODALITIES[name] for name in modalities}
    head = HeadSpec(tuple("abcd"), ((0, 0, 0),) * 4)
    return DatasetSpec("nyudv2", chosen, {"semantic": head}, "", "", "")


def network(*modalities, fusion="early"):
    """As a run builds it: a number of channels for one modality, numbers by name for several."""
    component = Component(target="segbench.models.fcn.fcn32s", width=WIDTH, fusion=fusion)
    return build_model(component, nyud_spec(*modalities))


@pytest.fixture(scope="session")
def vgg16(tmp_path_factory, caffemodel_bytes):
    """A VGG16 of 1/32 of the channels as its authors' file, and its layers."""
    torch.manual_seed(0)
    layers = {}
    for name, value in fcn32s(width=WIDTH).state_dict().items():
        if not name.startswith("score"):
            layers.setdefault(name.rpartition(".")[0], []).append(value.numpy())
    for name in ("fc6", "fc7"):
        layers[name][0] = layers[name][0].reshape(len(layers[name][0]), -1)
    file = layers | {"fc8": [np.ones((10, 4), np.float32), np.ones(10, np.float32)]}
    path = tmp_path_factory.mktemp("weights") / f"{VGG}.caffemodel"
    path.write_bytes(caffemodel_bytes(file, generation=1))
    return path, {name: torch.tensor(arrays[0]) for name, arrays in layers.items()}


@pytest.fixture
def started():
    """`started(model, path, *modalities)`: what is said of a start from the weights in a file."""

    def start(model, path, *modalities, name=VGG, init_from=None, intended=None):
        return initialise(model, InitialWeights(name=name, path=str(path)), init_from, modalities, intended)

    return start


def test_colours_come_as_rgb_so_their_filters_are_turned_round(started, vgg16):
    path, file = vgg16
    model = network("rgb")
    (report,) = started(model, path, "rgb")
    assert torch.equal(model.conv1_1.weight, file["conv1_1"].flip(1))
    assert torch.equal(model.conv1_2.weight, file["conv1_2"])
    assert "drawn: score_fr.weight, score_fr.bias" in report
    assert "left over: fc8.weight, fc8.bias" in report
    assert "BGR from 0 to 255, less 103.939, 116.779, 123.68; its first filters were reversed to take RGB" in report


def test_hha_is_never_turned_round(started, vgg16):
    path, file = vgg16
    alone = network("hha")
    (report,) = started(alone, path, "hha")
    assert torch.equal(alone.conv1_1.weight, file["conv1_1"])
    assert "reversed" not in report
    late = network("rgb", "hha", fusion="late")
    started(late, path, "rgb", "hha")
    assert torch.equal(late.conv1_1hha.weight, file["conv1_1"])
    assert torch.equal(late.conv1_1color.weight, file["conv1_1"].flip(1))


def test_depth_gets_the_mean_of_the_three(started, vgg16):
    path, file = vgg16
    model = network("rgb", "depth")
    started(model, path, "rgb", "depth")
    assert torch.equal(model.conv1_1_bgrd.weight[:, :3], file["conv1_1"].flip(1))
    assert torch.allclose(model.conv1_1_bgrd.weight[:, 3], file["conv1_1"].mean(1))


def test_a_file_that_is_not_there_is_named_with_its_address(started):
    with pytest.raises(
        SegbenchError,
        match=rf"no file data/weights/x\.caffemodel \(weights\.path\).*\n.*{VGG}, published at http://www\.robots\.ox"
        r".*\n.*weights\.path=FILE; weights=null draws all weights, a deviation from the paper",
    ):
        started(network("rgb"), "data/weights/x.caffemodel", "rgb")


@pytest.mark.parametrize("missing", [{"name": VGG, "path": None}, {"path": "x"}])
def test_half_a_setting_is_refused(missing):
    with pytest.raises(SegbenchError, match=r"weights without (path|name)\n.*\n.*weights=null"):
        initialise(network("rgb"), InitialWeights(**missing))


def test_weights_of_another_architecture_are_refused(started, vgg16):
    model = build_model(Component(target="segbench.models.fcn.fcn_alexnet", width=WIDTH), nyud_spec("rgb"))
    with pytest.raises(SegbenchError, match=rf"weights {VGG} for alexnet\n.*a network of vgg16"):
        started(model, vgg16[0], "rgb")


def test_whole_nets_of_another_modality_are_refused(started, vgg16):
    with pytest.raises(SegbenchError, match=r"nyud-fcn32s-hha-heavy for images of rgb\n.*images of hha, which"):
        started(network("rgb"), vgg16[0], "rgb", name="nyud-fcn32s-hha-heavy")


def test_a_start_other_than_the_papers_is_called_a_deviation(started, vgg16):
    assert not any("deviation" in report for report in started(network("rgb"), vgg16[0], "rgb", intended=VGG))
    drawn = initialise(network("rgb"), None, intended=VGG)
    assert drawn == ["weights: all drawn", f"deviation: starts from drawn weights, the paper's network from {VGG}"]


@pytest.fixture
def trained_rgb(tmp_path):
    """A run directory with a trained single-stream net."""
    run = Run.create(tmp_path / "rgb", Recorded.of({"name": "rgb"}), [])
    run.release()
    model = network("rgb")
    state = {f"model.{name}": torch.full_like(value, 0.5) for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, "global_step": 1}, run.checkpoints / "last.ckpt")
    return str(run.path)


def test_a_stream_without_a_run_takes_the_published_weights_or_is_said_to_be_drawn(started, vgg16, trained_rgb):
    path, file = vgg16
    model = network("rgb", "hha", fusion="late")
    published, transferred = started(model, path, "rgb", "hha", init_from={"rgb": trained_rgb})
    assert torch.equal(model.conv1_1hha.weight, file["conv1_1"])
    assert model.conv1_1color.weight.eq(0.5).all()
    assert VGG in published and trained_rgb in transferred
    late = network("rgb", "hha", fusion="late")
    said = initialise(late, None, {"rgb": trained_rgb}, ("rgb", "hha"))
    assert said[-1] == "weights: all drawn for hha"


def test_a_run_to_start_from_replaces_published_weights(started, trained_rgb):
    model = network("rgb")
    (report,) = started(model, "nowhere.caffemodel", "rgb", init_from=trained_rgb)
    assert trained_rgb in report
    assert model.conv1_1.weight.eq(0.5).all()


def test_a_config_with_torchvisions_weights_is_normalised_so(compose, shared_voc):
    given = compose("experiment=fcn32s_voc", "name=x", "weights.name=torchvision-vgg16", *shared_voc)
    modality = build_dataset(given.data, given.weights).spec.modalities["rgb"]
    assert modality.mean == pytest.approx((123.675, 116.28, 103.53))
    assert modality.std == pytest.approx((58.395, 57.12, 57.375))


@pytest.fixture
def shared_voc(tmp_path):
    """Overrides for three real test images, where the machine has them."""
    root = Path(__file__).resolve().parents[3] / "shared" / "data" / "voc2012"
    if not root.is_dir():
        pytest.skip(f"no VOC sample in {root}")
    lists = root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation"
    (tmp_path / "three.txt").write_text("\n".join((lists / "val.txt").read_text().split()[:3]))
    return [
        f"data.root={root}",
        "data.partial=true",
        "data.train=voc2012_train",
        f"data.test={tmp_path / 'three.txt'}",
        f"model.width={WIDTH}",
        "data.num_workers=0",
        "trainer=cpu",
        "trainer.precision=32-true",
        "task.channels_last=false",
        "threads=1",
    ]


def test_an_experiment_runs_from_a_file_of_its_weights_on_real_images(compose, shared_voc, vgg16, tmp_path):
    path, file = vgg16
    given = ["experiment=fcn32s_voc", "name=fcn32s_voc", f"weights.path={path}", "trainer.max_steps=2", *shared_voc]
    scores = train(compose(*given), tmp_path / "run", given)
    log = (tmp_path / "run" / "run.log").read_text()
    for said in (
        "input rgb: R, G, B, 0 to 255, less 122.679, 116.669, 104.007",
        f"weights of {VGG} ({path}): 30 loaded",
        "drawn: score_fr.weight, score_fr.bias",
        "left over: fc8.weight, fc8.bias",
        "reversed to take RGB",
    ):
        assert said in log
    assert "warning" not in log and "deviation" not in log
    assert 0 <= scores["test/mean_iu"] <= 1
    trained = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    moved = (trained["model.conv1_1.weight"] - file["conv1_1"].flip(1)).abs().max()
    assert 0 < moved < 1e-3


def test_a_released_net_is_scored_without_a_step(compose, shared_voc, caffemodel_bytes, tmp_path):
    torch.manual_seed(1)
    net = fcn8s(width=WIDTH)
    layers = {}
    for name, value in net.state_dict().items():
        if name.startswith("score"):
            # Background everywhere.
            value = torch.tensor([9.0] + [0.0] * 20) if name.endswith("bias") else value
        layers.setdefault(name.rpartition(".")[0], []).append(value.numpy())
    layers |= {name.rpartition(".")[0]: [value().numpy()] for name, value in net.computed_blobs().items()}
    path = tmp_path / "fcn8s-heavy-pascal.caffemodel"
    path.write_bytes(caffemodel_bytes(layers))
    given = ["experiment=fcn8s_voc", "name=x", "stages=null", "weights.name=fcn8s-heavy-pascal", f"weights.path={path}"]
    scores = train(compose(*given, "trainer.max_steps=0", *shared_voc), tmp_path / "run", given)
    config = compose(*given, *shared_voc)
    dataset = build_dataset(config.data, config.weights)
    labels = [dataset.split("test").read(index).labels["semantic"] for index in range(3)]
    labelled = np.concatenate([label[label != 255] for label in labels])
    assert scores["test/pixel_acc"] == pytest.approx((labelled == 0).mean())
    stored = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert stored["global_step"] == 0
    assert torch.equal(stored["state_dict"]["model.conv1_1.weight"], net.conv1_1.weight.flip(1))
