import pytest
import torch
from torch import nn

from segbench.errors import SegbenchError
from segbench.training.precision import Precision, computing_in, precision_named


@pytest.mark.parametrize(
    ("name", "device", "expected"),
    [
        (None, "cpu", Precision(torch.float32)),
        (32, "cuda", Precision(torch.float32)),
        ("64", "cpu", Precision(torch.float64)),
        ("bf16-true", "cuda", Precision(torch.bfloat16)),
        ("bf16", "cpu", Precision(torch.float32, torch.bfloat16)),
        (16, "cuda", Precision(torch.float32, torch.float16)),
        ("16-mixed", "cpu", Precision(torch.float32, torch.bfloat16)),
    ],
)
def test_a_name_means_what_it_means_to_lightning(name, device, expected):
    assert precision_named(name, device) == expected


def test_another_name_is_refused():
    with pytest.raises(
        SegbenchError, match=r"trainer\.precision=fp8\n.*one of 32-true, .*bf16, or auto\n.*correct trainer"
    ):
        precision_named("fp8", "cpu")


@pytest.mark.parametrize(
    ("precision", "weights", "result"),
    [
        (Precision(torch.float64), torch.float64, torch.float64),
        (Precision(torch.float32, torch.bfloat16), torch.float32, torch.bfloat16),
    ],
)
def test_weights_are_converted_and_operations_cast(precision, weights, result):
    network = nn.Linear(2, 2)
    with computing_in(precision, network, "cpu"):
        assert network.weight.dtype == weights
        assert network(torch.ones(1, 2, dtype=weights)).dtype == result
    assert not torch.is_autocast_enabled("cpu")
