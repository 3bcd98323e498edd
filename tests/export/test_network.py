"""Every network of ours becomes a file that takes every size which the network takes."""

import numpy as np
import pytest
import torch
from torch import nn

from segbench.config.record import Component, Config
from segbench.errors import SegbenchError
from segbench.export.description import describe
from segbench.export.formats import FORMATS
from segbench.export.network import AnySides, ByName, takes_any_sides, trace
from segbench.inference.forward import geometry_of
from segbench.inference.stream import predict_image
from segbench.models import FCN, SlidingWindow, UNet, UNetVGG16
from segbench.spec import TileGeometry

WIDTH = 1 / 64
CONFIG = Config.model_construct(name="x", model=Component(target="x"))


def written(model, spec, format_, folder, size=None):
    """The network, and a function that runs its file."""
    network, geometry = ByName(model, spec).eval(), geometry_of(model)
    height, width = size or (geometry.input_for(33), geometry.input_for(50))
    example = {name: torch.zeros(2, m.channels, height, width) for name, m in spec.modalities.items()}
    path = folder / f"model.{format_}"
    description = describe(CONFIG, spec, geometry, "last", 7, size)
    FORMATS[format_].write(trace(network, example, geometry, size), description, path)
    return network, FORMATS[format_].open(path)


def same(network, run, spec, batch, height, width):
    generator = torch.Generator().manual_seed(height)
    images = {
        name: torch.randn(batch, m.channels, height, width, generator=generator) for name, m in spec.modalities.items()
    }
    with torch.no_grad():
        expected = network(images)
    found = run({name: image.numpy() for name, image in images.items()})
    assert list(found) == list(expected) == list(spec.heads)
    for head, scores in expected.items():
        assert scores.abs().max() > 0.01
        np.testing.assert_allclose(found[head], scores.numpy(), rtol=0, atol=2e-5 * max(1, scores.abs().max().item()))
    return next(iter(found.values())).shape[2:]


def padded(scenes, trained):
    spec = scenes("depth")
    model = trained(UNet(1, 3, width=2, depth=2, padding="same", norm="batch"))
    return spec, model, AnySides(ByName(model, spec), geometry_of(model).step).eval()


