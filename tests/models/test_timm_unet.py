"""Over encoders of timm, which is not in the default environment (make test-networks)."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from segbench.config.record import InitialWeights
from segbench.errors import SegbenchError
from segbench.experiment.initialise import initialise
from segbench.models import TimmUNet

pytestmark = pytest.mark.networks


@pytest.fixture(scope="module", autouse=True)
def timm(package):
    return package("timm")


@pytest.mark.parametrize(
    ("encoder", "step", "own_levels"),
    [
        # Maps at 2, 4, 8, 16 and 32: the image's own size is missing.
        ("resnet10t", 32, [0]),
        # Maps at 4, 8, 16 and 32; of swin by pixel, and made for 224 x 224.
        ("convnext_atto", 32, [0, 1]),
        ("swin_tiny_patch4_window7_224", 32, [0, 1]),
        # All maps at 16.
        ("vit_tiny_patch16_224", 16, [0, 1, 2, 3]),
        # Maps at 1 to 32.
        ("vgg11", 32, []),
    ],
)
def test_any_encoder_that_gives_maps(encoder, step, own_levels):
    with torch.device("meta"):
        model = TimmUNet(2, 5, encoder, width=4)
        assert model.geometry.step == step
        names = dict(model.network.named_children())
        assert [level for level in range(5) if f"conv_d{level}a_b" in names] == own_levels
    model = TimmUNet(2, 5, encoder, width=4).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 2, 64, 96)).shape == (1, 5, 64, 96)


def test_it_computes_a_u_net_over_the_maps():
    torch.manual_seed(0)
    model = TimmUNet(3, 2, "convnext_atto", width=4, norm=False).eval()
    image, net = torch.randn(1, 3, 32, 64), model.network

    def conv(name, x, padding=1):
        layer = getattr(net, name)
        return F.conv2d(x, layer.weight, layer.bias, padding=padding)

    def two(level, letters, x):
        for a, b in pairwise(letters):
            x = F.relu(conv(f"conv_{level}{a}_{b}", x))
        return x

    with torch.no_grad():
        maps = net.encoder(image)
        skips = [two("d0", "abc", image), two("d1", "abc", F.avg_pool2d(image, 2)), *maps[:-1]]
        up, below = maps[-1], "d5c"
        for level in reversed(range(5)):
            layer = getattr(net, f"upconv_{below}_u{level}a")
            up = F.conv_transpose2d(up, layer.weight, layer.bias, stride=2)
            up = two(f"u{level}", "bcd", torch.cat([up, skips[level]], 1))
            below = f"u{level}d"
        torch.testing.assert_close(model(image), conv("conv_u0d_score", up, 0))


def test_a_file_of_timm_fills_the_encoder(timm, tmp_path):
    classifier = timm.create_model("convnext_atto")
    torch.save(classifier.state_dict(), tmp_path / "timm.pth")
    model, grey = TimmUNet(3, 2, "convnext_atto", width=4), TimmUNet(1, 2, "convnext_atto", width=4)
    for each in (model, grey):
        (report,) = initialise(each, InitialWeights(path=str(tmp_path / "timm.pth")))
        assert "drawn: network.conv_d0a_b.weight" in report and "drawn: network.encoder" not in report
    kernel = classifier.stem[0].weight.data
    assert torch.equal(model.network.encoder.stem_0.weight, kernel)
    torch.testing.assert_close(grey.network.encoder.stem_0.weight.data, kernel.sum(1, keepdim=True))


def test_mean_and_deviation_are_timms():
    given = {"encoder": "vit_tiny_patch16_224", "pretrained": "augreg_in21k_ft_in1k"}
    settled = TimmUNet.settled(given, None)
    assert settled["mean"] == settled["std"] == [0.5, 0.5, 0.5]
    assert TimmUNet.settled({"encoder": "vit_tiny_patch16_224"}, "file.pth")["mean"] == [0.5, 0.5, 0.5]
    assert TimmUNet.settled({"encoder": "resnet18"}, None) == {"encoder": "resnet18"}


def test_what_it_refuses():
    for given in ({"encoder": "resnet19"}, {"options": {"nothing": 1}}):
        with pytest.raises(SegbenchError, match=r"model\.encoder="):
            TimmUNet(3, 2, **given)
    with pytest.raises(SegbenchError, match="maps at a 14th of the image"):
        TimmUNet(3, 2, "vit_small_patch14_dinov2", options={"img_size": 56})
