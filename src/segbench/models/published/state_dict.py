"""State dicts on disk: torch's files, and those of safetensors."""

from __future__ import annotations

import io
import mmap
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from segbench.errors import SegbenchError, refuse_no_file
from segbench.models.published.pickled import refuse_unfolding

FREE = 3 * 2**28
"""Bytes that the tensors of any file may take."""
REPEATED = 64
"""How often they may repeat what a file stores, beyond that: weights that are shared are named more than once."""
PICKLES = 5
"""In an older file before its numbers: a mark, the form, the machine's sizes, what was saved, the storages' names."""
_BYTEARRAY = re.compile(rb"c(?:__builtin__|builtins)\nbytearray\n")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU.

    Args:
        path: a file of `torch.save(model.state_dict(), path)`, or one called `.safetensors`.

    Raises:
        SegbenchError: there is no such file, or it holds anything else.
    """
    try:
        if path.suffix == ".safetensors":
            refuse_no_file(path)
            from safetensors.torch import load_file

            return dict(load_file(path))
        entries = load_plain(path)
    except FileNotFoundError as error:
        raise SegbenchError(f"no file {path}", "a state dict of torch", "download it there") from error
    except Exception as error:
        raise SegbenchError(
            f"{path} cannot be read: {error}", "a state dict of torch, weights only", "download it again"
        ) from error
    if not isinstance(entries, Mapping) or not all(isinstance(value, Tensor) for value in entries.values()):
        raise SegbenchError(f"{path} is not a state dict", "tensors by name", "save only model.state_dict()")
    return dict(entries)


def load_plain(path: Path) -> Any:
    """What `torch.save` wrote: tensors and plain containers, which take no more memory than the file can hold.

    Args:
        path: the file.

    Raises:
        pickle.UnpicklingError: it holds other than that, or repeats what is stored beyond any use.
        zipfile.BadZipFile: its entries are packed, or overlap.
        Exception: whatever torch raises over a damaged file.
    """
    refuse_packed(path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        # The one thing among those that torch takes for plain which is as long as it says, and not as it is stored.
        if _BYTEARRAY.search(content):
            raise pickle.UnpicklingError("it makes a bytearray")
    _refuse_pickles(path)
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    tensors = {id(tensor): tensor for tensor in _tensors(loaded)}.values()
    if odd := [tensor for tensor in tensors if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized]:
        raise pickle.UnpicklingError(f"it holds a tensor that is sparse, quantised or without data ({odd[0].layout})")
    stored, needed = path.stat().st_size, sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    # Strides of 0 make a tensor of any size from one number, without memory until something is computed with it.
    if needed > max(FREE, REPEATED * stored):
        raise pickle.UnpicklingError(f"its tensors are {needed:,} bytes, of which {stored:,} are stored")
    return loaded


def _tensors(loaded: Any) -> Iterator[Tensor]:
    met, left = set[int](), [loaded]
    while left:
        value = left.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping | list | tuple | set) and id(value) not in met:
            # What is named twice is looked at once: lists of one another would be without end.
            met.add(id(value))
            left += [*value.values(), *value] if isinstance(value, Mapping) else value


def _refuse_pickles(path: Path) -> None:
    with path.open("rb") as file:
        if not _is_zip(file):
            for _ in range(PICKLES):
                refuse_unfolding(file)
            return
        with zipfile.ZipFile(file) as archive:
            # Torch finds its entries whatever the case of their names.
            for entry in archive.infolist():
                if entry.filename.lower().endswith("data.pkl"):
                    refuse_unfolding(io.BytesIO(archive.read(entry)))


def _is_zip(file: IO[bytes]) -> bool:
    # As torch tells them apart; a zip file at the end of another is none to it.
    start = file.read(4)
    file.seek(0)
    return start == b"PK\x03\x04"


def refuse_packed(path: Path) -> None:
    """Refuse a file of torch whose entries are packed or overlap: torch packs nothing, but unpacks.

    Args:
        path: the file; an older one, which is no zip file, passes.

    Raises:
        zipfile.BadZipFile: its entries are packed, or overlap, or cannot be listed.
        OSError: it is no file.
    """
    refuse_no_file(path)
    with path.open("rb") as file:
        if not _is_zip(file):
            return
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise zipfile.BadZipFile("its entries are packed")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise zipfile.BadZipFile("its entries hold more than the file")
