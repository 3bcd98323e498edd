"""Checkpoint files that are whole or not there: written by a thread under another name, synced, then renamed."""

from __future__ import annotations

import copy
import os
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from segbench.errors import FULL, SegbenchError, as_typed
from segbench.runtime.files import partial_name, written_whole

Memory = defaultdict[Any, list[Tensor]]
"""Tensors by shape, strides and type of what they are copies of."""


class CheckpointFiles(TorchCheckpointIO):
    """Write a checkpoint so that a reader never sees half of one, and a failed write leaves the previous one.

    The training waits only while the checkpoint is copied into main memory; a thread writes the copy. Files are written
    one at a time, in the order in which they were given. An error in the thread is raised by the next call.
    Lightning's writer builds the whole file in memory and goes through the system's temporary folder.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._memory: Memory = defaultdict(list)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Begin to write `path`, when the file before it is written.

        Args:
            checkpoint: its content, which may change as soon as this returns.
            path: the file.
            storage_options: `{"keep": name}` keeps the present file under that name, in the same folder;
                `{"then": function}` is called when the file has its name.

        Raises:
            SegbenchError: the file before it could not be written, since the disk is full or for another reason.
        """
        options = storage_options or {}
        self.wait()
        # The memory of the one before: to allocate as much, page by page, takes as long as to write it.
        content, self._memory = snapshot(checkpoint, self._memory)

        def write() -> None:
            _write(content, Path(path), options.get("keep"))
            if then := options.get("then"):
                then()

        self.begin(write)

    def begin(self, job: Callable[[], None]) -> None:
        """Run `job` in the thread, after what was begun before it.

        Raises:
            SegbenchError: as `wait`.
        """

        def run() -> None:
            try:
                job()
            except BaseException as error:
                self._error = error

        self.wait()
        # A daemon: a second Ctrl-C ends the process without waiting for a slow disk.
        thread = threading.Thread(target=run, name="checkpoint", daemon=True)
        # Raises where memory or the number of processes is used up: there is nothing to wait for then.
        thread.start()
        self._thread = thread

    def wait(self) -> None:
        """Wait until all that was begun is on disk.

        Raises:
            SegbenchError: it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def raise_error(self) -> None:
        """Raise the error of a write that has failed by now; does not wait.

        Raises:
            SegbenchError: as `wait`.
        """
        if self._error is not None:
            self.wait()


def snapshot(value: Any, memory: Memory) -> tuple[Any, Memory]:
    """A copy of a checkpoint in main memory that shares nothing with it; tensors of one memory stay so.

    Args:
        value: the checkpoint.
        memory: tensors of an earlier copy that nobody needs any more.

    Returns:
        the copy, and its tensors.
    """
    copies: dict[Any, Tensor] = {}
    taken: Memory = defaultdict(list)

    def copied_tensor(tensor: Tensor) -> Tensor:
        layout = tensor.shape, tensor.stride(), tensor.dtype
        where = tensor.device, tensor.data_ptr(), layout
        if tensor.numel() == 0 or where not in copies:
            spare = memory[layout]
            copies[where] = spare.pop().copy_(tensor) if spare else tensor.to("cpu", copy=True)
            taken[layout].append(copies[where])
        return copies[where]

    def copied(value: Any) -> Any:
        if isinstance(value, Tensor):
            return copied_tensor(value.detach())
        if isinstance(value, dict):
            # A state dict has attributes beside its entries.
            same = copy.copy(value)
            same.update({key: copied(each) for key, each in value.items()})
            return same
        if type(value) in (list, tuple):
            return type(value)(map(copied, value))
        return copy.deepcopy(value)

    return copied(value), taken


def _write(checkpoint: dict[str, Any], path: Path, keep: str | None) -> None:
    try:
        with written_whole(path) as partial:
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if keep and path.exists():
                _keep(path, keep)
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
    full = error.errno in FULL
    return SegbenchError(
        f"{path} cannot be written: {error.strerror or error}",
        "room for a third checkpoint beside the two that are kept" if full else "a writable folder",
        f"{'free disk space' if full else 'make it writable'}, then continue from the previous checkpoint, which is "
        f"whole: "
        f"segbench train {as_typed('resume', path.parent.parent)}",
    )
