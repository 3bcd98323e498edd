"""Checkpoint files that are whole or not there: written under another name, synced, then renamed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from segbench.errors import SegbenchError
from segbench.runtime.files import partial_name, written_whole


class CheckpointFiles(TorchCheckpointIO):
    """Write a checkpoint so that a reader never sees half of one, and a failed write leaves the previous one.

    Lightning's writer builds the whole file in memory and goes through the system's temporary folder.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write `path`.

        Args:
            checkpoint: its content.
            path: the file.
            storage_options: `{"keep": name}` keeps the present file under that name, in the same folder.

        Raises:
            SegbenchError: the disk is full, or cannot be written.
        """
        path = Path(path)
        try:
            with written_whole(path) as partial:
                with partial.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
                if storage_options and path.exists():
                    _keep(path, storage_options["keep"])
            _sync_folder(path.parent)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            # torch's writer hides the system's error behind its own.
            system = error if isinstance(error, OSError) else error.__context__
            if not isinstance(system, OSError):
                raise
            raise _not_written(path, system) from error


def _keep(path: Path, name: str) -> None:
    # Linked, not moved: if the process dies in between, the file still has its first name.
    linked = partial_name(path.with_name(name))
    os.link(path, linked)
    os.replace(linked, path.with_name(name))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_written(path: Path, error: OSError) -> SegbenchError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return SegbenchError(
        f"{path} cannot be written: {error.strerror or error}",
        "room for a third checkpoint beside the two that are kept" if full else "a writable folder",
        f"{'free disk space' if full else 'make it writable'}, then continue from the previous checkpoint, which is "
        f"whole: "
        f"segbench train resume={path.parent.parent}",
    )
