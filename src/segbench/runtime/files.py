"""Write files atomically, so that a reader finds the old or the new content, and walk folders once each."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

PARTIAL = re.compile(r"\..+\.\d+\.partial")
"""Names of unfinished files: the final name and a number."""


def partial_name(path: Path) -> Path:
    """A hidden name beside a path, unique to this call."""
    return path.with_name(f".{path.name}.{secrets.randbits(32)}.partial")


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name, then move it into place.

    Args:
        path: the final path. Its old content stays until then, and after an error, which removes the temporary file.

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
    """Write a UTF-8 text file, or keep the old one.

    Raises:
        OSError: it cannot be written.
    """
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def walk(
    folder: str | Path, left_out: Callable[[str, str], None] = lambda path, why: None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk` from the top, sorted by name; follows links to folders and visits each folder once.

    A folder comes before links to it in the same parent.

    Args:
        folder: the root.
        left_out: called with the path of each folder that is not visited, and why; not with pruned ones.

    Yields:
        a folder's path, its folders, which the caller may prune, and its files.
    """

    def closed(error: OSError) -> None:
        left_out(str(error.filename), f"that cannot be opened ({error.strerror})")

    met: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True, onerror=closed):
        real = os.path.realpath(where)
        if real in met:
            left_out(where, "that lead to a folder that is read already")
            folders.clear()
            continue
        met.add(real)
        folders.sort(key=lambda name: (os.path.islink(os.path.join(where, name)), name))
        yield where, folders, sorted(files)
