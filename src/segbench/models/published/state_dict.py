"""State dicts on disk: torch's files, and those of safetensors."""

from __future__ import annotations

import zipfile
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
        refuse_packed(path)
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


def refuse_packed(path: Path) -> None:
    """Refuse a file of torch whose entries hold more bytes than the file: torch packs nothing, but unpacks.

    Args:
        path: the file; an older one, which is no zip file, passes.

    Raises:
        zipfile.BadZipFile: its entries are packed, or overlap.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise zipfile.BadZipFile("its entries hold more than the file")
