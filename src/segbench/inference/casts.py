"""Weights that autocast converts, once for all images of a pass."""

from __future__ import annotations

import torch


def kept_casts(device_type: str) -> torch.autocast:
    """The present autocast again, as an outer region: those within it keep the weights that they cast.

    torch forgets them when the outermost region of a thread ends, and keeps none under `torch.inference_mode`: a pass
    runs under `torch.no_grad`. Nothing else changes: the region turns autocast neither on nor off. It is entered around
    a pass, and again around each forward pass, since Lightning's own regions keep nothing.

    Args:
        device_type: `cpu` or `cuda`.
    """
    dtype, enabled = torch.get_autocast_dtype(device_type), torch.is_autocast_enabled(device_type)
    return torch.autocast(device_type, dtype, enabled=enabled, cache_enabled=True)
