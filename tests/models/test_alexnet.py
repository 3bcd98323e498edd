import pytest
import torch
from torch.nn import functional as F

from segbench.models import fcn_alexnet


def test_grouped_layers_have_the_shapes_of_caffenets_blobs():
    with torch.device("meta"):
        shapes = {name: tuple(blob.shape) for name, blob in fcn_alexnet(21).state_dict().items()}
    assert {name.removesuffix(".weight"): shape for name, shape in shapes.items() if name.endswith(".weight")} == {
        "conv1": (96, 3, 11, 11),
        "conv2": (256, 48, 5, 5),
        "conv3": (384, 256, 3, 3),
        "conv4": (384, 192, 3, 3),
        "conv5": (256, 192, 3, 3),
        "fc6": (4096, 256, 6, 6),
        "fc7": (4096, 4096, 1, 1),
        "score_fr": (21, 4096, 1, 1),
    }
    assert all(
        shapes[name.replace("weight", "bias")] == shape[:1] for name, shape in shapes.items() if "weight" in name
    )


def plainly(weights, image):
    """voc-fcn-alexnet from its weights alone: groups as two convolutions, LRN and pooling written out."""

    def conv(x, layer, groups=1, **options):
        kernels, biases = weights[f"{layer}.weight"].chunk(groups), weights[f"{layer}.bias"].chunk(groups)
        parts = zip(x.chunk(groups, dim=1), kernels, biases, strict=True)
        return torch.cat([F.conv2d(part, kernel, bias, **options) for part, kernel, bias in parts], dim=1)

    def pool(x):
        rows, columns = (-(-(size - 3) // 2) * 2 + 3 - size for size in x.shape[2:])
        x = F.pad(x, (0, columns, 0, rows), value=float("-inf"))
        return x.unfold(2, 3, 2).unfold(3, 3, 2).amax((4, 5))

    def lrn(x):
        squares = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
        return x / (1 + 1e-4 / 5 * sum(squares[:, i : i + x.shape[1]] for i in range(5))) ** 0.75

    x = lrn(pool(conv(image, "conv1", stride=4, padding=100).relu()))
    x = lrn(pool(conv(x, "conv2", groups=2, padding=2).relu()))
    x = conv(x, "conv3", padding=1).relu()
    x = conv(x, "conv4", groups=2, padding=1).relu()
    x = pool(conv(x, "conv5", groups=2, padding=1).relu())
    x = conv(conv(conv(x, "fc6").relu(), "fc7").relu(), "score_fr")
    ramp = 1 - (torch.arange(63) - 31).abs() / 32
    dense = torch.eye(x.shape[1])[:, :, None, None] * torch.outer(ramp, ramp)
    up = F.conv_transpose2d(x, dense.to(x), stride=32)
    return up[:, :, 18 : 18 + image.shape[2], 18 : 18 + image.shape[3]]


@pytest.mark.parametrize("size", [(97, 131), (1, 1), (224, 64)])
def test_the_output_is_that_of_the_authors_layers(size):
    torch.manual_seed(0)
    model = fcn_alexnet(4, width=1 / 8).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Values of hundreds, as images of 0 to 255 give, or LRN would do nothing.
            parameter.copy_(torch.randn_like(parameter) * (2 / parameter[0].numel()) ** 0.5)
    image = 100 * torch.randn(1, 3, *size)
    with torch.inference_mode():
        ours, expected = model(image), plainly(model.state_dict(), image)
    assert expected.abs().max() > 1
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()
