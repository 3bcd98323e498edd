"""Unpack tar, tar.gz and zip archives: into a folder of their own first, then all of it in place, or nothing."""

from __future__ import annotations

import contextlib
import glob
import gzip
import os
import re
import shutil
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from segbench.data.prepare.downloads import SILENT, Listener
from segbench.errors import FULL, SegbenchError
from segbench.runtime.files import partial_name

_CHUNK = 2**20


@dataclass(frozen=True)
class Limits:
    """What an archive may come to; the largest data set with a recipe has 40,000 files and 4 GB.

    Attributes:
        entries: number of entries.
        size: bytes of all files.
        ratio: bytes of all files by those of the archive, above `free`.
        free: bytes up to which no ratio is asked for: label maps shrink a thousandfold.
        depth: folders inside one another.
        header: bytes of a tar's header or a zip's directory.
    """

    entries: int = 500_000
    size: int = 100 * 2**30
    ratio: int = 100
    free: int = 2**30
    depth: int = 32
    header: int = 32 * 2**20


LIMITS = Limits()


class _RefusedError(ValueError):
    """What is wrong with an archive, named by a sentence's second half."""


@dataclass
class _Reader:
    """An archive's bytes, unpacked by gzip where they are packed: what is asked for at once and in all is bounded.

    tarfile and zipfile take the length of a header from the header, and tarfile goes where it says.
    """

    file: IO[bytes] | gzip.GzipFile
    end: int
    header: int

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size if 0 <= size <= self.header else self.header + 1)
        if len(data) > self.header:
            raise _RefusedError(f"has a header of more than {self.header} bytes")
        self._check(self.file.tell())
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET:
            self._check(offset)
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def seekable(self) -> bool:
        return True

    def _check(self, place: int) -> None:
        if place > self.end:
            raise _RefusedError(f"unpacks to more than {self.end} bytes")


@dataclass
class _Names:
    """Names of entries as parts of paths; what any file system takes for the same is met once."""

    depth: int
    _met: dict[tuple[str, ...], tuple[tuple[str, ...], bool]] = field(default_factory=dict)

    def parts(self, name: str, folder: bool) -> tuple[str, ...]:
        """The parts of a path inside the folder; empty for the folder itself.

        Raises:
            _RefusedError: it leaves the folder, is not printable, or is met before.
        """
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        why = None
        if not name or (not parts and not folder):
            why = "an empty name"
        elif name.startswith("/") or re.match("[A-Za-z]:", name):
            why = "an absolute name"
        elif ".." in parts:
            why = "a name that leaves the folder"
        elif "\\" in name or not name.isprintable():
            why = "a name with a backslash or characters that cannot be printed"
        elif len(parts) > self.depth:
            why = f"more than {self.depth} folders inside one another"
        elif not self._is_new(parts, folder):
            why = "a name that another entry has, or that passes through a file"
        if why:
            raise _RefusedError(f"has the entry {name[:200]!a}, {why}")
        return parts

    def _is_new(self, parts: tuple[str, ...], folder: bool) -> bool:
        folded = tuple(unicodedata.normalize("NFKC", part).casefold() for part in parts)
        for end in range(1, len(parts) + 1):
            last = end == len(parts)
            here = (parts[:end], folder or not last)
            # A folder may come again, a file not.
            if folded[:end] in self._met and (self._met[folded[:end]] != here or not here[1]):
                return False
            self._met[folded[:end]] = here
        return True


@dataclass(frozen=True)
class _Entry:
    name: str
    folder: bool
    size: int
    content: IO[bytes] | None


