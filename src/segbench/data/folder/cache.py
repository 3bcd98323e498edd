"""Facts about a folder's files, kept between runs in the user's cache: nothing is written beside one's images."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segbench.data.files.image_files import AS_STORED
from segbench.runtime.files import write_whole
from segbench.spec import Reading

VERSION = 3
"""Of the facts; other versions are ignored."""

Stamp = tuple[int, ...]
"""A file's size in bytes and its modification time in nanoseconds, and of a file beside it if facts depend on both."""


def user_cache() -> Path:
    """The user's cache folder: `$XDG_CACHE_HOME/segbench`, or `~/.cache/segbench`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segbench"


class ScanCache:
    """Facts by file name, each valid for one size and modification time.

    Args:
        folder: the folder of the files.
        what: names the cache; images and masks may share a folder.
        reading: how the files are read; facts of another way are ignored.
    """

    def __init__(self, folder: Path, what: str, reading: Reading = AS_STORED) -> None:
        self._reading = asdict(reading)
        digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
        self._place = user_cache() / "scans" / f"{digest}-{what}.json"
        # Version 0.1.0 wrote into the folder.
        self._places = (self._place, folder / f".segbench-{what}.json")
        self.written: Path | None = None

    def read(self, stamps: Mapping[str, Stamp]) -> dict[str, list[Any]]:
        """The facts of the files whose stamps, given by name, are unchanged."""
        known: dict[str, list[Any]] = {}
        for place in self._places:
            for name, (*stamp, facts) in self._entries(place).items():
                if stamps.get(name) == tuple(stamp):
                    known[name] = facts
                    self.written = self.written or place
        return known

    def write(self, facts: Mapping[str, tuple[Stamp, Sequence[Any]]]) -> None:
        """Replace all facts; `written` is then the file, or None if that is not writable.

        Args:
            facts: by name the file's stamp and its facts as JSON values.
        """
        entries = {name: [*stamp, entry] for name, (stamp, entry) in facts.items()}
        content = {"version": VERSION, "reading": self._reading, "files": entries}
        self.written = None
        with contextlib.suppress(OSError):
            self._place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._place, json.dumps(content, separators=(",", ":")))
            self.written = self._place

    def _entries(self, place: Path) -> dict[str, Any]:
        # A file that is truncated, of another version or not a cache counts as none.
        with contextlib.suppress(OSError, ValueError, AttributeError, KeyError):
            content = json.loads(place.read_text())
            if content.get("version") == VERSION and content["reading"] == self._reading:
                return dict(content["files"])
        return {}
