"""`trainer.deterministic=true` with every network and loss."""

import pytest
import torch

from segbench.config.packaged import conf_root
from segbench.experiment.axes import make_loss, make_network
from segbench.inference.forward import geometry_of
from segbench.inference.outputs import as_heads
from segbench.spec import DatasetSpec, HeadSpec, ModalitySpec

SPEC = DatasetSpec(
    *("drawn", {"rgb": ModalitySpec(3, (0.0,) * 3, (1.0,) * 3, "")}),
    *({"semantic": HeadSpec(("a", "b", "c"), ((0, 0, 0),) * 3)}, "", "", ""),
)
PACKAGES = {"smp": "segmentation_models_pytorch", "timm_unet": "timm", "hf": "transformers"}
WIDTHS = {"fcn": 0.03, "unet_vgg16": 0.03, "unet": 4, "timm": 4}
RAISES = {
    *("avg_pool3d_backward", "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward"),
    *("adaptive_max_pool2d_backward", "adaptive_max_pool3d_backward"),
    *("fractional_max_pool2d_backward", "fractional_max_pool3d_backward", "max_pool3d_with_indices_backward"),
    *("max_unpool2d", "max_unpool3d", "grid_sampler_2d_backward", "grid_sampler_3d_backward"),
    *("upsample_linear1d_backward", "upsample_bilinear2d_backward", "upsample_bicubic2d_backward"),
    *("upsample_trilinear3d_backward", "_upsample_bilinear2d_aa_backward", "_upsample_bicubic2d_aa_backward"),
    *("reflection_pad1d_backward", "reflection_pad2d_backward", "reflection_pad3d_backward"),
    *("replication_pad1d_backward", "replication_pad2d_backward", "replication_pad3d_backward"),
    *("_ctc_loss_backward", "_cudnn_ctc_loss", "_embedding_bag_dense_backward", "put", "put_", "histc", "kthvalue"),
}
"""Operations that `torch.use_deterministic_algorithms` documents to raise on a GPU, whatever their arguments."""


def raises_on_a_gpu(name, args):
    match name:
        case "cumsum" | "cumprod" | "logcumsumexp":
            return args[0].is_floating_point()
        case "nll_loss2d_forward" | "nll_loss2d_backward":
            # The reduction: 0 is none; the sum over pixels is atomic.
            return args[3 if name.endswith("forward") else 4] != 0
        case "bincount":
            return len(args) > 1 and args[1] is not None
        case "median" | "nanmedian":
            return len(args) > 1
        case "scatter_reduce" | "scatter_reduce_":
            return args[4] == "prod"
        case _:
            return name in RAISES


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def named(axis):
    return sorted(path.stem for path in (conf_root() / axis).glob("[!_]*.yaml"))


@pytest.fixture
def network(compose, package):
    def of(name):
        if name in PACKAGES:
            package(PACKAGES[name])
        width = next((f"model.width={width}" for kind, width in WIDTHS.items() if name.startswith(kind)), "tta=none")
        return make_network(compose("name=tiny", f"model={name}", width).model, SPEC)

    return of


def loss_of(compose, name):
    return make_loss(compose("name=tiny", f"loss={name}").loss_of("semantic"), SPEC.heads["semantic"], "")


NETWORKS = [pytest.param(name, marks=pytest.mark.networks if name in PACKAGES else ()) for name in named("model")]


def side(network):
    return geometry_of(network).input_for(36)


def train_step(network, images_BCHW):
    for logits in as_heads(network(images_BCHW), ("semantic",), images_BCHW.shape[-2:]).values():
        logits.float().square().mean().backward()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_has_no_operation_that_raises_on_a_gpu(network, operations, deterministic, name):
    # Tensors of sizes alone, which take the ways of a GPU: the ways of a CPU are others.
    net = network(name).train().to("meta")
    with operations() as done:
        train_step(net, torch.empty(2, 3, side(net), side(net), device="meta"))
    assert len(done.seen) > 40
    assert [each for each, args in done.seen if raises_on_a_gpu(each, args)] == []


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "pixel weights"])
@pytest.mark.parametrize("name", named("loss"))
def test_a_loss_has_no_operation_that_raises_on_a_gpu(compose, operations, name, weighted):
    logits = torch.randn(2, 3, 6, 6, requires_grad=True)
    loss = loss_of(compose, name)
    weight = torch.rand(2, 6, 6) if weighted or loss.needs_weight else None
    with operations() as done:
        loss(logits, torch.randint(0, 3, (2, 6, 6)), weight).backward()
    assert [each for each, args in done.seen if raises_on_a_gpu(each, args)] == []


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.nn.functional.local_response_norm(x, 5),
        lambda x: x.cumsum(1),
        lambda x: torch.nn.functional.cross_entropy(x, x.argmax(1).detach()),
        lambda x: torch.nn.functional.adaptive_avg_pool2d(x, 2),
    ],
    ids=["LRN of torch", "running sum", "mean cross-entropy", "adaptive pooling"],
)
def test_operations_that_raise_are_recognised(operations, function):
    with operations() as done:
        function(torch.randn(2, 6, 4, 4, requires_grad=True)).sum().backward()
    assert any(raises_on_a_gpu(each, args) for each, args in done.seen)


def twice(step):
    gradients = []
    for _ in range(2):
        torch.manual_seed(0)
        gradients.append(step())
    first, second = gradients
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_two_steps_of_a_network_are_equal_on_a_gpu(network, deterministic, name, precision):
    def step():
        net = network(name).train().to("cuda")
        with torch.autocast("cuda", precision, enabled=precision != torch.float32):
            train_step(net, torch.rand(2, 3, side(net), side(net), device="cuda"))
        return [each.grad for each in net.parameters() if each.grad is not None]

    assert twice(step)


@pytest.mark.gpu
@pytest.mark.parametrize("name", named("loss"))
def test_two_gradients_of_a_loss_are_equal_on_a_gpu(compose, deterministic, name):
    def step():
        logits = torch.randn(2, 3, 64, 64, device="cuda", requires_grad=True)
        target = torch.randint(0, 3, (2, 64, 64), device="cuda")
        loss_of(compose, name).to("cuda")(logits, target, torch.rand(2, 64, 64, device="cuda")).backward()
        return [logits.grad]

    assert twice(step)
