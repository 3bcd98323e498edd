import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import segbench.models
from segbench.errors import SegbenchError
from segbench.models.fcn import FCN

VGG16_NETS = ["fcn32s", "fcn16s", "fcn8s", "fcn8s_at_once"]
NETS = [*VGG16_NETS, "fcn_alexnet", "fcn_googlenet"]


def build(name, *arguments, **options):
    return getattr(segbench.models, name)(*arguments, **options)


def drawn(model: FCN, seed=0):
    """Biases and scores start at zero, where no test would see them: draw them too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias") or name.startswith(("score_", "upscore")):
                spread = 0.1 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return model.eval()


# Names, sizes, initial weights


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("fcn32s", 134_346_581),
        ("fcn16s", 134_357_354),
        ("fcn8s", 134_362_751),
        ("fcn8s_at_once", 134_362_751),
        ("fcn_alexnet", 56_954_261),
        ("fcn_googlenet", 5_995_077),
    ],
)
def test_parameter_counts_at_21_classes(name, parameters):
    with torch.device("meta"):
        model = build(name, 21)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model.architecture == name


def test_learnable_upsampling_adds_dense_kernels():
    def count(upsampling):
        with torch.device("meta"):
            model = build("fcn8s", upsampling=upsampling)
        return sum(parameter.numel() for parameter in model.parameters())

    assert count("intermediate") - count("fixed") == 21 * 21 * 2 * 4 * 4
    assert count("learnable") - count("intermediate") == 21 * 21 * 16 * 16


TRUNK = (
    "conv1_1 conv1_2 conv2_1 conv2_2 conv3_1 conv3_2 conv3_3 conv4_1 conv4_2 conv4_3 conv5_1 conv5_2 conv5_3 fc6 fc7"
).split()


def entries(layers, upsampling=()):
    return {f"{layer}.{blob}" for layer in layers for blob in ("weight", "bias")} | {
        f"{up}.weight" for up in upsampling
    }


@pytest.mark.parametrize(
    ("name", "scores", "upsampling"),
    [
        ("fcn32s", ["score_fr"], ["upscore"]),
        ("fcn16s", ["score_fr", "score_pool4"], ["upscore2", "upscore16"]),
        ("fcn8s", ["score_fr", "score_pool4", "score_pool3"], ["upscore2", "upscore_pool4", "upscore8"]),
    ],
)
def test_state_dicts_bear_the_authors_names(name, scores, upsampling):
    with torch.device("meta"):
        assert set(build(name).state_dict()) == entries([*TRUNK, *scores])
        assert set(build(name, upsampling="learnable").state_dict()) == entries([*TRUNK, *scores], upsampling)
        assert set(build(name, upsampling="intermediate").state_dict()) == entries([*TRUNK, *scores], upsampling[:-1])


def test_scores_start_at_zero_and_convolutions_as_he_proposes():
    torch.manual_seed(0)
    model = build("fcn8s", width=1 / 8, upsampling="learnable")
    for name, module in model.named_modules():
        if name.startswith("score_"):
            assert not module.weight.any()
        elif isinstance(module, nn.Conv2d):
            nodes = module.weight[0].numel()
            # Four standard errors of a standard deviation's estimate.
            expected = (2 / nodes) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=4 / (2 * module.weight.numel()) ** 0.5)
        if isinstance(module, nn.Conv2d):
            assert not module.bias.any()
    assert not model(torch.rand(1, 3, 5, 5)).any()


# The networks computed anew, layer by layer, as in the authors' prototxt files


def plainly(weights, image, name):
    """A VGG16 net from its weights alone; `name` is that of the authors' file."""

    def conv(x, layer, pad):
        return F.relu(F.conv2d(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"], padding=pad))

    def pool(x):
        x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), value=float("-inf"))
        return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))

    def score(x, layer):
        return F.conv2d(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"])

    def deconv(x, kernel, stride):
        centre, factor = (kernel - 1) / 2, kernel / 2
        ramp = 1 - np.abs(np.arange(kernel) - centre) / factor
        dense = np.zeros((x.shape[1], x.shape[1], kernel, kernel))
        dense[np.arange(x.shape[1]), np.arange(x.shape[1])] = ramp[:, None] * ramp
        return F.conv_transpose2d(x, torch.from_numpy(dense).to(x), stride=stride)

    def cut(x, offset, like):
        return x[:, :, offset : offset + like.shape[2], offset : offset + like.shape[3]]

    x = conv(conv(image, "conv1_1", 100), "conv1_2", 1)
    x = conv(conv(pool(x), "conv2_1", 1), "conv2_2", 1)
    x = conv(conv(conv(pool(x), "conv3_1", 1), "conv3_2", 1), "conv3_3", 1)
    pool3 = pool(x)
    x = conv(conv(conv(pool3, "conv4_1", 1), "conv4_2", 1), "conv4_3", 1)
    pool4 = pool(x)
    x = conv(conv(conv(pool4, "conv5_1", 1), "conv5_2", 1), "conv5_3", 1)
    x = score(conv(conv(pool(x), "fc6", 0), "fc7", 0), "score_fr")
    if name == "fcn32s":
        return cut(deconv(x, 64, 32), 19, image)
    if name == "fcn8s_at_once":
        pool4, pool3 = 0.01 * pool4, 0.0001 * pool3
    x = deconv(x, 4, 2)
    x = x + cut(score(pool4, "score_pool4"), 5, x)
    if name == "fcn16s":
        return cut(deconv(x, 32, 16), 27, image)
    x = deconv(x, 4, 2)
    x = x + cut(score(pool3, "score_pool3"), 9, x)
    return cut(deconv(x, 16, 8), 31, image)


def assert_same(ours, expected):
    assert ours.shape == expected.shape
    assert expected.abs().max() > 0.1
    assert (ours - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max().item())


@pytest.mark.parametrize("name", VGG16_NETS)
@pytest.mark.parametrize(("size", "width"), [((97, 131), 1 / 8), ((500, 375), 1 / 32)])
def test_the_output_is_that_of_the_authors_layers(name, size, width):
    torch.manual_seed(1)
    model = drawn(build(name, 5, width=width))
    image = torch.randn(1, 3, *size)
    with torch.inference_mode():
        assert_same(model(image), plainly(model.state_dict(), image, name))


@pytest.mark.slow
@pytest.mark.parametrize("name", VGG16_NETS)
@pytest.mark.parametrize("size", [(97, 131), (500, 375)])
def test_the_output_is_that_of_the_authors_layers_at_full_width(name, size):
    torch.manual_seed(1)
    model = drawn(build(name))
    image = torch.randn(1, 3, *size)
    with torch.inference_mode():
        assert_same(model(image), plainly(model.state_dict(), image, name))


@pytest.mark.parametrize("name", ["fcn8s", "fcn8s_at_once"])
def test_the_gradient_is_that_of_the_authors_layers(name):
    torch.manual_seed(2)
    model = drawn(build(name, 3, width=1 / 32, dropout=0.0)).double().train()
    image = torch.randn(2, 3, 21, 34, dtype=torch.float64)
    weights = dict(model.named_parameters())
    ours = torch.autograd.grad(model(image).square().mean(), list(weights.values()))
    theirs = torch.autograd.grad(plainly(weights, image, name).square().mean(), list(weights.values()))
    torch.testing.assert_close(ours, theirs)


def test_scaled_skips_are_scaled_weights():
    at_once, plain = drawn(build("fcn8s_at_once", 3, width=1 / 32)), drawn(build("fcn8s", 3, width=1 / 32))
    plain.load_state_dict(at_once.state_dict())
    with torch.no_grad():
        plain.score_pool4.weight.mul_(0.01)
        plain.score_pool3.weight.mul_(0.0001)
        image = torch.randn(1, 3, 40, 24)
        assert_same(at_once(image), plain(image))


# Sizes


@pytest.fixture(scope="module")
def small_nets():
    return {name: build(name, 2, width=1 / 64).eval() for name in NETS}


@pytest.fixture(scope="module")
def full_nets():
    with torch.device("meta"):
        return {name: build(name) for name in NETS}


@given(name=st.sampled_from(NETS), height=st.integers(1, 90), width=st.integers(1, 90), batch=st.integers(1, 2))
@settings(deadline=None, max_examples=40)
def test_any_image_gives_an_output_of_its_size(small_nets, name, height, width, batch):
    with torch.inference_mode():
        assert small_nets[name](torch.zeros(batch, 3, height, width)).shape == (batch, 2, height, width)


@given(name=st.sampled_from(NETS), height=st.integers(1, 3000), width=st.integers(1, 3000))
@settings(deadline=None, max_examples=60)
def test_the_full_nets_take_any_size(full_nets, name, height, width):
    assert full_nets[name](torch.zeros(1, 3, height, width, device="meta")).shape == (1, 21, height, width)


@pytest.mark.parametrize("name", NETS)
def test_an_image_of_one_pixel(small_nets, name):
    assert small_nets[name](torch.zeros(1, 3, 1, 1)).shape == (1, 2, 1, 1)


# Kernel, stride, padding along the way to score_fr.
VGG16_WAY = [(3, 1, 100), (3, 1, 1), (2, 2, 0), *2 * [(3, 1, 1)], (2, 2, 0)]
VGG16_WAY += 3 * [*3 * [(3, 1, 1)], (2, 2, 0)] + [(7, 1, 0)]
ALEXNET_WAY = [(11, 4, 100), (3, 2, 0), (5, 1, 2), (3, 2, 0), *3 * [(3, 1, 1)], (3, 2, 0), (6, 1, 0)]
GOOGLENET_WAY = [(7, 2, 100), (3, 2, 0), (3, 1, 1), (3, 2, 0), *2 * [(5, 1, 2)], (3, 2, 0)]
GOOGLENET_WAY += [*5 * [(5, 1, 2)], (3, 2, 0), *2 * [(5, 1, 2)]]


@pytest.mark.parametrize(
    ("name", "way", "field", "kernel", "offset"),
    [
        ("fcn32s", VGG16_WAY, 404, 64, 19),
        ("fcn_alexnet", ALEXNET_WAY, 355, 63, 18),
        ("fcn_googlenet", GOOGLENET_WAY, 907 - 6 * 32, 63, 98),
    ],
)
def test_receptive_fields_are_the_papers_and_the_crop_aligns_their_centres(name, way, field, kernel, offset):
    # CVPR paper, table 1; its 907 for GoogLeNet counts a 7x7 average pooling that its section 4.1 drops.
    reach, jump, first = 1, 1, 0.0
    for size, stride, padding in way:
        reach += (size - 1) * jump
        first += ((size - 1) / 2 - padding) * jump
        jump *= stride
    assert (reach, jump) == (field, 32)
    assert (kernel - 1) / 2 - first == offset
    with torch.device("meta"):
        model = build(name)
    assert [(step.kernel, step.stride, step.offset) for step in model.steps] == [(kernel, 32, offset)]
    convolutions = [m for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and not n.startswith("score")]
    if name != "fcn_googlenet":
        pools = {(2, 2, 0)} if name == "fcn32s" else {(3, 2, 0)}
        built = [(m.kernel_size[0], m.stride[0], m.padding[0]) for m in convolutions]
        assert built == [step for step in way if step not in pools] + [(1, 1, 0)]


# Streams and heads


def test_late_fusion_averages_the_scores_of_two_nets():
    late = drawn(build("fcn32s", 4, {"rgb": 3, "hha": 3}, fusion="late", width=1 / 32))
    assert set(late.state_dict()) == entries(
        [f"{layer}{suffix}" for layer in [*TRUNK, "score_fr"] for suffix in ("color", "hha")]
    )
    images = {"rgb": torch.randn(1, 3, 30, 41), "hha": torch.randn(1, 3, 30, 41)}
    outputs = []
    for modality, suffix in (("rgb", "color"), ("hha", "hha")):
        single = build("fcn32s", 4, width=1 / 32).eval()
        layers = {name: name.replace(".", f"{suffix}.") for name in single.state_dict()}
        single.load_state_dict({name: late.state_dict()[there] for name, there in layers.items()})
        outputs.append(single(images[modality]))
    assert_same(late(images), 0.5 * outputs[0] + 0.5 * outputs[1])


def test_late_fusion_at_finer_strides_averages_the_skips_too():
    late = drawn(build("fcn8s", 4, {"rgb": 3, "hha": 3}, fusion="late", width=1 / 32))
    images = {"rgb": torch.randn(1, 3, 30, 41), "hha": torch.randn(1, 3, 30, 41)}
    outputs = []
    for modality, suffix in (("rgb", "color"), ("hha", "hha")):
        weights = {name.replace(f"{suffix}.", "."): value for name, value in late.state_dict().items()}
        outputs.append(plainly(weights, images[modality], "fcn8s"))
    assert_same(late(images), (outputs[0] + outputs[1]) / 2)


def test_early_fusion_concatenates_and_names_its_first_layer_as_the_release():
    early = drawn(build("fcn32s", 4, {"rgb": 3, "depth": 1}, width=1 / 32))
    assert set(early.state_dict()) == entries(["conv1_1_bgrd", *TRUNK[1:], "score_fr"])
    images = {"depth": torch.randn(1, 1, 9, 12), "rgb": torch.randn(1, 3, 9, 12)}
    joined = torch.cat([images["rgb"], images["depth"]], 1)
    weights = {name.replace("_bgrd", ""): value for name, value in early.state_dict().items()}
    assert_same(early(images), plainly(weights, joined, "fcn32s"))
    bare = build("fcn32s", 4, 4, width=1 / 32).eval()
    bare.load_state_dict(early.state_dict())
    assert torch.equal(bare(joined), early(images))


@pytest.mark.parametrize("name", VGG16_NETS)
def test_two_heads_are_two_nets_on_one_trunk(name):
    model = drawn(build(name, {"semantic": 5, "geometric": 3}, width=1 / 32))
    image = torch.randn(1, 3, 17, 26)
    logits = model(image)
    assert list(logits) == ["semantic", "geometric"]
    for head, suffix, classes in (("semantic", "_sem", 5), ("geometric", "_geo", 3)):
        assert logits[head].shape == (1, classes, 17, 26)
        weights = {key.replace(f"{suffix}.", "."): value for key, value in model.state_dict().items()}
        assert_same(logits[head], plainly(weights, image, name))


def test_one_named_head_and_one_named_modality_have_no_suffix():
    model = build("fcn16s", {"semantic": 4}, {"hha": 3}, fusion="late", width=1 / 32)
    assert set(model.state_dict()) == entries([*TRUNK, "score_fr", "score_pool4"])
    image = torch.randn(1, 3, 8, 8)
    by_name = model.eval()({"hha": image})
    assert list(by_name) == ["semantic"]
    assert torch.equal(by_name["semantic"], model(image)["semantic"])
    bare = build("fcn16s", 4, 3, width=1 / 32).eval()
    assert torch.equal(bare({"anything": image}), bare(image))


def test_other_heads_and_modalities_are_called_by_their_own_names():
    model = build("fcn32s", {"a": 2, "b": 2}, {"rgb": 3, "thermal": 1}, fusion="late", width=1 / 64)
    scores = {name for name in model.state_dict() if name.startswith("score_fr") and name.endswith("weight")}
    assert scores == {f"score_fr{h}{m}.weight" for h, m in itertools.product(("_a", "_b"), ("color", "thermal"))}


# Training


def test_dropout_follows_fc6_and_fc7_and_the_seed():
    model = drawn(build("fcn32s", 2, width=1 / 32)).train()
    shapes = []
    model.dropout.register_forward_hook(lambda _, inputs, output: shapes.append(tuple(output.shape)))
    image = torch.randn(1, 3, 40, 8)

    def seeded(seed):
        torch.manual_seed(seed)
        return model(image)

    assert torch.equal(seeded(1), seeded(1))
    assert not torch.equal(seeded(1), seeded(2))
    # ceil((40 + 198) / 32) - 6 by ceil((8 + 198) / 32) - 6.
    assert shapes[:2] == [(1, 128, 2, 1)] * 2
    assert segbench.models.fcn_googlenet(width=1 / 32).dropout.p == 0.4


def test_channels_last_and_autocast_go_through():
    torch.manual_seed(3)
    model = drawn(build("fcn8s", 5, width=1 / 8))
    image = torch.randn(2, 3, 33, 47)
    expected = model(image)
    fast = copy.deepcopy(model).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        logits = fast(image.to(memory_format=torch.channels_last))
    assert logits.dtype == torch.float32
    assert (logits - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("name", NETS)
def test_a_copy_and_a_pickle_compute_the_same(name):
    model = drawn(build(name, 2, width=1 / 64))
    image = torch.randn(1, 3, 10, 10)
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert torch.equal(again(image), model(image))
    assert model(image).any()


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet"}, r"model\.backbone=resnet\n  expected: vgg16 or alexnet or googlenet"),
        (
            {"stride": 4},
            r"model\.stride=4 of vgg16\n  expected: 32 or 16 or 8 for this backbone\n.*set model\.stride=32",
        ),
        ({"backbone": "alexnet", "stride": 8}, r"model\.stride=8 of alexnet\n  expected: 32 for this backbone"),
        ({"stride": 16, "at_once": True}, "at_once=true for vgg16 at stride 16"),
        ({"num_classes": 0}, r"model\.num_classes=0"),
        ({"num_classes": {"semantic": 3, "geometric": 0}}, r"model\.num_classes of geometric=0"),
        ({"num_classes": {}}, "numbers by head"),
        ({"in_channels": {}}, "numbers by modality"),
        ({"in_channels": {"rgb": 0}}, r"model\.in_channels of rgb=0"),
        ({"fusion": "middle"}, r"model\.fusion=middle\n  expected: early or late"),
        ({"upsampling": "nearest"}, r"model\.upsampling=nearest\n  expected: fixed or intermediate or learnable"),
        ({"width": 0}, r"model\.width=0"),
        ({"width": 1.5}, r"model\.width=1\.5"),
        ({"dropout": 1.0}, r"model\.dropout=1\.0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(SegbenchError, match=message):
        FCN(**{"width": 1 / 64} | arguments)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(1, 3, 4, 4), "one tensor as input\n  expected: images of rgb, hha"),
        ({"rgb": torch.zeros(1, 3, 4, 4)}, "no image of hha; there are rgb"),
        ({"rgb": torch.zeros(1, 3, 4, 4), "hha": torch.zeros(1, 3, 5, 4)}, "modalities of 4x4 and 5x4 pixels"),
        (
            {"rgb": torch.zeros(1, 3, 4, 4), "hha": torch.zeros(1, 1, 4, 4)},
            r"an image of hha of shape \(1, 1, 4, 4\)\n  expected: \(B, 3, H, W\)",
        ),
    ],
)
def test_wrong_images_are_named(image, message):
    model = build("fcn32s", 2, {"rgb": 3, "hha": 3}, fusion="late", width=1 / 64)
    with pytest.raises(SegbenchError, match=message):
        model(image)


def test_a_grey_image_for_a_colour_net_is_named(small_nets):
    with pytest.raises(SegbenchError, match=r"shape \(1, 1, 4, 4\)\n  expected: \(B, 3, H, W\)"):
        small_nets["fcn8s"](torch.zeros(1, 1, 4, 4))
