import pytest
import torch
from torch import nn

from segbench.errors import SegbenchError
from segbench.training.precision import (
    Precision,
    algorithms,
    computing_in,
    precision_named,
    round_to_tf32,
    tf32_kept,
    unmeasured,
)


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


@pytest.fixture
def tf32():
    back = tf32_kept()
    yield lambda: (torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision)
    back()


@pytest.mark.parametrize(("allowed", "expected"), [(True, ("tf32", "tf32")), (False, ("ieee", "none"))])
def test_tf32_is_set_for_convolutions_and_matrix_products(tf32, allowed, expected):
    round_to_tf32(allowed)
    assert tf32() == expected
    # Lightning reads it by this name.
    assert torch.get_float32_matmul_precision() == ("high" if allowed else "highest")


@pytest.mark.parametrize("unknown", [None, "auto"])
def test_tf32_that_was_not_settled_stays(tf32, unknown):
    before = tf32()
    round_to_tf32(unknown)
    assert tf32() == before


@pytest.mark.parametrize("matmul", ["highest", "high", "medium"])
def test_tf32_is_set_back(tf32, matmul):
    torch.set_float32_matmul_precision(matmul)
    before, back = (tf32(), torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32), tf32_kept()
    round_to_tf32(False)
    round_to_tf32(True)
    back()
    after = (tf32(), torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)
    # torch names "not set" and "off" apart.
    assert str(after).replace("none", "ieee") == str(before).replace("none", "ieee")


def test_tf32_that_was_set_by_the_newer_names_is_set_back(tf32):
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    back = tf32_kept()
    round_to_tf32(True)
    assert tf32() == ("tf32", "tf32")
    back()
    assert tf32()[1] == "ieee"
    torch.backends.cudnn.allow_tf32 = True


@pytest.mark.gpu
def test_products_are_exact_unless_tf32_is_allowed(tf32):
    # 1 + 2^-12 is a float32, and 1 in TF32.
    fine = torch.full((1, 16, 16, 16), 1 + 2.0**-12, device="cuda")
    ones = torch.ones(16, 16, 1, 1, device="cuda")
    for allowed in (False, True) if torch.cuda.is_tf32_supported() else (False,):
        round_to_tf32(allowed)
        convolved = torch.nn.functional.conv2d(fine, ones)
        multiplied = fine[0].flatten(1).T @ ones[:, :, 0, 0]
        for product in (convolved, multiplied):
            assert bool((product == 16).any()) is allowed


@pytest.mark.parametrize(
    ("deterministic", "benchmark", "expected"),
    [(True, False, (True, False, False)), ("warn", True, (True, True, True)), (False, None, (False, False, True))],
)
def test_algorithms_are_chosen_as_a_trainer_does(monkeypatch, deterministic, benchmark, expected):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        algorithms(deterministic, benchmark)
        assert torch.are_deterministic_algorithms_enabled() == expected[0]
        assert torch.is_deterministic_algorithms_warn_only_enabled() == expected[1]
        assert torch.backends.cudnn.benchmark == expected[2]
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def test_algorithms_are_not_measured_in_the_context(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with pytest.raises(RuntimeError, match="within"), unmeasured():
        assert not torch.backends.cudnn.benchmark
        raise RuntimeError("within")
    assert torch.backends.cudnn.benchmark
