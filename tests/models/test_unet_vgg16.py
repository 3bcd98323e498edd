import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segbench.config.record import InitialWeights
from segbench.errors import SegbenchError
from segbench.experiment.initialise import initialise
from segbench.models import UNetVGG16, fcn32s
from segbench.models.published.load import load, transfer
from segbench.models.vgg16 import STAGES

WIDTH = 1 / 32
VGG = "VGG_ILSVRC_16_layers"
CONVOLUTIONS = [name for names, _, _ in STAGES for name in names]


def net(*arguments, **options):
    torch.manual_seed(0)
    return UNetVGG16(*arguments, **{"width": WIDTH} | options).eval()


@pytest.fixture(scope="module")
def vgg16(tmp_path_factory, caffemodel_bytes):
    """The authors' file of a VGG16 with 1/32 of the channels, fc6 to fc8 and all, and its layers as tensors."""
    torch.manual_seed(1)
    layers = {}
    for name, value in fcn32s(width=WIDTH).state_dict().items():
        if not name.startswith("score"):
            layers.setdefault(name.rpartition(".")[0], []).append(0.1 * torch.randn_like(value))
    for name in ("fc6", "fc7"):
        layers[name][0] = layers[name][0].flatten(1)
    layers["fc8"] = [torch.ones(10, layers["fc7"][0].shape[0]), torch.ones(10)]
    path = tmp_path_factory.mktemp("vgg") / "vgg.caffemodel"
    path.write_bytes(caffemodel_bytes({name: [blob.numpy() for blob in blobs] for name, blobs in layers.items()}, 1))
    return path, layers


def test_the_whole_net():
    with torch.device("meta"):
        model = UNetVGG16(in_channels=3, num_classes=21)
    by_kind = {"trunk": 0, "expanding": 0}
    for name, parameter in model.named_parameters():
        by_kind["trunk" if name.rpartition(".")[0] in CONVOLUTIONS else "expanding"] += parameter.numel()
    # VGG16's convolutions have 14,714,688 parameters, whoever counts them.
    assert by_kind["trunk"] == 14_714_688
    # Up-convolutions 4 i o + o, then 9 (2 o) o + o and 9 o o + o; the scores.
    way_up = [(512, 512), (512, 256), (256, 128), (128, 64)]
    expected = sum(4 * i * o + o + 27 * o * o + 2 * o for i, o in way_up) + 64 * 21 + 21
    assert by_kind["expanding"] == expected


def plainly(model, image):
    """VGG16 and the way up, written out from the weights."""
    weights = dict(model.named_parameters())

    def conv(name, x):
        return F.relu(F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1))

    def up(name, below, skip):
        x = F.conv_transpose2d(below, weights[f"upconv_{name}.weight"], weights[f"upconv_{name}.bias"], stride=2)
        return torch.cat([x, skip], 1)

    relu1_2 = conv("conv1_2", conv("conv1_1", image))
    relu2_2 = conv("conv2_2", conv("conv2_1", F.max_pool2d(relu1_2, 2)))
    relu3_3 = conv("conv3_3", conv("conv3_2", conv("conv3_1", F.max_pool2d(relu2_2, 2))))
    relu4_3 = conv("conv4_3", conv("conv4_2", conv("conv4_1", F.max_pool2d(relu3_3, 2))))
    relu5_3 = conv("conv5_3", conv("conv5_2", conv("conv5_1", F.max_pool2d(relu4_3, 2))))
    u3 = conv("conv_u3c_d", conv("conv_u3b_c", up("d4c_u3a", relu5_3, relu4_3)))
    u2 = conv("conv_u2c_d", conv("conv_u2b_c", up("u3d_u2a", u3, relu3_3)))
    u1 = conv("conv_u1c_d", conv("conv_u1b_c", up("u2d_u1a", u2, relu2_2)))
    u0 = conv("conv_u0c_d", conv("conv_u0b_c", up("u1d_u0a", u1, relu1_2)))
    return F.conv2d(u0, weights["conv_u0d_score.weight"], weights["conv_u0d_score.bias"])


@pytest.mark.parametrize("train", [False, True])
def test_the_forward_is_vgg16_and_a_unets_way_up(train):
    model = net(3, 4, dropout=0.0).train(train)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    image = torch.randn(2, 3, 32, 48)
    expected = plainly(model, image)
    torch.testing.assert_close(model(image), expected)
    parameters = list(model.parameters())
    ours, theirs = (torch.autograd.grad(out.square().mean(), parameters) for out in (model(image), expected))
    torch.testing.assert_close(ours, theirs)


def test_sides_are_multiples_of_16_and_kept():
    model = net(1, 2)
    assert model.geometry.step == 16
    assert model(torch.zeros(1, 1, 16, 48)).shape == (1, 2, 16, 48)
    with pytest.raises(SegbenchError, match=r"an input side of 40 pixels\n.*16 k pixels.*\n.*use 32 or 48"):
        model(torch.zeros(1, 1, 16, 40))


