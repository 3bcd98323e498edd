"""Whether Weights & Biases is used offline; does not import wandb."""

from __future__ import annotations

import netrc
import os


def is_offline() -> bool:
    """Whether runs stay on this machine: WANDB_MODE says so, or there is no key for the server."""
    return os.environ.get("WANDB_MODE") in ("offline", "dryrun") or not _has_key()


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0].split(":")[0]
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