@pytest.mark.parametrize("sides", [(1, 1), (1, 9), (13, 6), (16, 16)])
def test_a_padded_network_takes_any_sides_and_scores_as_predict_does(scenes, trained, sides):
    _, model, network = padded(scenes, trained)
    image_CHW = torch.randn(1, *sides, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = network({"depth": image_CHW[None]})["semantic"][0].softmax(0)
    expected = predict_image(model, {"depth": image_CHW}, ("semantic",))["semantic"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("format_", FORMATS)
def test_a_file_of_a_padded_network_takes_any_sides(scenes, trained, tmp_path, format_):
    spec, model, network = padded(scenes, trained)
    geometry = geometry_of(model)
    path, description = tmp_path / f"model.{format_}", describe(CONFIG, spec, geometry, "last", 7, None, True)
    example = {"depth": torch.zeros(2, 1, 33, 50)}
    FORMATS[format_].write(trace(network, example, TileGeometry(), None), description, path)
    run = FORMATS[format_].open(path)
    for batch, height, width in ((1, 97, 131), (3, 1, 1), (2, 96, 128)):
        assert same(network, run, spec, batch, height, width) == (height, width)


def test_which_networks_are_padded_in_the_graph():
    assert takes_any_sides(TileGeometry(step=16, context=90))
    for geometry in (TileGeometry(), TileGeometry(step=16, offset=60, margin=92, minimum=8)):
        assert not takes_any_sides(geometry)


FCNS = {
    **{f"fcn{stride}s": ("vgg16", stride) for stride in (32, 16, 8)},
    "fcn_alexnet": ("alexnet", 32),
    "fcn_googlenet": ("googlenet", 32),
}


@pytest.mark.slow
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("name", [*FCNS, "fcn8s_at_once", "learnable"])
def test_an_fcn_takes_any_size(scenes, trained, tmp_path, name, format_):
    backbone, stride = FCNS.get(name, ("vgg16", 8))
    options = {"fcn8s_at_once": {"at_once": True}, "learnable": {"upsampling": "learnable"}}.get(name, {})
    spec = scenes("rgb")
    network, run = written(trained(FCN(backbone, stride, 3, 3, width=WIDTH, **options)), spec, format_, tmp_path)
    for sides in ((1, 1), (26, 27), (27, 26), (7, 130), (97, 64)):
        assert same(network, run, spec, 1, *sides) == sides
    assert same(network, run, spec, 3, 40, 33) == (40, 33)


@pytest.mark.slow
@pytest.mark.parametrize("format_", FORMATS)
def test_late_fusion_and_two_heads_are_named(scenes, trained, tmp_path, format_):
    spec = scenes("rgb", "hha", heads=2)
    heads = {name: head.num_classes for name, head in spec.heads.items()}
    model = FCN("vgg16", 16, heads, {"rgb": 3, "hha": 3}, fusion="late", width=WIDTH)
    network, run = written(trained(model), spec, format_, tmp_path)
    for sides in ((1, 1), (31, 70)):
        same(network, run, spec, 2, *sides)


@pytest.mark.slow
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("variant", ["paper", "phseg_v5", "same", "vgg16"])
def test_a_unet_takes_every_size_of_its_geometry(scenes, trained, tmp_path, variant, format_):
    spec = scenes("rgb")
    made = {
        "paper": lambda: UNet(3, 3, width=2),
        "phseg_v5": lambda: UNet(3, 3, width=2, variant="phseg_v5"),
        "same": lambda: UNet(3, 3, width=2, padding="same", norm="batch"),
        "vgg16": lambda: UNetVGG16(3, 3, width=WIDTH, norm="batch"),
    }
    model = trained(made[variant]())
    geometry = model.geometry
    network, run = written(model, spec, format_, tmp_path)
    for steps in ((0, 0), (1, 4), (5, 0)):
        sides = [geometry.offset + geometry.step * (geometry.minimum + k) for k in steps]
        assert same(network, run, spec, 2, *sides) == tuple(side - 2 * geometry.margin for side in sides)


@pytest.mark.slow
@pytest.mark.parametrize("format_", FORMATS)
def test_a_sliding_window_takes_images_and_windows(scenes, trained, tmp_path, format_):
    spec = scenes("rgb")
    network, run = written(trained(SlidingWindow(3, 3, 15, (2, 2), maps=3)), spec, format_, tmp_path)
    for sides in ((15, 15), (15, 40), (33, 18)):
        assert same(network, run, spec, 2, *sides) == tuple(side - 14 for side in sides)


def test_a_sliding_window_with_a_lens_is_exported_as_one_window(scenes, trained, tmp_path):
    spec = scenes("rgb")
    model = trained(SlidingWindow(3, 3, 15, (2, 2), maps=3, foveation=1.0))
    with pytest.raises(SegbenchError, match=r"foveation or non-uniform sampling.*\n.*15x15 pixels\n.*size=\[15,15\]"):
        written(model, spec, "pt2", tmp_path)
    network, run = written(model, spec, "pt2", tmp_path, (15, 15))
    assert same(network, run, spec, 2, 15, 15) == (1, 1)


class TwoStreams(nn.Module):
    """Two modalities in, two heads out, any size."""

    geometry = TileGeometry()

    def __init__(self):
        super().__init__()
        self.semantic, self.geometric = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, images):
        both = torch.cat([images["rgb"], images["depth"]], 1)
        return {"geometric": self.geometric(both), "semantic": self.semantic(both)}


@pytest.mark.parametrize("format_", FORMATS)
def test_modalities_and_heads_are_named_in_the_data_sets_order(scenes, tmp_path, format_):
    spec = scenes("rgb", "depth", heads=2)
    network, run = written(TwoStreams(), spec, format_, tmp_path)
    assert same(network, run, spec, 1, 5, 9) == (5, 9)


@pytest.mark.parametrize("format_", FORMATS)
def test_fixed_sides_are_fixed(scenes, tmp_path, format_):
    spec = scenes("rgb", "depth", heads=2)
    network, run = written(TwoStreams(), spec, format_, tmp_path, size=(6, 8))
    assert same(network, run, spec, 3, 6, 8) == (6, 8)
    with pytest.raises(Exception, match=r"dimensions? for input: rgb|Guard failed: images\['rgb'\]"):
        same(network, run, spec, 3, 8, 6)


class Wilful(nn.Module):
    """Its course depends on the image's values."""

    def forward(self, image):
        return image if image.sum() > 0 else -image


class Narrow(nn.Module):
    """It takes sides of 40 alone."""

    def forward(self, image):
        return image.view(-1, 3, 40, 40)


@pytest.mark.parametrize("size", [None, (40, 40)])
def test_a_network_that_cannot_be_followed_is_told(scenes, tmp_path, size):
    with pytest.raises(SegbenchError, match=r"torch\.export cannot follow Wilful: .*\n.*input's values.*\n.*the model"):
        written(Wilful(), scenes("rgb"), "pt2", tmp_path, size)


def test_a_network_of_one_size_is_exported_at_that_size(scenes, tmp_path):
    spec = scenes("rgb")
    with pytest.raises(SegbenchError, match=r"cannot follow Narrow: .*\n.*or sides.*\n.*size=\[512,512\]"):
        written(Narrow(), spec, "pt2", tmp_path)
    network, run = written(Narrow(), spec, "pt2", tmp_path, (40, 40))
    assert same(network, run, spec, 2, 40, 40) == (40, 40)
