import pytest
import torch
from torch import nn

from segbench.models.matrix_conv import MatrixConv2d


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("batch", "channels", "size"), [(1, 5, (7, 7)), (2, 5, (9, 8)), (2, 1, (7, 10)), (3, 5, (20, 9))]
)
def test_values_and_gradients_are_those_of_a_convolution(layout, batch, channels, size):
    # The last size has more windows than outputs, and goes the usual way.
    torch.manual_seed(0)
    ours = MatrixConv2d(channels, 30, 7).double().to(memory_format=layout)
    theirs = nn.Conv2d(channels, 30, 7).double()
    theirs.load_state_dict(ours.state_dict())
    features = torch.randn(batch, channels, *size, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    output, expected = ours(features), theirs(features)
    torch.testing.assert_close(output, expected)
    # As in the nets, a ReLU writes into it.
    results = [
        torch.autograd.grad(out.relu_().square().sum(), [features, *conv.parameters()])
        for out, conv in ((output, ours), (expected, theirs))
    ]
    torch.testing.assert_close(*results)


def test_the_layout_is_kept():
    for layout in (torch.contiguous_format, torch.channels_last):
        conv = MatrixConv2d(4, 30, 3).to(memory_format=layout)
        output = conv(torch.randn(2, 4, 5, 6).to(memory_format=layout))
        assert output.is_contiguous(memory_format=layout)


def test_the_product_is_taken_where_windows_are_few_and_only_there(monkeypatch):
    taken = []
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: taken.append(x.shape) or x)
    conv = MatrixConv2d(2, 6, 3)
    conv(torch.zeros(1, 2, 4, 5))
    assert not taken
    conv(torch.zeros(2, 2, 4, 5))
    conv(torch.zeros(1, 2, 4, 5, device="meta"))
    assert len(taken) == 2


def test_a_map_smaller_than_the_window_is_refused_by_torch():
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        MatrixConv2d(2, 6, 3)(torch.zeros(1, 2, 2, 5))
