from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segbench.config.record import InitialWeights
from segbench.errors import SegbenchError
from segbench.experiment.initialise import initialise
from segbench.inference.stream import predict_image
from segbench.models import FCNResNet
from segbench.spec import TileGeometry

WIDTH = 1 / 32


def net(*arguments, **options):
    """With running statistics, scales and shifts that are not those of a fresh network."""
    torch.manual_seed(0)
    model = FCNResNet(*arguments, **{"width": WIDTH} | options).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.0)
    return model


@pytest.mark.parametrize(("depth", "blocks"), [(50, (3, 4, 6, 3)), (101, (3, 4, 23, 3))])
def test_the_whole_net(depth, blocks):
    with torch.device("meta"):
        model = FCNResNet(3, 21, depth)
    # A 7x7 convolution; per block 1x1, 3x3 and 1x1, each with two numbers per channel of its normalisation.
    expected, channels = 64 * 3 * 49 + 2 * 64, 64
    for stage, count in enumerate(blocks):
        c = 64 * 2**stage
        expected += channels * 4 * c + 2 * 4 * c
        for _ in range(count):
            expected += channels * c + 9 * c * c + c * 4 * c + 2 * (c + c + 4 * c)
            channels = 4 * c
    # The classification net of that depth has 2048 * 1000 + 1000 more.
    assert expected + 2_049_000 == {50: 25_557_032, 101: 44_549_160}[depth]
    expected += 2048 * 512 * 9 + 2 * 512 + 512 * 21 + 21
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    # torchvision counts its second classifier too: 1024 * 256 * 9 + 2 * 256 + 256 * 21 + 21.
    assert expected + 2_365_205 == {50: 35_322_218, 101: 54_314_346}[depth]


def plainly(state, image):
    """The network written out from its weights."""

    def norm(name, x):
        mean, var, scale, shift = (
            state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, scale, shift)

    x = F.relu(norm("backbone.bn1", F.conv2d(image, state["backbone.conv1.weight"], stride=2, padding=3)))
    x = F.max_pool2d(x, 3, 2, 1)
    dilations = [[1] * 3, [1] * 4, [1, *[2] * 5], [2, 4, 4]]
    for stage, of_blocks in enumerate(dilations, 1):
        for block, dilation in enumerate(of_blocks):
            name = f"backbone.layer{stage}.{block}"
            stride = 2 if (stage, block) == (2, 0) else 1
            kept = x
            if block == 0:
                kept = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride)
                kept = norm(f"{name}.downsample.1", kept)
            x = F.relu(norm(f"{name}.bn1", F.conv2d(x, state[f"{name}.conv1.weight"])))
            x = F.conv2d(x, state[f"{name}.conv2.weight"], stride=stride, padding=dilation, dilation=dilation)
            x = norm(f"{name}.bn3", F.conv2d(F.relu(norm(f"{name}.bn2", x)), state[f"{name}.conv3.weight"]))
            x = F.relu(x + kept)
    x = F.relu(norm("classifier.1", F.conv2d(x, state["classifier.0.weight"], padding=1)))
    x = F.conv2d(x, state["classifier.4.weight"], state["classifier.4.bias"])
    return F.interpolate(x, image.shape[-2:], mode="bilinear", align_corners=False)


def test_it_computes_what_its_layout_says():
    model, image = net(3, 5), torch.randn(2, 3, 37, 50)
    with torch.no_grad():
        torch.testing.assert_close(model(image), plainly(model.state_dict(), image))


def test_tiles_give_the_whole_image():
    model = net(1, 3)
    assert model.geometry == TileGeometry(step=8, context=237)
    image = torch.randn(1, 16, 640)
    whole = predict_image(model, {"em": image}, ["cell"])["cell"]
    torch.testing.assert_close(predict_image(model, {"em": image}, ["cell"], tile=80)["cell"], whole)
    model.geometry = replace(model.geometry, context=8)
    assert not torch.allclose(predict_image(model, {"em": image}, ["cell"], tile=80)["cell"], whole)


