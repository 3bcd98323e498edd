from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import segbench.models
from segbench.errors import SegbenchError
from segbench.models.published.load import WEIGHT_SETS, load, transfer
from segbench.models.unet import UNet

WIDTH = 1 / 64
IMAGE = (1, 3, 23, 34)


def build(name, *arguments, **options):
    return getattr(segbench.models, name)(*arguments, **{"width": WIDTH} | options).eval()


def drawn(model, seed=0):
    """A stand-in for a trained network: nothing in it is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("upscore"):
                spread = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return model


def blobs_of(model):
    """{layer: arrays}, as Caffe keeps a network: fixed kernels and scales too."""
    layers = {}
    for name, value in model.state_dict().items():
        layers.setdefault(name.rpartition(".")[0], []).append(value.numpy())
    if hasattr(model, "computed_blobs"):
        for name, value in model.computed_blobs().items():
            layers[name.rpartition(".")[0]] = [value().numpy()]
    return layers


def classifier_of(model, rest, legacy=False):
    """The ImageNet net that an FCN was made of: fc6 and fc7 as matrices, other layers beside them."""
    layers = {
        name: arrays for name, arrays in blobs_of(model).items() if not name.startswith(("score", "upscore", "scale"))
    }
    for name in ("fc6", "fc7"):
        if name in layers:
            kernel, bias = layers[name]
            layers[name] = [kernel.reshape(len(kernel), -1), bias]
    return layers | {name: [np.ones((10, 4), np.float32), np.ones(10, np.float32)] for name in rest}


@pytest.fixture
def save(tmp_path, caffemodel_bytes):
    def write(layers, generation=2, **options):
        path = tmp_path / "some.caffemodel"
        path.write_bytes(caffemodel_bytes(layers, generation, **options))
        return path

    return write


def same(ours, theirs, images=None):
    image = torch.randn(IMAGE, generator=torch.Generator().manual_seed(9))
    expected = theirs(images or image)
    given = ours(images or image)
    pairs = [(given[head], expected[head]) for head in expected] if isinstance(expected, dict) else [(given, expected)]
    return all(torch.equal(a, b) and b.abs().max() > 1e-4 for a, b in pairs)


# ImageNet nets


@pytest.mark.parametrize(
    ("weight_set", "name", "rest"),
    [
        ("VGG_ILSVRC_16_layers", "fcn32s", ["fc8"]),
        ("VGG_ILSVRC_16_layers", "fcn8s_at_once", ["fc8"]),
        ("bvlc_reference_caffenet", "fcn_alexnet", ["fc8"]),
        ("bvlc_googlenet", "fcn_googlenet", ["loss1/conv", "loss1/fc", "loss2/classifier", "loss3/classifier"]),
    ],
)
@pytest.mark.parametrize("generation", [1, 2])
def test_an_imagenet_net_fills_the_trunk_and_the_report_names_the_rest(save, weight_set, name, rest, generation):
    source, model = drawn(build(name)), build(name)
    path = save(classifier_of(source, rest), generation, old_shape=generation == 1)
    report = load(model, weight_set, path)
    for layer, value in model.state_dict().items():
        trunk = not layer.startswith("score_")
        assert (layer in report.loaded) == trunk
        assert (layer in report.drawn) == (not trunk)
        assert torch.equal(value, source.state_dict()[layer] if trunk else torch.zeros_like(value))
    assert report.left_over == tuple(f"{layer}.{blob}" for layer in rest for blob in ("weight", "bias"))
    assert f"left over: {rest[0]}.weight" in str(report)
    assert "expects rgb: BGR from 0 to 255, less 10" in str(report)


def test_fully_connected_rows_become_kernels_in_caffes_order(save):
    source, model = drawn(build("fcn32s")), build("fcn32s")
    layers = classifier_of(source, ["fc8"])
    load(model, "VGG_ILSVRC_16_layers", save(layers, 1, old_shape=True))
    features = torch.randn(1, model.fc6.in_channels, 7, 7)
    matrix, bias = map(torch.from_numpy, layers["fc6"])
    torch.testing.assert_close(model.fc6(features).flatten(), matrix @ features.flatten() + bias)


def test_a_fourth_channel_gets_the_mean_filter(save):
    source = drawn(build("fcn32s"))
    model = build("fcn32s", in_channels={"rgb": 3, "depth": 1})
    report = load(model, "VGG_ILSVRC_16_layers", save(classifier_of(source, ["fc8"])))
    assert "conv1_1_bgrd.weight" in report.loaded
    kernel = source.conv1_1.weight
    torch.testing.assert_close(model.conv1_1_bgrd.weight, torch.cat([kernel, kernel.mean(1, keepdim=True)], 1))
    assert torch.equal(model.conv1_1_bgrd.bias, source.conv1_1.bias)


def test_both_streams_of_late_fusion_start_from_one_file(save):
    source = drawn(build("fcn32s"))
    model = build("fcn32s", in_channels={"rgb": 3, "hha": 3}, fusion="late")
    report = load(model, "VGG_ILSVRC_16_layers", save(classifier_of(source, ["fc8"])), channel_order="RGB")
    assert len(report.loaded) == 2 * 30
    assert set(report.drawn) == {
        f"score_fr{stream}.{blob}" for stream in ("color", "hha") for blob in ("weight", "bias")
    }
    assert report.left_over == ("fc8.weight", "fc8.bias")
    # HHA has no colours to turn round.
    assert torch.equal(model.conv1_1color.weight, source.conv1_1.weight.flip(1))
    assert torch.equal(model.conv1_1hha.weight, source.conv1_1.weight)
    assert torch.equal(model.conv5_3hha.weight, source.conv5_3.weight)


@pytest.mark.parametrize("in_channels", [3, 4])
def test_filters_turned_round_give_the_same_on_rgb(save, in_channels):
    path = save(classifier_of(drawn(build("fcn32s")), ["fc8"]))
    bgr, rgb = (build("fcn32s", 2, in_channels) for _ in range(2))
    load(bgr, "VGG_ILSVRC_16_layers", path, channel_order="BGR")
    report = load(rgb, "VGG_ILSVRC_16_layers", path, channel_order="RGB")
    assert "reversed to take RGB" in str(report)
    image = torch.randn(1, in_channels, 9, 9)
    other = torch.cat([image[:, :3].flip(1), image[:, 3:]], 1)
    first = "conv1_1" if in_channels == 3 else "conv1_1_bgrd"
    torch.testing.assert_close(rgb.get_submodule(first)(other), bgr.get_submodule(first)(image))


def test_torchvisions_file_is_a_named_deviation(tmp_path):
    source, model = drawn(build("fcn16s")), build("fcn16s")
    numbers = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    trunk = [name for name in source.state_dict() if name.startswith("conv") and name.endswith("weight")]
    entries = {"classifier.6.weight": torch.ones(10, 4), "classifier.6.bias": torch.ones(10)}
    for theirs, ours in [
        *((f"features.{number}", name.removesuffix(".weight")) for number, name in zip(numbers, trunk, strict=True)),
        ("classifier.0", "fc6"),
        ("classifier.3", "fc7"),
    ]:
        layer = source.get_submodule(ours)
        weight = layer.weight.flatten(1) if ours.startswith("fc") else layer.weight
        entries |= {f"{theirs}.weight": weight.detach().clone(), f"{theirs}.bias": layer.bias.detach().clone()}
    path = tmp_path / "vgg16-397923af.pth"
    torch.save(entries, path, _use_new_zipfile_serialization=False)
    report = load(model, "torchvision-vgg16", path)
    assert report.left_over == ("classifier.6.weight", "classifier.6.bias")
    for name in report.loaded:
        assert torch.equal(model.state_dict()[name], source.state_dict()[name])
    assert len(report.loaded) == 30
    assert "deviation: VGG16 of torchvision, not of the papers" in str(report)
    assert "RGB from 0 to 1, less 0.485, 0.456, 0.406, over 0.229, 0.224, 0.225" in str(report)


# Released nets

RELEASED = [
    ("fcn32s-heavy-pascal", "fcn32s", 21, 3, "early"),
    ("fcn16s-heavy-pascal", "fcn16s", 21, 3, "early"),
    ("fcn8s-heavy-pascal", "fcn8s", 21, 3, "early"),
    ("fcn8s-atonce-pascal", "fcn8s_at_once", 21, 3, "early"),
    ("fcn-alexnet-pascal", "fcn_alexnet", 21, 3, "early"),
    ("nyud-fcn32s-color-heavy", "fcn32s", 40, 3, "early"),
    ("nyud-fcn32s-hha-heavy", "fcn32s", 40, {"hha": 3}, "early"),
    ("nyud-fcn32s-color-hha-heavy", "fcn32s", 40, {"rgb": 3, "hha": 3}, "late"),
    ("siftflow-fcn32s-heavy", "fcn32s", {"semantic": 33, "geometric": 3}, 3, "early"),
    ("siftflow-fcn16s-heavy", "fcn16s", {"semantic": 33, "geometric": 3}, 3, "early"),
    ("siftflow-fcn8s-heavy", "fcn8s", {"semantic": 33, "geometric": 3}, 3, "early"),
    ("pascalcontext-fcn32s-heavy", "fcn32s", 60, 3, "early"),
    ("pascalcontext-fcn16s-heavy", "fcn16s", 60, 3, "early"),
    ("pascalcontext-fcn8s-heavy", "fcn8s", 60, 3, "early"),
]


@pytest.mark.parametrize(("weight_set", "name", "classes", "channels", "fusion"), RELEASED)
def test_a_released_net_fills_everything(save, weight_set, name, classes, channels, fusion):
    source = drawn(build(name, classes, channels, fusion=fusion))
    path = save(blobs_of(source))
    model = build(name, classes, channels, fusion=fusion)
    report = load(model, weight_set, path)
    assert report.loaded == tuple(model.state_dict())
    assert report.drawn == report.left_over == ()
    assert set(report.checked) == set(source.computed_blobs())
    images = {"rgb": torch.randn(IMAGE), "hha": torch.randn(IMAGE)} if fusion == "late" else None
    assert same(model, source, images)
    learnable = build(name, classes, channels, fusion=fusion, upsampling="learnable")
    report = load(learnable, weight_set, path)
    assert set(report.loaded) == set(learnable.state_dict())
    assert not [name for name in report.checked if name.startswith("up")]


def test_the_registry_holds_the_papers_nets_and_says_what_they_expect():
    assert len(WEIGHT_SETS) == 4 + len(RELEASED) + 1
    assert {name for name, *_ in RELEASED} <= set(WEIGHT_SETS)
    assert all(name == weight_set.name for name, weight_set in WEIGHT_SETS.items())
    late = WEIGHT_SETS["nyud-fcn32s-color-hha-heavy"]
    assert late.url == "http://dl.caffe.berkeleyvision.org/nyud-fcn32s-color-hha-heavy.caffemodel"
    assert late.inputs["rgb"].in_grey_levels("RGB") == ((92.318, 97.203, 116.190), (1, 1, 1))
    assert late.inputs["hha"].in_grey_levels() == ((132.431, 94.076, 118.477), (1, 1, 1))
    mean, std = WEIGHT_SETS["torchvision-vgg16"].inputs["rgb"].in_grey_levels("BGR")
    assert mean == pytest.approx((103.53, 116.28, 123.675))
    assert std == pytest.approx((57.375, 57.12, 58.395))


def test_one_stream_starts_from_a_trained_net_of_its_modality(save):
    color, hha = drawn(build("fcn32s", 40), 1), drawn(build("fcn32s", 40), 2)
    late = build("fcn32s", 40, {"rgb": 3, "hha": 3}, fusion="late")
    first = load(late, "nyud-fcn32s-color-heavy", save(blobs_of(color)), stream="rgb")
    second = load(late, "nyud-fcn32s-hha-heavy", save(blobs_of(hha)), stream="hha")
    assert all(name.partition(".")[0].endswith("color") for name in first.loaded)
    assert set(first.loaded) | set(second.loaded) == set(late.state_dict())
    assert first.drawn == second.drawn == ()
    images = {"rgb": torch.randn(IMAGE), "hha": torch.randn(IMAGE)}
    torch.testing.assert_close(late(images), (color(images["rgb"]) + hha(images["hha"])) / 2)


def test_phseg_v5_fills_the_released_unet(save):
    source, model = drawn(UNet(1, 2, width=2, variant="phseg_v5")), UNet(1, 2, width=2, variant="phseg_v5")
    layers = blobs_of(source)
    # Their names: '-' between the maps of a convolution, '_' between those of an up-convolution.
    theirs = {n if n.startswith("up") else f"{n[:8]}-{n[9:]}": blobs for n, blobs in layers.items()}
    assert {"conv_d0a-b", "conv_u0d-score", "upconv_d4c_u3a"} <= set(theirs)
    report = load(model, "phseg_v5", save(theirs))
    assert set(report.loaded) == set(model.state_dict())
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in model.state_dict().items())


# From one stage to the next


def test_each_stage_begins_as_the_one_before_it():
    stages = [drawn(build("fcn32s")), build("fcn16s"), build("fcn8s")]
    first, second = (transfer(finer, coarser.state_dict(), source="runs/1") for coarser, finer in pairwise(stages))
    assert first.drawn == ("score_pool4.weight", "score_pool4.bias")
    assert second.drawn == ("score_pool3.weight", "score_pool3.bias")
    assert first.left_over == second.left_over == ()
    assert len(second.loaded) == 34
    assert str(second).startswith("weights of runs/1: 34 loaded\n  drawn: score_pool3.weight")
    sixteen, eight = stages[1:]
    # With skips at zero, both upsample the same scores: the output of 32s by two or three bilinear steps.
    assert not eight.score_pool3.weight.any()
    assert torch.equal(eight.score_fr.weight, stages[0].score_fr.weight)
    assert torch.equal(sixteen.fc6.weight, stages[0].fc6.weight)


def test_learnt_upsampling_is_carried_where_it_has_a_place_and_left_over_where_it_has_none():
    coarse = build("fcn16s", upsampling="learnable")
    nn.init.normal_(coarse.upscore2.weight)
    fine = build("fcn8s", upsampling="learnable")
    report = transfer(fine, coarse.state_dict())
    assert report.left_over == ("upscore16.weight",)
    assert set(report.drawn) == {"score_pool3.weight", "score_pool3.bias", "upscore_pool4.weight", "upscore8.weight"}
    assert torch.equal(fine.upscore2.weight, coarse.upscore2.weight)
    with pytest.raises(
        SegbenchError, match=r"upscore2\.weight differs from what this network computes \(build the network"
    ):
        transfer(build("fcn8s"), coarse.state_dict())


def test_late_fusion_takes_its_streams_from_state_dicts():
    trained = drawn(build("fcn16s", 4))
    late = build("fcn16s", 4, {"rgb": 3, "hha": 3}, fusion="late")
    report = transfer(late, trained.state_dict(), stream="hha")
    assert torch.equal(late.score_pool4hha.weight, trained.score_pool4.weight)
    assert not late.score_pool4color.weight.any()
    assert all(name.partition(".")[0].endswith("hha") for name in report.loaded)


def test_a_state_dict_of_pytorch_fcn_fits():
    # Its FCN8s keeps dense bilinear kernels as parameters, under the authors' names.
    theirs = drawn(build("fcn8s", upsampling="learnable"))
    model = build("fcn8s")
    report = transfer(model, theirs.state_dict())
    assert set(report.checked) == {"upscore2.weight", "upscore_pool4.weight", "upscore8.weight"}
    image = torch.randn(IMAGE)
    torch.testing.assert_close(model(image), theirs(image))


def test_half_precision_weights_are_taken():
    trained, model = drawn(build("fcn32s")), build("fcn32s")
    transfer(model, {name: value.bfloat16() for name, value in trained.state_dict().items()})
    assert torch.equal(model.conv1_2.weight, trained.conv1_2.weight.bfloat16().float())


# What does not fit


def test_other_classes_are_refused_unless_their_layers_are_left(save):
    path = save(blobs_of(drawn(build("fcn32s", 21))))
    model = build("fcn32s", 5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        SegbenchError, match=r"score_fr\.weight is 21x64x1x1, score_fr\.weight 5x64x1x1; score_fr\.bias"
    ):
        load(model, "fcn32s-heavy-pascal", path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    report = load(model, "fcn32s-heavy-pascal", path, leave=["score_fr", "upscore"])
    assert report.drawn == ("score_fr.weight", "score_fr.bias")
    assert set(report.left_over) == {"score_fr.weight", "score_fr.bias", "upscore.weight"}
    with pytest.raises(SegbenchError, match="no layer score_f to leave"):
        load(build("fcn32s"), "fcn32s-heavy-pascal", path, leave=["score_f"])


@pytest.mark.parametrize(
    ("weight_set", "model", "message"),
    [
        ("VGG_ILSVRC_16_layers", lambda: build("fcn_alexnet"), "for alexnet\n  expected: a network of vgg16"),
        ("bvlc_googlenet", lambda: build("fcn8s"), "for vgg16\n  expected: a network of googlenet"),
        ("fcn8s-heavy-pascal", lambda: build("fcn8s_at_once"), "for fcn8s_at_once\n  expected: a network of fcn8s"),
        ("fcn32s-heavy-pascal", lambda: build("fcn16s"), "a network of fcn32s\n.*load.transfer"),
        ("phseg_v5", lambda: UNet(width=1, depth=1), "for unet paper\n  expected: a network of unet phseg_v5"),
        ("fcn8s-heavy-pascal", lambda: nn.Linear(1, 1), "for Linear"),
        ("vgg19", lambda: build("fcn8s"), "unknown weights 'vgg19'\n  expected: one of VGG_ILSVRC_16_layers, "),
    ],
)
def test_another_architecture_is_refused_before_the_file_is_read(tmp_path, weight_set, model, message):
    with pytest.raises(SegbenchError, match=message):
        load(model(), weight_set, tmp_path / "none.caffemodel")


def test_a_missing_layer_is_refused(save):
    layers = blobs_of(drawn(build("fcn8s")))
    del layers["conv3_2"]
    with pytest.raises(SegbenchError, match=r"nothing for conv3_2\.weight; nothing for conv3_2\.bias"):
        load(build("fcn8s"), "fcn8s-heavy-pascal", save(layers))


def test_an_unknown_layer_is_refused(save):
    layers = blobs_of(drawn(build("fcn8s"))) | {"conv9": [np.ones(3, np.float32)] * 3}
    message = r"conv9\.weight has no place; conv9\.bias has no place; conv9\.blob2 has no place"
    with pytest.raises(SegbenchError, match=message):
        load(build("fcn8s"), "fcn8s-heavy-pascal", save(layers))


def test_a_staged_net_is_not_taken_for_an_at_once_one(save):
    staged, at_once = blobs_of(drawn(build("fcn8s"))), blobs_of(drawn(build("fcn8s_at_once")))
    with pytest.raises(SegbenchError, match=r"no scale_pool4\.weight; no scale_pool3\.weight"):
        load(build("fcn8s_at_once"), "fcn8s-atonce-pascal", save(staged))
    with pytest.raises(SegbenchError, match=r"scale_pool4\.weight has no place"):
        load(build("fcn8s"), "fcn8s-heavy-pascal", save(at_once))
    at_once["scale_pool3"] = [np.full_like(at_once["scale_pool3"][0], 0.001)]
    with pytest.raises(SegbenchError, match=r"scale_pool3\.weight differs from what this network computes"):
        load(build("fcn8s_at_once"), "fcn8s-atonce-pascal", save(at_once))


def test_kernels_that_are_not_bilinear_are_refused_by_fixed_upsampling(save):
    layers = blobs_of(drawn(build("fcn32s")))
    layers["upscore"] = [layers["upscore"][0] * 1.01]
    path = save(layers)
    with pytest.raises(
        SegbenchError, match=r"upscore\.weight differs from .* \(build the network with upsampling=learnable\)"
    ):
        load(build("fcn32s"), "fcn32s-heavy-pascal", path)
    model = build("fcn32s", upsampling="learnable")
    load(model, "fcn32s-heavy-pascal", path)
    assert torch.equal(model.upscore.weight, torch.from_numpy(layers["upscore"][0]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(save, bad):
    layers = blobs_of(drawn(build("fcn32s")))
    layers["conv2_2"][1] = layers["conv2_2"][1].copy()
    layers["conv2_2"][1][0] = bad
    with pytest.raises(SegbenchError, match=r"conv2_2\.bias holds NaN or infinite values"):
        load(build("fcn32s"), "fcn32s-heavy-pascal", save(layers))


def test_a_matrix_is_cut_into_kernels_only_where_the_net_says_so(save):
    layers = blobs_of(drawn(build("fcn32s")))
    layers["fc6"][0] = layers["fc6"][0].reshape(len(layers["fc6"][0]), -1)
    with pytest.raises(SegbenchError, match=r"fc6\.weight is 64x392, fc6\.weight 64x8x7x7"):
        load(build("fcn32s"), "fcn32s-heavy-pascal", save(layers))


def test_a_long_list_of_misfits_is_cut(save):
    with pytest.raises(SegbenchError, match=r"; and \d+ more\n"):
        load(build("fcn32s", width=1 / 16), "fcn32s-heavy-pascal", save(blobs_of(drawn(build("fcn32s")))))


def test_a_grey_net_takes_no_colour_filters(save):
    path = save(classifier_of(drawn(build("fcn32s")), ["fc8"]))
    with pytest.raises(SegbenchError, match=r"conv1_1\.weight is 1x3x3x3, conv1_1\.weight 1x1x3x3"):
        load(build("fcn32s", in_channels=1), "VGG_ILSVRC_16_layers", path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stream": "depth"}, "stream=depth\n  expected: one of rgb, hha"),
        ({"channel_order": "RBGA"}, "channel_order=RBGA for nyud-fcn32s-color-heavy"),
    ],
)
def test_wrong_options_are_named(options, message):
    model = build("fcn32s", 40, {"rgb": 3, "hha": 3}, fusion="late")
    with pytest.raises(SegbenchError, match=message):
        load(model, "nyud-fcn32s-color-heavy", "none.caffemodel", **options)


def test_streams_and_colours_must_be_there():
    with pytest.raises(SegbenchError, match="none: the network has one stream"):
        transfer(build("fcn32s"), {}, stream="rgb")
    with pytest.raises(SegbenchError, match="channel_order=RGB for nyud-fcn32s-hha-heavy"):
        load(build("fcn32s", 40), "nyud-fcn32s-hha-heavy", "none.caffemodel", channel_order="RGB")


def test_a_broken_torch_file_is_named(tmp_path):
    path = tmp_path / "vgg16.pth"
    with pytest.raises(SegbenchError, match=r"no file .*vgg16\.pth"):
        load(build("fcn8s"), "torchvision-vgg16", path)
    path.write_bytes(b"not a state dict")
    with pytest.raises(SegbenchError, match=r"vgg16\.pth cannot be read"):
        load(build("fcn8s"), "torchvision-vgg16", path)
    torch.save([1, 2], path)
    with pytest.raises(SegbenchError, match="is not a state dict"):
        load(build("fcn8s"), "torchvision-vgg16", path)


def test_a_coarser_net_does_not_take_a_finer_one():
    with pytest.raises(SegbenchError, match=r"a state dict: score_pool4\.weight has no place"):
        transfer(build("fcn32s"), build("fcn16s").state_dict())
