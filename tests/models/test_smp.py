"""Against segmentation_models_pytorch itself; the package is not in the default environment (make test-networks)."""

import pytest
import torch

from segbench.config.record import InitialWeights
from segbench.errors import SegbenchError
from segbench.experiment.initialise import initialise
from segbench.models import SMP

pytestmark = pytest.mark.networks
SMALL = {"encoder_depth": 3, "decoder_channels": [16, 8, 4]}


@pytest.fixture(scope="module", autouse=True)
def smp(package):
    return package("segmentation_models_pytorch")


def started(model, path, *leave):
    (report,) = initialise(model, InitialWeights(path=str(path), leave=list(leave)))
    return report


@pytest.mark.parametrize(
    ("architecture", "encoder", "step"),
    [
        *((name, "resnet18", 32) for name in ("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "UPerNet")),
        *(
            ("PAN", "resnet18", 16),
            ("PSPNet", "resnet18", 8),
            ("DeepLabV3", "resnet18", 8),
            ("DeepLabV3Plus", "resnet18", 16),
        ),
        *(("Segformer", "mit_b0", 32), ("unet", "tu-convnext_atto", 32)),
    ],
)
def test_every_architecture_by_name(architecture, encoder, step):
    # Mix transformers ask for numbers while they are built.
    with torch.device("cpu" if encoder == "mit_b0" else "meta"), torch.no_grad():
        model = SMP({"rgb": 3, "depth": 1}, 5, architecture, encoder).eval()
        size = model.geometry.input_for(130)
        images = {"rgb": torch.zeros(1, 3, 160, size), "depth": torch.zeros(1, 1, 160, size)}
        assert model.geometry.step == step
        assert model(images).shape == (1, 5, 160, size)


def test_it_is_the_packages_own_network(smp):
    torch.manual_seed(0)
    theirs = smp.Unet("resnet18", encoder_weights=None, classes=3, **SMALL).eval()
    torch.manual_seed(0)
    ours = SMP(3, 3, "Unet", "resnet18", options=SMALL).eval()
    image = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        assert torch.equal(ours(image), theirs(image))


def test_files_of_the_whole_network_and_of_the_encoder(smp, tmp_path):
    theirs = smp.Unet("resnet18", encoder_weights=None, classes=3, **SMALL)
    torch.save(theirs.state_dict(), tmp_path / "whole.pth")
    head = {"fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}
    torch.save(theirs.encoder.state_dict() | head, tmp_path / "encoder.pth")
    whole = SMP(3, 3, "Unet", "resnet18", options=SMALL)
    started(whole, tmp_path / "whole.pth")
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in whole.network.state_dict().items())
    grey = SMP(1, 2, "Unet", "resnet18", options=SMALL)
    report = started(grey, tmp_path / "encoder.pth")
    assert "left over: network.encoder.fc.weight, network.encoder.fc.bias" in report
    torch.testing.assert_close(
        grey.network.encoder.conv1.weight.data, theirs.encoder.conv1.weight.data.sum(1, keepdim=True)
    )
    with pytest.raises(SegbenchError, match=r"segmentation_head.0.weight is 3x4x3x3, .* 2x4x3x3"):
        started(SMP(3, 2, "Unet", "resnet18", options=SMALL), tmp_path / "whole.pth")
    started(SMP(3, 2, "Unet", "resnet18", options=SMALL), tmp_path / "whole.pth", "network.segmentation_head.0")


def test_a_file_of_timm_for_an_encoder_of_timm(tmp_path, package):
    timm = package("timm")
    classifier = timm.create_model("convnext_atto")
    torch.save(classifier.state_dict(), tmp_path / "timm.pth")
    model = SMP(3, 2, "Unet", "tu-convnext_atto")
    started(model, tmp_path / "timm.pth")
    assert torch.equal(model.network.encoder.model.stem_0.weight, classifier.stem[0].weight)


def test_what_it_refuses():
    for given in ({"architecture": "Vnet"}, {"encoder": "resnet19"}, {"options": {"depth": 9}}):
        with pytest.raises(SegbenchError, match=r"model\.architecture="):
            SMP(3, 2, **given)


def test_mean_and_deviation_are_those_of_its_hub(monkeypatch):
    def settings(encoder, pretrained):
        assert (encoder, pretrained) == ("resnet18", "imagenet")
        return {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "input_space": "RGB"}

    monkeypatch.setattr("segmentation_models_pytorch.encoders.get_preprocessing_params", settings)
    given = {"encoder": "resnet18", "pretrained": "imagenet"}
    settled = SMP.settled(given, None)
    assert settled == given | {"mean": [0.5] * 3, "std": [0.25] * 3}
    # A run that is read back, and weights from a file, ask nothing.
    monkeypatch.setattr("segmentation_models_pytorch.encoders.get_preprocessing_params", None)
    assert SMP.settled(settled, None) == settled and SMP.settled(given, "file.pth") == given