def test_several_modalities_and_heads():
    model = net({"rgb": 3, "depth": 1}, {"semantic": 4, "geometric": 3})
    with torch.no_grad():
        logits = model({"rgb": torch.randn(1, 3, 16, 24), "depth": torch.randn(1, 1, 16, 24)})
    assert {name: tuple(value.shape) for name, value in logits.items()} == {
        "semantic": (1, 4, 16, 24),
        "geometric": (1, 3, 16, 24),
    }


@pytest.fixture(scope="module")
def torchvision_files(tmp_path_factory):
    """Files with torchvision's names: its FCN with the second classifier, and its classification net."""
    state, folder = net(3, 5).state_dict(), tmp_path_factory.mktemp("torchvision")
    torch.save(state | {"aux_classifier.0.weight": torch.zeros(2, 2, 3, 3)}, folder / "fcn.pth")
    trunk = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    torch.save(trunk | {"fc.weight": torch.zeros(10, 64), "fc.bias": torch.zeros(10)}, folder / "resnet.pth")
    return folder, state


def started(model, path, *leave):
    (report,) = initialise(model, InitialWeights(path=str(path), leave=list(leave)))
    return report


def test_the_files_of_torchvision(torchvision_files):
    folder, state = torchvision_files
    torch.manual_seed(9)
    whole = FCNResNet(3, 5, width=WIDTH)
    assert "left over: aux_classifier.0.weight" in started(whole, folder / "fcn.pth")
    assert all(torch.equal(value, state[name]) for name, value in whole.state_dict().items())
    trunk = FCNResNet(3, 7, width=WIDTH)
    report = started(trunk, folder / "resnet.pth")
    assert "left over: backbone.fc.weight, backbone.fc.bias" in report and "drawn: classifier.0.weight" in report
    assert all(
        torch.equal(value, state[name]) for name, value in trunk.state_dict().items() if name.startswith("backbone")
    )


def test_other_classes_and_other_images(torchvision_files):
    folder, state = torchvision_files
    with pytest.raises(SegbenchError, match=r"classifier.4.weight is 5x16x1x1, classifier.4.weight 7x16x1x1"):
        started(FCNResNet(3, 7, width=WIDTH), folder / "fcn.pth")
    report = started(FCNResNet(3, 7, width=WIDTH), folder / "fcn.pth", "classifier.4")
    assert "drawn: classifier.4.weight, classifier.4.bias" in report
    grey, four = FCNResNet(1, 5, width=WIDTH), FCNResNet(4, 5, width=WIDTH)
    first = state["backbone.conv1.weight"]
    started(grey, folder / "fcn.pth")
    torch.testing.assert_close(grey.backbone.conv1.weight.data, first.sum(1, keepdim=True))
    started(four, folder / "fcn.pth")
    torch.testing.assert_close(four.backbone.conv1.weight.data, torch.cat([first, first.mean(1, keepdim=True)], 1))
    with pytest.raises(SegbenchError, match=r"conv1.weight is 2x3x7x7, backbone.conv1.weight 2x5x7x7"):
        started(FCNResNet(5, 5, width=WIDTH), folder / "fcn.pth")


def test_what_it_refuses(tmp_path):
    with pytest.raises(SegbenchError, match=r"model\.depth=34"):
        FCNResNet(depth=34)
    with pytest.raises(SegbenchError, match="no file"):
        started(net(), tmp_path / "none.pth")


@pytest.mark.networks
@pytest.mark.parametrize("depth", [50, 101])
def test_equal_to_torchvision(depth, tmp_path, package):
    segmentation = package("torchvision.models.segmentation")
    build = getattr(segmentation, f"fcn_resnet{depth}")
    reference = build(weights=None, weights_backbone=None, num_classes=21, aux_loss=True).eval()
    torch.save(reference.state_dict(), tmp_path / "fcn.pth")
    model = FCNResNet(3, 21, depth).eval()
    started(model, tmp_path / "fcn.pth")
    image = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        torch.testing.assert_close(model(image), reference(image)["out"])
