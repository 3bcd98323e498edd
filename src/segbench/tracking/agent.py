"""A run that the agent of a W&B sweep started: its directory by its id, and who ends it; does not import wandb."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path

from segbench.runtime.files import walk
from segbench.runtime.sender import sender_of
from segbench.runtime.signals import ends_early

ID = "wandb_id.txt"
"""In a run directory: the id of its W&B run."""


def agents_run() -> str | None:
    """The id that the agent gave this run; None: no agent started it."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None


def directory_of(identity: str, roots: Iterable[Path]) -> Path | None:
    """The run directory of a W&B run.

    Args:
        identity: of the run.
        roots: folders to look in.
    """
    for root in roots:
        for folder, below, files in walk(root):
            if ID in files and (Path(folder) / ID).read_text().strip() == identity:
                return Path(folder)
            if "config.yaml" in files:
                below.clear()
    return None


def heed_agent() -> None:
    """Tell apart, by its sender, a SIGTERM of the agent, whose search gave the run up, and one that means preemption.

    An agent with `--forward-signals` also passes on what it gets itself: its signals mean preemption, and only the
    server's own word (the page's stop button) ends a run early.
    """
    if agents_run() is None:
        return
    agent = os.getppid()
    try:
        words = Path(f"/proc/{agent}/cmdline").read_bytes().split(b"\0")
    except OSError:
        words = []
    if not {b"--forward-signals", b"-f"} & {*words}:
        sender = sender_of(signal.SIGTERM)
        ends_early(lambda: sender() == agent)
