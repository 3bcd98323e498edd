"""Locks between processes, released when their process ends, however it ends: the only user of `flock`.

Some file systems have no `flock` (NFS without its lock service, Lustre without the mount option, some FUSE). There a
process makes a file beside the lock, exclusively, under a name of its own that says who it is, and then looks for those
of others: whoever sees another one that is alive gives way. A name is never used twice, so removing that of a process
which has ended can never remove another's. Whether a process of another machine lives cannot be told from here: its
file counts until somebody removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import random
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from weakref import WeakSet

from segbench.errors import as_typed
from segbench.runtime.files import open_itself
from segbench.runtime.processes import standing, this_machine

log = logging.getLogger(__name__)

_WITHOUT_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
_CLAIM = re.compile(r"(?P<lock>.+)\.(?P<pid>\d+)-(?P<started>\d+)-(?P<token>[0-9a-f]+)@(?P<machine>[\w.-]+)")
"""Names of claims: process id, when it started in ticks of its machine, a random part, and the machine."""
_AGAIN_S = 0.02


class InUse(Exception):
    """Another process holds the lock.

    Args:
        by: who, as far as it is known.
        remedy: what to do beside waiting; empty if nothing else helps.

    Attributes:
        or_else: the remedy as the end of a sentence, or empty.
    """

    def __init__(self, by: str = "another process", remedy: str = "") -> None:
        super().__init__(by)
        self.by, self.or_else = by, f"; {remedy}" if remedy else ""


class Lock:
    """A lock that is held; a process that is forked off does not release it.

    Attributes:
        file: the file that is locked, open as asked.
    """

    def __init__(self, file: IO[Any], claim: Path | None) -> None:
        self.file, self._claim, self._owner = file, claim, os.getpid()
        _held.add(self)

    @classmethod
    def take(
        cls,
        path: Path,
        mode: str = "w",
        patience_s: float = 0.0,
        waiting: Callable[[InUse], None] = lambda held: None,
    ) -> Lock:
        """Take the lock.

        Args:
            path: the file; its content is left to the caller.
            mode: in which it is opened.
            patience_s: how long to wait for another process.
            waiting: called once if there is one to wait for.

        Raises:
            InUse: another process holds it.
            SegbenchError: the file is a link.
            OSError: the file cannot be opened or locked.
        """
        file, until, told = open_itself(path, mode), time.monotonic() + patience_s, False
        try:
            while True:
                try:
                    return cls(file, _locked(file, path))
                except InUse as held:
                    if not told:
                        told = True
                        waiting(held)
                    if time.monotonic() >= until:
                        raise
                # Two that gave way to each other do not meet again.
                time.sleep(_AGAIN_S * random.uniform(1.0, 3.0))
        except BaseException:
            file.close()
            raise

    def release(self) -> None:
        """Release it and close the file."""
        _held.discard(self)
        self.file.close()
        if self._claim is not None and self._owner == os.getpid():
            self._claim.unlink(missing_ok=True)


_held: WeakSet[Lock] = WeakSet()


def _leave_to_parent() -> None:
    """A forked process, such as a loading one, keeps no lock of a parent that was killed."""
    with open(os.devnull, "rb") as nowhere:
        for lock in _held:
            if not lock.file.closed:
                # What a buffer of the file still has is the parent's to write.
                os.dup2(nowhere.fileno(), lock.file.fileno(), inheritable=False)


os.register_at_fork(after_in_child=_leave_to_parent)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock; on a file system without locks also one of another machine that may not live.

    A file that cannot be opened counts as held.
    """
    try:
        with open_itself(path, "r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError as error:
        return error.errno not in _WITHOUT_LOCKS or _holder(path) is not None
    return False


def _locked(file: IO[Any], path: Path) -> Path | None:
    """Lock an open file; the claim if its file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUse from None
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        return _claimed(path, error)
    return None


def _claimed(path: Path, error: OSError) -> Path:
    if (held := _holder(path)) is not None:
        raise held
    pid = os.getpid()
    claim = path.with_name(f"{_stem(path)}.{pid}-{_started(pid) or 0}-{secrets.token_hex(8)}@{this_machine()}")
    os.close(os.open(claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    # Made first, looked second: of two at the same time at least one sees the other.
    if (held := _holder(path, besides=claim.name)) is not None:
        claim.unlink()
        raise held
    _tell(path, error)
    return claim


def _holder(path: Path, besides: str = "") -> InUse | None:
    """Who has claimed the lock; claims of processes of this machine that have ended are removed."""
    for entry in sorted(os.listdir(path.parent)):
        found = _CLAIM.fullmatch(entry)
        if found is None or found["lock"] != _stem(path) or entry == besides:
            continue
        pid, claim = int(found["pid"]), path.with_name(entry)
        host = found["machine"].rpartition("-")[0]
        if found["machine"] != this_machine():
            ended = f"if process {pid} of {host} has ended, or that machine was started again"
            remedy = f"{ended}: rm {as_typed(claim)}"
            return InUse(f"process {pid} of {host}", remedy)
        if _started(pid) == int(found["started"]):
            return InUse(f"process {pid}")
        with contextlib.suppress(OSError):
            claim.unlink()
    return None


def _stem(path: Path) -> str:
    return f".{path.name.lstrip('.')}"


def _started(pid: int) -> int | None:
    """When a process of this machine started, in ticks; 0 where the system does not tell, None if it has ended."""
    if standing(os.getpid()) is not None:
        found = standing(pid)
        return None if found is None or found.letter in "ZX" else found.started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 0


_told: set[int] = set()
"""Numbers of file systems: a sweep has a lock in each of its folders."""


def _tell(path: Path, error: OSError) -> None:
    number = path.parent.stat().st_dev
    if number not in _told:
        _told.add(number)
        log.warning(
            "the file system of %s has no locks (%s): a file beside it says who works there; of a machine that crashed "
            "it has to be removed by hand",
            path.parent,
            error.strerror,
        )
