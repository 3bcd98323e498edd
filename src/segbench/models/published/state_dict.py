"""State dicts on disk: torch's files, and those of safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from segbench.errors import SegbenchError


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU.

    Args:
        path: a file of `torch.save(model.state_dict(), path)`, or one called `.safetensors`.

    Raises:
        SegbenchError: there is no such file, or it holds anything else.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        entries = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise SegbenchError(f"no file {path}", "a state dict of torch", "download it there") from error
    except Exception as error:
        raise SegbenchError(
            f"{path} cannot be read: {error}", "a state dict of torch, weights only", "download it again"
        ) from error
    if not isinstance(entries, Mapping) or not all(isinstance(value, Tensor) for value in entries.values()):
        raise SegbenchError(f"{path} is not a state dict", "tensors by name", "save only model.state_dict()")
    return dict(entries)
