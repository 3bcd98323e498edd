"""Write files atomically, so that a reader finds the old or the new content, and walk folders once each.

A folder may have come from a stranger: nothing that is written here follows a link in it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import IO, Any

from segbench.errors import FULL, SegbenchError, as_typed
from segbench.runtime.processes import standing, this_machine

PARTIAL = re.compile(r"\..+\.\d+\.partial")
"""Names of unfinished files: the final name and a number."""

_OURS = re.compile(r"\..+\.(?P<machine>\d{5})(?P<pid>\d{7})\d{20}\.partial")
_tidied: set[str] = set()


def partial_name(path: Path) -> Path:
    """A hidden name beside a path that nobody can guess; it says which process of which machine writes there.

    The first of a process in a folder also removes there what processes of this machine that were killed have left.
    """
    if (folder := os.path.abspath(path.parent)) not in _tidied:
        _tidied.add(folder)
        remove_partials(path.parent, _left_behind)
    return path.with_name(f".{path.name}.{_machine():05d}{os.getpid():07d}{secrets.randbits(64):020d}.partial")


def remove_partials(folder: Path, which: Callable[[str], bool] = lambda name: True) -> None:
    """Remove unfinished files and folders directly inside a folder.

    Args:
        folder: one that this process alone writes in, unless `which` chooses; need not exist.
        which: chooses by name.
    """
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if PARTIAL.fullmatch(name) and which(name):
                path = os.path.join(folder, name)
                with contextlib.suppress(OSError):
                    if stat.S_ISDIR(os.lstat(path).st_mode):
                        shutil.rmtree(path)
                    else:
                        os.unlink(path)


def _left_behind(name: str) -> bool:
    found = _OURS.fullmatch(name)
    # Without /proc nothing tells who lives.
    known = found is not None and int(found["machine"]) == _machine() and standing(os.getpid()) is not None
    return known and found is not None and standing(int(found["pid"])) is None


def _machine() -> int:
    return zlib.crc32(this_machine().encode()) % 10**5


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
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        # A disk that fills up names no file.
        if isinstance(error, OSError) and error.errno in FULL:
            error.filename = str(path)
        raise


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file of bytes or of UTF-8 text, or keep the old one.

    Raises:
        OSError: it cannot be written.
    """
    with written_whole(path) as partial:
        # Exclusive: not even a link that leads nowhere may have the name.
        with partial.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)


def open_itself(path: Path, mode: str, newline: str | None = None) -> IO[Any]:
    """Open a file that is written bit by bit, or locked: never what a link of its name leads to.

    Args:
        path: the file.
        mode: as of `open`; text is UTF-8.
        newline: as of `open`.

    Raises:
        SegbenchError: it is a link, or no file.
        OSError: it cannot be opened.
    """

    def opener(name: str, flags: int) -> int:
        if os.path.lexists(name) and not stat.S_ISREG(os.lstat(name).st_mode):
            raise _no_file(path)
        # A link or a pipe may have taken its place.
        descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _no_file(path)
        return descriptor

    return open(path, mode, encoding=None if "b" in mode else "utf-8", newline=newline, opener=opener)


def refuse_links_out(folder: Path, deep: bool = True) -> None:
    """Refuse a folder with links that lead out of it, before anything is written there.

    W&B links a log of its own from the folder `logs` of a run: nothing is written there again, and nothing is refused.

    Args:
        folder: the root; it may be a link itself.
        deep: look into the folders inside it too.

    Raises:
        SegbenchError: names the first link.
    """
    root, left = os.path.realpath(folder), [str(folder)]
    while left:
        with os.scandir(left.pop()) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_symlink():
                    target = os.path.realpath(entry.path)
                    if target != root and not target.startswith(os.path.join(root, "")):
                        raise _no_file(Path(entry.path))
                elif deep and entry.is_dir(follow_symlinks=False) and not PurePath(entry.path).match(_LOGS_OF_WANDB):
                    left.append(entry.path)


_LOGS_OF_WANDB = "wandb/*run-*/logs"


def _no_file(path: Path) -> SegbenchError:
    what = f"a link to {os.readlink(path)}" if path.is_symlink() else "neither a file nor a folder"
    return SegbenchError(
        f"{path} is {what}",
        f"files and folders of {path.parent}'s own: what is written there follows no link",
        f"copy there what it leads to, or remove it: rm {as_typed(path)}",
    )


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
