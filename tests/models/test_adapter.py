import logging
import sys

import pytest
import torch
from torch import nn

from segbench.config.record import Component, InitialWeights
from segbench.errors import SegbenchError
from segbench.experiment.axes import check_network, make_network, network_expects, packages_of_network, settle_network
from segbench.experiment.initialise import initialise
from segbench.models.adapter import Adapter, fetching, package, told, totals
from segbench.models.published.sets import IMAGENET
from segbench.models.published.state_dict import read_state_dict
from segbench.spec import DatasetSpec, HeadSpec, ModalitySpec, TileGeometry


class Thin(Adapter):
    """A convolution of 3x3 and one of 1x1, as a package might give them, and its weights."""

    drawn = ("network.1",)

    def __init__(self, in_channels=3, num_classes=2, pretrained=None, mean=None, std=None):
        channels, classes = totals(in_channels, num_classes)
        network = nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.Conv2d(4, classes, 1))
        super().__init__(network, in_channels, num_classes, pretrained, 8, 16)

    def published_weights(self, path):
        # As much randomness as another network would take.
        torch.rand(100)
        return {"network.0.weight": torch.full((4, 3, 3, 3), 2.0), "network.0.bias": torch.zeros(4)}


def spec_of(**channels):
    modalities = {name: ModalitySpec(c, (1.0,) * c, (2.0,) * c, "value, 0 to 255") for name, c in channels.items()}
    head = HeadSpec(("a", "b"), ((0, 0, 0), (1, 1, 1)))
    return DatasetSpec("drawn", modalities, {"kind": head}, "", "", "")


def test_modalities_are_concatenated_and_scores_divided_among_the_heads():
    model = Thin({"rgb": 3, "depth": 1}, {"semantic": 4, "geometric": 3})
    rgb, depth = torch.randn(1, 3, 8, 16), torch.randn(1, 1, 8, 16)
    both = model.network(torch.cat([rgb, depth], 1))
    logits = model({"rgb": rgb, "depth": depth})
    assert list(logits) == ["semantic", "geometric"]
    assert torch.equal(logits["semantic"], both[:, :4]) and torch.equal(logits["geometric"], both[:, 4:])
    assert model.geometry == TileGeometry(step=8, context=16)
    assert Thin()(torch.zeros(1, 3, 8, 8)).shape == (1, 2, 8, 8)
    with pytest.raises(SegbenchError, match=r"expected: \(B, 3, H, W\)"):
        Thin()(torch.zeros(1, 1, 8, 8))


def test_its_weights_are_read_when_a_training_begins_and_draw_nothing():
    torch.manual_seed(3)
    model = Thin(pretrained="imagenet")
    drawn, following = model.network[0].weight.clone(), torch.rand(1)
    torch.manual_seed(3)
    model = Thin(pretrained="imagenet")
    assert torch.equal(model.network[0].weight, drawn)
    (report,) = initialise(model, None)
    assert torch.equal(torch.rand(1), following)
    assert report.startswith("weights of imagenet: 2 loaded\n  drawn: network.1.weight, network.1.bias")
    assert torch.equal(model.network[0].weight, torch.full((4, 3, 3, 3), 2.0))
    assert initialise(Thin(), None) == ["weights: all drawn"]
    (report,) = initialise(Thin(), InitialWeights(path="a.pth"))
    assert report.startswith("weights of a.pth: 2 loaded")


def test_grey_images_take_the_sum_of_three_filters_and_others_are_refused():
    grey = Thin(1, pretrained="imagenet")
    initialise(grey, None)
    assert torch.equal(grey.network[0].weight, torch.full((4, 1, 3, 3), 6.0))
    with pytest.raises(SegbenchError, match=r"network.0.weight is 4x3x3x3, network.0.weight 4x2x3x3"):
        initialise(Thin(2, pretrained="imagenet"), None)


@pytest.mark.parametrize(
    ("arguments", "weights", "mean"),
    [
        ({}, None, None),
        ({}, InitialWeights(name="VGG_ILSVRC_16_layers", path="a"), None),
        ({}, InitialWeights(path="a.pth"), IMAGENET.mean),
        ({"pretrained": "imagenet"}, None, IMAGENET.mean),
        ({"pretrained": "imagenet", "mean": [0.5] * 3, "std": [0.25] * 3}, None, (0.5,) * 3),
    ],
)
def test_what_its_weights_expect_is_known_without_building_it(arguments, weights, mean, monkeypatch):
    monkeypatch.setattr("segbench.experiment.axes.kind_of", lambda component: Thin)
    found = network_expects(Component.model_validate({"_target_": "x.Thin", **arguments}), weights)
    assert (found and found.mean) == mean


