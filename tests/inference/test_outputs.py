import pytest
import torch

from segbench.errors import SegbenchError
from segbench.inference.outputs import as_heads


def test_outputs_are_mapped_to_the_heads_expected():
    logits = torch.zeros(1, 2, 3, 3)
    assert as_heads(logits, ["semantic"]) == {"semantic": logits}
    assert as_heads({"b": logits, "a": logits}, ["a"]) == {"a": logits}
    with pytest.raises(SegbenchError, match=r"the model gives one tensor\n.*semantic, geometric"):
        as_heads(logits, ["semantic", "geometric"])
    with pytest.raises(SegbenchError, match=r"the model gives outputs for a\n.*: b"):
        as_heads({"a": logits}, ["b"])
