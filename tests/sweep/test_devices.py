import pytest

from segbench.sweep.devices import listed_gpus

WHOLE = "GPU {}: NVIDIA A100-SXM4-40GB (UUID: GPU-{})\n"
PART = "  MIG 3g.20gb     Device  {}: (UUID: MIG-{})\n"


@pytest.mark.parametrize(
    ("listing", "names"),
    [
        ("", ()),
        (WHOLE.format(0, "a") + WHOLE.format(1, "b"), ("0", "1")),
        (WHOLE.format(0, "a") + PART.format(0, "x") + PART.format(1, "y"), ("MIG-x", "MIG-y")),
        (WHOLE.format(0, "a") + PART.format(0, "x") + WHOLE.format(1, "b"), ("MIG-x", "1")),
        (WHOLE.format(0, "a") + WHOLE.format(1, "b") + PART.format(0, "x"), ("0", "MIG-x")),
    ],
    ids=["none", "whole", "in two parts", "first in parts", "second in parts"],
)
def test_a_gpu_in_parts_counts_by_its_parts(listing, names):
    assert listed_gpus(listing) == names
