"""Files written whole, and folders walked once: a reader finds the old content or the new one."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

PARTIAL = re.compile(r"\..+\.\d+\.partial")
"""Names of files that are being written: the final name and a number."""


def partial_name(path: Path) -> Path:
    """A hidden name beside a path that no other process or thread writes to."""
    return path.with_name(f".{path.name}.{secrets.randbits(32)}.partial")


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A file under another name beside its place, which it takes when it is whole.

    Args:
        path: its place. What is there stays until then, and if an error is raised; what was written so far is then
            removed.

    Yields:
        the path to write to.

    Raises:
        OSError: it cannot be written.
    """
    partial = partial_name(path)
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def write_whole(path: Path, text: str) -> None:
    """Write a file of UTF-8 text, or leave what was there.

    Raises:
        OSError: it cannot be written.
    """
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def walk(folder: str | Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk` from the top, in the order of names; links to folders are followed, and each folder is met once.

    A folder comes before links to it that lie beside it.

    Args:
        folder: where to begin.

    Yields:
        a folder's path, its folders, which the caller may reduce, and its files.
    """
    met: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in met:
            folders.clear()
            continue
        met.add(real)
        folders.sort(key=lambda name: (os.path.islink(os.path.join(where, name)), name))
        yield where, folders, sorted(files)
