import pytest
import torch
from torch.nn import functional as F

from segbench.models import fcn_googlenet

MODULES = "3a 3b 4a 4b 4c 4d 4e 5a 5b".split()
LAYERS = "1x1 3x3_reduce 3x3 5x5_reduce 5x5 pool_proj".split()


def test_layers_bear_bvlc_googlenets_names():
    with torch.device("meta"):
        names = {name.rpartition(".")[0] for name in fcn_googlenet().state_dict()}
    trunk = {f"inception_{module}/{layer}" for module in MODULES for layer in LAYERS}
    assert names == trunk | {"conv1/7x7_s2", "conv2/3x3_reduce", "conv2/3x3", "score_fr"}


@pytest.mark.parametrize(
    ("module", "incoming", "outgoing"),
    # Szegedy et al., table 1: the depth before and after each module.
    [
        ("3a", 192, 256), ("3b", 256, 480), ("4a", 480, 512), ("4b", 512, 512), ("4c", 512, 512), ("4d", 512, 528),
        ("4e", 528, 832), ("5a", 832, 832), ("5b", 832, 1024),
    ],
)  # fmt: skip
def test_depths_are_those_of_the_papers_table(module, incoming, outgoing):
    with torch.device("meta"):
        weights = fcn_googlenet().state_dict()
    layers = {layer: weights[f"inception_{module}/{layer}.weight"] for layer in LAYERS}
    assert sum(layers[layer].shape[0] for layer in ("1x1", "3x3", "5x5", "pool_proj")) == outgoing
    assert {layers[layer].shape[1] for layer in ("1x1", "3x3_reduce", "5x5_reduce", "pool_proj")} == {incoming}


def plainly(weights, image):
    """The trunk from its weights alone, then a 63 kernel of stride 32 cropped at 98."""

    def conv(x, layer, **options):
        return F.conv2d(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"], **options).relu()

    def pool(x):
        rows, columns = (-(-(size - 3) // 2) * 2 + 3 - size for size in x.shape[2:])
        x = F.pad(x, (0, columns, 0, rows), value=float("-inf"))
        return x.unfold(2, 3, 2).unfold(3, 3, 2).amax((4, 5))

    def lrn(x):
        squares = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
        return x / (1 + 1e-4 / 5 * sum(squares[:, i : i + x.shape[1]] for i in range(5))) ** 0.75

    x = lrn(pool(conv(image, "conv1/7x7_s2", stride=2, padding=100)))
    x = pool(lrn(conv(conv(x, "conv2/3x3_reduce"), "conv2/3x3", padding=1)))
    for module in MODULES:
        name = f"inception_{module}"
        near = F.pad(x, (1, 1, 1, 1), value=float("-inf")).unfold(2, 3, 1).unfold(3, 3, 1).amax((4, 5))
        x = torch.cat(
            [
                conv(x, f"{name}/1x1"),
                conv(conv(x, f"{name}/3x3_reduce"), f"{name}/3x3", padding=1),
                conv(conv(x, f"{name}/5x5_reduce"), f"{name}/5x5", padding=2),
                conv(near, f"{name}/pool_proj"),
            ],
            dim=1,
        )
        if module in ("3b", "4e"):
            x = pool(x)
    x = F.conv2d(x, weights["score_fr.weight"], weights["score_fr.bias"])
    ramp = 1 - (torch.arange(63) - 31).abs() / 32
    dense = torch.eye(x.shape[1])[:, :, None, None] * torch.outer(ramp, ramp)
    up = F.conv_transpose2d(x, dense.to(x), stride=32)
    return up[:, :, 98 : 98 + image.shape[2], 98 : 98 + image.shape[3]]


@pytest.mark.parametrize("size", [(97, 131), (1, 1)])
def test_the_output_is_the_trunks_upsampled(size):
    torch.manual_seed(0)
    model = fcn_googlenet(4, width=1 / 8).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (2 / parameter[0].numel()) ** 0.5)
    image = 100 * torch.randn(1, 3, *size)
    with torch.inference_mode():
        ours, expected = model(image), plainly(model.state_dict(), image)
    assert expected.abs().max() > 1
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()