def test_what_only_a_hub_knows_is_settled_once(compose, monkeypatch):
    asked = []

    class Asking(Thin):
        @classmethod
        def settled(cls, arguments, path):
            asked.append(path)
            return dict(arguments) | {"mean": [0.5] * 3}

    monkeypatch.setattr("segbench.experiment.axes.kind_of", lambda component: Asking)
    config = compose("name=x", "model=smp", "weights.path=a.pth")
    settled = settle_network(config)
    assert settled.model.arguments == config.model.arguments | {"mean": [0.5] * 3}
    assert [path.endswith("a.pth") for path in asked] == [True]
    # Named weights are another mechanism's.
    named = compose("name=x", "model=smp", "weights.path=a.pth", "weights.name=VGG_ILSVRC_16_layers")
    assert settle_network(named) is named
    monkeypatch.setattr("segbench.experiment.axes.kind_of", lambda component: nn.Identity)
    assert settle_network(config) is config


def test_a_network_of_monais_signature_gets_its_names():
    class Theirs(nn.Conv2d):
        def __init__(self, spatial_dims, in_channels, out_channels):
            super().__init__(in_channels, out_channels, 1)
            self.spatial_dims = spatial_dims

    component = Component.model_validate({"_target_": f"{__name__}.Theirs"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segbench.experiment.axes.kind_of", lambda component: Theirs)
        patch.setattr("segbench.experiment.axes.make", lambda component, **given: Theirs(**given))
        model = make_network(component, spec_of(rgb=3))
    assert (model.spatial_dims, model.in_channels, model.out_channels) == (2, 3, 2)


def test_a_wrapped_network_is_sized_by_the_data_and_tried():
    given = {"_target_": "segbench.models.unet.UNet", "width": 4, "depth": 1, "padding": "same"}
    wrapped = {"_target_": "segbench.models.wrapped.Wrapped", "step": 2, "network": given}
    component, spec = Component.model_validate(wrapped), spec_of(rgb=3)
    model = make_network(component, spec)
    assert model.network.conv_d0a_b.in_channels == 3 and model.network.conv_u0d_score.out_channels == 2
    assert check_network(component, model, spec, (7, 9)) == "output of Wrapped: one tensor"
    with pytest.raises(SegbenchError, match=r"Wrapped: an input side of 7 pixels|Wrapped fails.*set model.step="):
        check_network(component, make_network(Component.model_validate(wrapped | {"step": 1}), spec), spec, (7, 9))


def test_the_packages_that_build_a_network_are_known_without_them():
    found = {
        name: packages_of_network(Component.model_validate({"_target_": f"segbench.models.{name}"}))
        for name in ("UNet", "HF", "SMP", "TimmUNet")
    }
    smp = ("segmentation_models_pytorch", "timm")
    assert found == {"UNet": (), "HF": ("transformers",), "SMP": smp, "TimmUNet": ("timm",)}


def test_a_missing_package_is_told_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(SegbenchError, match=r"pip install 'segbench\[smp\]'"):
        package("segmentation_models_pytorch", "smp")


def test_what_a_package_raises_is_told_and_a_broken_torchvision_left_to_its_own_sentence():
    with pytest.raises(SegbenchError, match=r"model.encoder=x: KeyError: 'no x'"), told("model.encoder=x", "y", "z"):
        raise KeyError("no x")
    with pytest.raises(RuntimeError, match=r"torchvision::nms"), told("a", "b", "c"):
        raise RuntimeError("operator torchvision::nms does not exist")


def test_a_hub_out_of_reach_is_one_sentence_with_its_remedy(caplog):
    log = logging.getLogger("huggingface_hub")
    with pytest.raises(SegbenchError, match=r"the weights nvidia/mit-b0 cannot be fetched") as caught:
        with fetching("nvidia/mit-b0"):
            log.warning("Retrying in 1s")
            raise ConnectionError("no route")
    assert "weights.path=FILE" in caught.value.action and caplog.records == []
    log.warning("heard again")
    assert len(caplog.records) == 1


def test_state_dicts_are_read_and_nothing_else(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    assert read_state_dict(tmp_path / "a.pth")["a"] == 1
    torch.save([1], tmp_path / "b.pth")
    with pytest.raises(SegbenchError, match=r"b.pth is not a state dict"):
        read_state_dict(tmp_path / "b.pth")
