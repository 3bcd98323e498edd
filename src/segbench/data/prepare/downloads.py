"""Files of other people that are fetched: where they are, what is known of them, who is told, who may write."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbench.errors import SegbenchError
from segbench.runtime.files import write_whole

RECORD = "downloads.json"
"""Beside the files: for each its address, size and sha256, and whether it was unpacked."""


@dataclass(frozen=True)
class Remote:
    """A file on the network.

    Attributes:
        name: under which it is kept.
        urls: its addresses, tried in order; http or https.
        digest: `sha256:...` or `md5:...` as published; None: the sha256 of the first download is recorded and holds
            from then on.
        terms: what a user must agree to, or why it may fail; told where a download fails.
    """

    name: str
    urls: tuple[str, ...]
    digest: str | None = None
    terms: str = ""


def _silent(*_: Any) -> None:
    return None


@dataclass(frozen=True)
class Listener:
    """Who is told what happens.

    Attributes:
        say: takes a sentence.
        progress: takes what goes on, how much is done and how much there is (None where it is not known).
    """

    say: Callable[[str], None] = _silent
    progress: Callable[[str, int, int | None], None] = _silent


class Record:
    """What is known of the files of a folder: `downloads.json`.

    Args:
        folder: it need not exist.
    """

    name = RECORD

    def __init__(self, folder: Path) -> None:
        self._path = folder / RECORD

    def read(self) -> dict[str, dict[str, Any]]:
        """Entries by file name.

        Raises:
            SegbenchError: the file is damaged.
        """
        if not self._path.is_file():
            return {}
        try:
            entries: dict[str, dict[str, Any]] = json.loads(self._path.read_text())
        except ValueError as error:
            raise SegbenchError(
                f"{self._path} is damaged: {error}", "the record of what was fetched", "delete it; files are kept"
            ) from error
        return entries

    def update(self, name: str, **entry: Any) -> None:
        """Add to what is known of a file."""
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
    """Let one process at a time work in a folder; the lock ends with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            listener.say(f"waiting for another process that prepares {folder}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