def test_the_geometrys_context_is_how_far_a_pixel_sees():
    # Positive weights and images: whatever is in reach acts.
    model = net(1, 1)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.01)
    context = model.geometry.context
    side = 16 * (2 * context // 16 + 4)
    seen = 0
    for pixel in range(side // 2 // 16 * 16, side // 2 // 16 * 16 + 16):
        image = torch.ones(1, 1, 16, side, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(model.double()(image)[0, 0, 8, pixel], image)
        touched = gradient[0, 0].any(0).nonzero().flatten()
        seen = max(seen, pixel - int(touched.min()), int(touched.max()) - pixel)
    assert seen == context


def test_dropout_is_after_the_two_deepest_levels():
    model = net(1, 2, dropout=0.5)
    image = torch.rand(1, 1, 32, 32)
    assert torch.equal(model(image), model(image))
    calls = []
    model.dropout.register_forward_hook(lambda _, given, out: calls.append(tuple(out.shape)))
    model.train()
    assert not torch.equal(model(image), model(image))
    assert calls[:2] == [(1, 16, 4, 4), (1, 16, 2, 2)]


def test_batch_norm_is_on_the_way_up_alone():
    model = net(1, 2, norm="batch")
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms == [f"norm_u{level}{letter}" for level in (3, 2, 1, 0) for letter in "cd"]
    assert model.conv_u3b_c.bias is None and model.conv5_3.bias is not None
    assert model.train()(torch.rand(2, 1, 32, 32)).shape == (2, 2, 32, 32)


def test_several_modalities_and_heads():
    model = net({"rgb": 3, "depth": 1}, {"semantic": 3, "geometric": 2})
    images = {"rgb": torch.rand(1, 3, 16, 16), "depth": torch.rand(1, 1, 16, 16)}
    assert {name: out.shape[1] for name, out in model(images).items()} == {"semantic": 3, "geometric": 2}
    assert model.conv1_1_bgrd.in_channels == 4
    with pytest.raises(SegbenchError, match="no image of depth"):
        model({"rgb": images["rgb"]})


@pytest.mark.parametrize("wrong", [{"width": 0}, {"width": 2}, {"dropout": 1}, {"norm": "layer"}, {"num_classes": 0}])
def test_arguments_outside_their_range_are_refused(wrong):
    with pytest.raises(SegbenchError, match=rf"model\.{next(iter(wrong))}"):
        net(**wrong)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_imagenet_weights_go_by_name_and_the_rest_is_accounted_for(vgg16, norm):
    path, layers = vgg16
    model = net(3, 2, norm=norm)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = load(model, VGG, path)
    for name in CONVOLUTIONS:
        torch.testing.assert_close(list(model.get_submodule(name).parameters()), layers[name], rtol=0, atol=0)
    assert set(report.loaded) == {f"{name}.{blob}" for name in CONVOLUTIONS for blob in ("weight", "bias")}
    assert set(report.drawn) == set(before) - set(report.loaded)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in report.drawn)
    assert report.left_over == tuple(f"{name}.{blob}" for name in ("fc6", "fc7", "fc8") for blob in ("weight", "bias"))


def test_colours_as_rgb_turn_the_filters_round(vgg16):
    path, _ = vgg16
    bgr, rgb = net(3, 2), net(3, 2)
    load(bgr, VGG, path)
    (report,) = initialise(rgb, InitialWeights(name=VGG, path=str(path)), modalities=("image",))
    image = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(rgb(image.flip(1)), bgr(image))
    assert "its first filters were reversed to take RGB" in report


def test_grey_images_give_what_grey_on_three_channels_gives(vgg16):
    path, _ = vgg16
    colour, grey = net(3, 2), net(1, 2)
    load(colour, VGG, path)
    (report,) = initialise(grey, InitialWeights(name=VGG, path=str(path)), modalities=("em",))
    drawn = {name: value for name, value in colour.state_dict().items() if name != "conv1_1.weight"}
    grey.load_state_dict(drawn, strict=False)
    image = torch.randn(1, 1, 32, 16)
    torch.testing.assert_close(grey(image), colour(image.expand(-1, 3, -1, -1)))
    assert "its first filters were summed to take grey" in report
    assert "reversed" not in report


def test_a_fourth_channel_takes_the_mean_of_three(vgg16):
    path, layers = vgg16
    model = net(4, 2)
    load(model, VGG, path)
    kernel = layers["conv1_1"][0]
    torch.testing.assert_close(model.conv1_1_bgrd.weight, torch.cat([kernel, kernel.mean(1, keepdim=True)], 1))


def test_two_channels_have_no_filters(vgg16):
    with pytest.raises(SegbenchError, match=r"conv1_1\.weight is 2x3x3x3, conv1_1\.weight 2x2x3x3"):
        load(net(2, 2), VGG, vgg16[0])
    assert "conv1_1.weight" in load(net(2, 2), VGG, vgg16[0], leave=("conv1_1",)).drawn


def test_weights_of_another_trunk_are_refused(vgg16):
    with pytest.raises(SegbenchError, match=r"weights bvlc_googlenet for vgg16\n.*a network of googlenet"):
        load(net(3, 2), "bvlc_googlenet", vgg16[0])
    with pytest.raises(SegbenchError, match=r"weights fcn8s-heavy-pascal for unet_vgg16"):
        load(net(3, 2), "fcn8s-heavy-pascal", vgg16[0])


def test_a_trained_net_goes_into_its_like():
    trained, fresh = net(1, 2, norm="batch"), UNetVGG16(1, 2, width=WIDTH, norm="batch")
    report = transfer(fresh, trained.state_dict())
    assert not report.drawn and not report.left_over
    image = torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(fresh.eval()(image), trained(image))