def unpack(archive: Path, into: Path, listener: Listener = SILENT, limits: Limits = LIMITS) -> int:
    """Unpack an archive, overwriting existing files.

    Entries other than files and folders are refused, also where a link would stay inside. Names are checked here and
    not by Python, whose own filter a chain of links passed.

    Args:
        archive: tar, tar.gz or zip.
        into: the folder; created if missing.
        listener: receives progress.
        limits: what the archive may come to.

    Returns:
        the number of entries.

    Raises:
        SegbenchError: no archive, a damaged one, one beyond the limits, or an entry that is refused; then nothing is
            unpacked.
    """
    into.mkdir(parents=True, exist_ok=True)
    # Left behind by a process that was killed.
    for left in into.glob(f".{glob.escape(archive.name)}.*.partial"):
        shutil.rmtree(left, ignore_errors=True)
    partial = partial_name(into / archive.name)
    try:
        partial.mkdir()
        count = _write(archive, partial, listener, limits)
        _move(partial, into)
    except _RefusedError as error:
        raise SegbenchError(
            f"{archive} {error}",
            "files and folders inside one folder, packed by tar, tar.gz or zip, of a plausible size",
            "do not unpack it by hand either; fetch the archive from its publisher",
        ) from error
    except OSError as error:
        if error.errno in FULL:
            raise SegbenchError(
                f"{archive} cannot be unpacked into {into}: {error.strerror}",
                "a disk with room for what it unpacks to",
                "free it and run the command again, which goes on from here",
            ) from error
        raise _damaged(archive, into, str(error)) from error
    except Exception as error:
        # tarfile, zipfile and zlib raise errors of any class over a damaged archive.
        raise _damaged(archive, into, f"{type(error).__name__}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return count


def _damaged(archive: Path, into: Path, why: str) -> SegbenchError:
    return SegbenchError(
        f"{archive} cannot be unpacked into {into}: {why}",
        "a whole tar, tar.gz or zip archive",
        f"delete {archive} and run the command again",
    )


def _write(archive: Path, into: Path, listener: Listener, limits: Limits) -> int:
    packed = archive.stat().st_size
    most = min(limits.size, max(limits.free, limits.ratio * packed))
    names, written, count = _Names(limits.depth), 0, 0
    with archive.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start[:2] == b"PK":
            entries = _zip_entries(_Reader(file, packed, limits.header), packed)
        else:
            # Beside the files there are headers and what fills blocks.
            end = most + 4096 * limits.entries
            opened = gzip.GzipFile(fileobj=file) if start[:2] == b"\x1f\x8b" else file
            entries = _tar_entries(_Reader(opened, end, limits.header))
        for entry in entries:
            count += 1
            if count > limits.entries:
                raise _RefusedError(f"has more than {limits.entries} entries")
            target = into.joinpath(*names.parts(entry.name, entry.folder))
            if not 0 <= entry.size <= most - written:
                raise _RefusedError(f"unpacks to more than {most} bytes, from {packed}")
            (target if entry.folder else target.parent).mkdir(parents=True, exist_ok=True)
            if entry.content is not None:
                with target.open("xb") as out:
                    left = entry.size
                    while chunk := entry.content.read(min(_CHUNK, left + 1)):
                        left -= len(chunk)
                        if left < 0:
                            break
                        out.write(chunk)
                if left:
                    raise ValueError(f"{entry.name} is shorter or longer than the archive says")
                written += entry.size
            if count % 100 == 0:
                listener.progress(f"unpacking {archive.name}", count, None)
    return count


def _tar_entries(reader: _Reader) -> Iterator[_Entry]:
    before = -1
    with tarfile.open(fileobj=reader, mode="r:", encoding="utf-8", errors="strict") as tar:  # type: ignore[call-overload]
        while (member := tar.next()) is not None:
            # tarfile keeps all of them.
            tar.members.clear()
            if member.offset <= before:
                raise _RefusedError("has an entry that begins before the last one")
            before = member.offset
            if not (member.isreg() or member.isdir()) or member.issparse():
                raise _RefusedError(f"has the entry {member.name[:200]!a}, neither a plain file nor a folder")
            content = tar.extractfile(member) if member.isreg() else None
            yield _Entry(member.name, member.isdir(), member.size if member.isreg() else 0, content)
        # tarfile takes a damaged header, and an archive that is cut between two entries, for the end.
        reader.seek(tar.offset)
        blocks = 0
        while chunk := reader.read(_CHUNK):
            blocks += len(chunk) // tarfile.BLOCKSIZE
            if chunk.strip(b"\0"):
                raise ValueError("its end is damaged, or something follows it")
        if not blocks:
            raise ValueError("its end is missing")


def _zip_entries(reader: _Reader, packed: int) -> Iterator[_Entry]:
    with zipfile.ZipFile(reader) as archived:
        reader.seek(packed - len(archived.comment) - 22)
        if reader.read(4) != b"PK\x05\x06":
            raise ValueError("its end is damaged, or something follows it")
        if sum(entry.compress_size for entry in archived.infolist()) > packed:
            raise _RefusedError("has entries that overlap")
        for entry in archived.infolist():
            # Before zipfile cut it at a NUL.
            name = entry.orig_filename
            folder, shown, kind = name.endswith("/"), ascii(name[:200]), stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFDIR if folder else stat.S_IFREG):
                raise _RefusedError(f"has the entry {shown}, neither a plain file nor a folder")
            if entry.flag_bits & 1:
                raise _RefusedError(f"has the entry {shown}, which is encrypted")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise _RefusedError(f"has the entry {shown}, packed otherwise than by deflate")
            with contextlib.nullcontext() if folder else archived.open(entry) as content:
                yield _Entry(name, folder, entry.file_size, content)


def _move(source: Path, into: Path) -> None:
    """Move what a folder holds into another one, whole folders where they are new there."""
    for path in sorted(source.iterdir()):
        target = into / path.name
        if path.is_dir() and target.is_dir():
            _move(path, target)
        else:
            os.replace(path, target)
