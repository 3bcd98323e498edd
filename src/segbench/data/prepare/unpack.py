"""Unpack tar and zip archives without writing outside the folder."""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from segbench.data.prepare.downloads import SILENT, Listener
from segbench.errors import SegbenchError


def unpack(archive: Path, into: Path, listener: Listener = SILENT) -> int:
    """Unpack an archive, overwriting existing files.

    Args:
        archive: tar (plain or compressed) or zip.
        into: the folder; created if missing.
        listener: receives progress.

    Returns:
        the number of entries.

    Raises:
        SegbenchError: no archive, a damaged one, or an entry (a path, a link, a device) that leaves the folder.
    """
    into.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            return _unzip(archive, into, listener)
        return _untar(archive, into, listener)
    except tarfile.FilterError as error:
        raise _refused(archive, str(error)) from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OSError) as error:
        raise SegbenchError(
            f"{archive} cannot be unpacked into {into}: {error}",
            "a whole tar or zip archive, and room on the disk",
            f"free space, or delete {archive} and run the command again",
        ) from error


def _refused(archive: Path, why: str) -> SegbenchError:
    return SegbenchError(
        f"{archive} has an entry that leaves its folder: {why}",
        "entries inside one folder",
        "do not unpack it by hand either; fetch the archive from its publisher",
    )


def _untar(archive: Path, into: Path, listener: Listener) -> int:
    count = 0
    with tarfile.open(archive) as tar:
        for member in tar:
            tar.extract(member, into, filter="data")
            count += 1
            if count % 100 == 0:
                listener.progress(f"unpacking {archive.name}", count, None)
    return count


def _unzip(archive: Path, into: Path, listener: Listener) -> int:
    with zipfile.ZipFile(archive) as archived:
        entries = archived.infolist()
        for entry in entries:
            path = PurePosixPath(entry.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
                raise _refused(archive, entry.filename)
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise _refused(archive, f"{entry.filename}, a link")
        for count, entry in enumerate(entries, 1):
            archived.extract(entry, into)
            if count % 100 == 0:
                listener.progress(f"unpacking {archive.name}", count, len(entries))
    return len(entries)
