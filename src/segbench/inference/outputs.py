"""A network's output by head, whatever form it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn.functional import interpolate

from segbench.errors import SegbenchError


def as_heads(output: Any, heads: Sequence[str], size: tuple[int, int] | None = None) -> dict[str, Tensor]:
    """A model's output by head.

    Args:
        output: logits BKHW by head. Where there is one head also a tensor alone; `{"out": ...}`, as torchvision's
            networks give; an object or a mapping with `logits`, as those of Hugging Face; or a list or tuple of any
            of these, whose first is taken: further ones are of deep supervision.
        heads: the names expected.
        size: H and W of the input, to which `logits` that are smaller are scaled up.

    Raises:
        SegbenchError: one output for several heads, a mapping that lacks one, or another kind of output.
    """
    if isinstance(output, Mapping) and all(head in output for head in heads):
        return {head: output[head] for head in heads}
    if len(heads) == 1 and (logits_BKHW := _only(output, size)) is not None:
        return {heads[0]: logits_BKHW}
    raise SegbenchError(
        f"the model gives {described(output)}",
        f"one output for each head of the data set: {', '.join(heads)}",
        "choose a model with these heads (model=...), or data with the model's",
    )


def _only(output: Any, size: tuple[int, int] | None) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, (list, tuple)):
        return _only(output[0], size) if output else None
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        larger = size is not None and logits.shape[-2] < size[0] and logits.shape[-1] < size[1]
        return interpolate(logits, size, mode="bilinear", align_corners=False) if larger else logits
    named = output.get("out") if isinstance(output, Mapping) else None
    return named if isinstance(named, Tensor) else None


def described(output: Any) -> str:
    """A network's output as text, and which part of it is used."""
    if isinstance(output, Tensor):
        return "one tensor"
    if isinstance(output, (list, tuple)):
        return f"a {type(output).__name__} of {len(output)}, of which the first is used"
    if isinstance(output, Mapping):
        used = next((f", of which {name} is used" for name in ("logits", "out") if name in output), "")
        return f"outputs for {', '.join(map(str, output)) or 'no head'}{used}"
    return f"a {type(output).__name__}{' with logits' if hasattr(output, 'logits') else ''}"
