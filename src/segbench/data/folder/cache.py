"""Facts about a folder's files, kept between runs in the user's cache: nothing is written beside one's images."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segbench.config.handed_over import fitting, read_json
from segbench.data.files.image_files import AS_STORED
from segbench.errors import SegbenchError
from segbench.runtime.files import write_whole
from segbench.spec import Reading

log = logging.getLogger(__name__)

VERSION = 4
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
        facts: the type of the facts of a page, as pydantic checks it.
        reading: how the files are read; facts of another way are ignored.
    """

    def __init__(self, folder: Path, what: str, facts: Any, reading: Reading = AS_STORED) -> None:
        self._kind, self._reading = dict[str, tuple[Stamp, tuple[facts, ...]]], asdict(reading)
        digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
        self._place = user_cache() / "scans" / f"{digest}-{what}.json"
        self.written: Path | None = None

    def read(self, stamps: Mapping[str, Stamp]) -> dict[str, tuple[Any, ...]]:
        """The facts of each page of the files whose stamps, given by name, are unchanged.

        A damaged cache is reported, and has none; so has one of another version.
        """
        if not self._place.is_file():
            return {}
        try:
            content = read_json(self._place)
            if content.get("version") != VERSION or content.get("reading") != self._reading:
                return {}
            entries = fitting(content.get("files"), str(self._place), self._kind)
        except SegbenchError as error:
            log.warning("%s; the files are read again", error.found)
            return {}
        known = {name: facts for name, (stamp, facts) in entries.items() if stamps.get(name) == stamp}
        self.written = self._place if known else None
        return known

    def write(self, facts: Mapping[str, tuple[Stamp, Sequence[Any]]]) -> None:
        """Replace all facts; `written` is then the file, or None if that is not writable.

        Args:
            facts: by name the file's stamp and its facts as JSON values.
        """
        entries = {name: [stamp, entry] for name, (stamp, entry) in facts.items()}
        content = {"version": VERSION, "reading": self._reading, "files": entries}
        self.written = None
        with contextlib.suppress(OSError):
            self._place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._place, json.dumps(content, separators=(",", ":")))
            self.written = self._place
