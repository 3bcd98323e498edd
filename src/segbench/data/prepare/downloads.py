"""Files to download: their addresses, the record of what was fetched, a listener for progress, and a folder's lock."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from segbench.config.handed_over import read_json
from segbench.errors import SegbenchError
from segbench.runtime.files import write_whole
from segbench.runtime.locks import InUse, Lock

RECORD = "downloads.json"
"""Beside the files: for each its address, size and sha256, and whether it was unpacked."""


@dataclass(frozen=True)
class Remote:
    """A file on the network.

    Attributes:
        name: of the local file.
        urls: its addresses, tried in order; http or https.
        digest: `sha256:...` or `md5:...` as published; None: the sha256 of the first download is recorded and required
            from then on.
        terms: what a user must agree to, or why it may fail; part of the error if the download fails.
    """

    name: str
    urls: tuple[str, ...]
    digest: str | None = None
    terms: str = ""


def _silent(*_: Any) -> None:
    return None


@dataclass(frozen=True)
class Listener:
    """Receives messages and progress.

    Attributes:
        say: called with a sentence.
        progress: called with the task, how much is done and how much there is (None if unknown).
    """

    say: Callable[[str], None] = _silent
    progress: Callable[[str, int, int | None], None] = _silent


SILENT = Listener()


class _Fetched(BaseModel):
    """A file in the record."""

    sha256: str
    url: str | None = None
    bytes: int | None = None
    published: str | None = None
    unpacked: bool | None = None


class Record:
    """The record of a folder's files, `downloads.json`; the folder need not exist."""

    name = RECORD

    def __init__(self, folder: Path) -> None:
        self._path = folder / RECORD

    def read(self) -> dict[str, dict[str, Any]]:
        """Entries by file name; a `SegbenchError` if the record is damaged."""
        if not self._path.is_file():
            return {}
        try:
            read_json(self._path, dict[str, _Fetched])
            entries: dict[str, dict[str, Any]] = read_json(self._path)
        except SegbenchError as error:
            raise SegbenchError(error.found, "the record of fetched files", "delete it; the files are kept") from error
        return entries

    def update(self, name: str, **entry: Any) -> None:
        """Add to a file's entry."""
        entries = self.read()
        entries[name] = entries.get(name, {}) | entry
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._path, json.dumps(entries, indent=2, sort_keys=True) + "\n")


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """The hexadecimal digest of a file by `sha256` or `md5`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


@contextlib.contextmanager
def locked(folder: Path, listener: Listener) -> Iterator[None]:
    """Let one process at a time work in a folder; the lock is released when the process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)

    def waiting(held: InUse) -> None:
        listener.say(f"waiting for {held.by}, which is preparing {folder}{held.or_else}")

    lock = Lock.take(folder / ".lock", patience_s=math.inf, waiting=waiting)
    try:
        yield
    finally:
        lock.release()
