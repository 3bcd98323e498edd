"""Locks between processes, on file systems with `flock` and on those without."""

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from segbench.errors import SegbenchError
from segbench.runtime import locks
from segbench.runtime.locks import InUse, Lock, is_held

WITHOUT = """\
import errno, fcntl, os, sys, time
def none(file, operation):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.flock = none
from pathlib import Path
from segbench.runtime.locks import InUse, Lock
"""


@pytest.fixture(params=["flock", errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def file_system(request, monkeypatch):
    """A file system with locks, or one whose `flock` fails so."""
    if request.param != "flock":

        def none(file, operation):
            raise OSError(request.param, os.strerror(request.param))

        monkeypatch.setattr(fcntl, "flock", none)
    return request.param


@pytest.fixture
def without_locks(monkeypatch):
    def none(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    monkeypatch.setattr(locks, "_told", set())


def test_one_at_a_time_and_no_file_is_left(tmp_path, file_system):
    path = tmp_path / ".lock"
    assert not is_held(path)
    lock = Lock.take(path)
    assert is_held(path)
    with pytest.raises(InUse):
        Lock.take(path)
    lock.release()
    assert not is_held(path)
    Lock.take(path).release()
    assert os.listdir(tmp_path) == [".lock"]


def test_locks_of_one_folder_are_apart(tmp_path, file_system):
    first, second = Lock.take(tmp_path / ".lock"), Lock.take(tmp_path / "record.jsonl", "a+")
    first.release()
    assert not is_held(tmp_path / ".lock")
    assert is_held(tmp_path / "record.jsonl")
    second.release()


def test_who_waits_is_told_once_and_gets_it(tmp_path, file_system):
    first, told = Lock.take(tmp_path / ".lock"), []

    def waiting(held):
        told.append(held)
        first.release()

    Lock.take(tmp_path / ".lock", patience_s=60.0, waiting=waiting).release()
    assert len(told) == 1


def test_a_file_system_without_locks_is_told_once(tmp_path, without_locks, caplog):
    for _ in range(2):
        with caplog.at_level(logging.WARNING):
            Lock.take(tmp_path / ".lock").release()
    (said,) = caplog.messages
    assert said.startswith(f"the file system of {tmp_path} has no locks (No locks available)")


def test_another_error_is_itself(tmp_path, monkeypatch):
    def broken(file, operation):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output error"):
        Lock.take(tmp_path / ".lock")
    assert is_held(tmp_path / ".lock")


def test_without_locks_a_killed_process_holds_nothing(tmp_path, without_locks):
    script = WITHOUT + "lock = Lock.take(Path(sys.argv[1])); print('held', flush=True); time.sleep(600)"
    path = tmp_path / ".lock"
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InUse, match=f"process {other.pid}") as caught:
            Lock.take(path)
        assert caught.value.or_else == ""
        other.kill()
        # Nobody has waited for it: it is a zombie.
        Lock.take(path, patience_s=20.0).release()
    assert os.listdir(tmp_path) == [".lock"]


def test_a_later_process_of_the_same_number_does_not_hold_it(tmp_path, without_locks):
    path = tmp_path / ".lock"
    lock = Lock.take(path)
    (claim,) = set(os.listdir(tmp_path)) - {".lock"}
    started = str(locks._started(os.getpid()))
    os.rename(tmp_path / claim, tmp_path / claim.replace(f"-{started}-", "-1-"))
    assert not is_held(path)
    lock.release()


def test_of_another_machine_it_is_told_how_to_release_it(tmp_path, without_locks, monkeypatch):
    path = tmp_path / ".lock"
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(locks, "this_machine", lambda: "node7-0123")
        lock = Lock.take(path)
    assert is_held(path)
    with pytest.raises(InUse, match=f"process {os.getpid()} of node7") as caught:
        Lock.take(path)
    (claim,) = set(os.listdir(tmp_path)) - {".lock"}
    assert caught.value.or_else.startswith(f"; if process {os.getpid()} of node7 has ended")
    assert caught.value.or_else.endswith(f"rm {tmp_path / claim}")
    lock.release()
    assert not is_held(path)


def test_a_fork_does_not_release_it(tmp_path, without_locks):
    lock = Lock.take(tmp_path / ".lock")
    child = os.fork()
    if child == 0:
        lock.release()
        os._exit(0)
    os.waitpid(child, 0)
    assert is_held(tmp_path / ".lock")
    lock.release()


def test_without_locks_no_two_are_in_at_once(tmp_path):
    # Each adds one to a number, 20 times, by reading and writing it.
    script = WITHOUT + (
        "number = Path(sys.argv[1]).with_name('number')\n"
        "for _ in range(20):\n"
        "    lock = Lock.take(Path(sys.argv[1]), patience_s=60.0)\n"
        "    before = int(number.read_text()); time.sleep(0.001); number.write_text(str(before + 1))\n"
        "    lock.release()\n"
    )
    (tmp_path / "number").write_text("0")
    others = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path / ".lock")]) for _ in range(4)]
    assert [other.wait(60) for other in others] == [0] * 4
    assert (tmp_path / "number").read_text() == "80"
    assert sorted(os.listdir(tmp_path)) == [".lock", "number"]


def test_a_link_is_refused(tmp_path):
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SegbenchError, match="is a link to"):
        Lock.take(tmp_path / ".lock")


def test_a_forked_process_keeps_no_lock_of_its_parent(tmp_path):
    lock, (begun, begins) = Lock.take(tmp_path / "a.lock"), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(begins, b"!")
        time.sleep(60)
        os._exit(0)
    os.read(begun, 1)
    try:
        # As if it were killed: its loading processes live on for a moment.
        lock.release()
        Lock.take(tmp_path / "a.lock").release()
        kept = Lock.take(tmp_path / "a.lock")
        assert is_held(tmp_path / "a.lock")
        kept.release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(begun)
        os.close(begins)


def test_the_parent_keeps_it(tmp_path):
    lock = Lock.take(tmp_path / "a.lock")
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert is_held(tmp_path / "a.lock")
    lock.file.write("kept")
    lock.release()
    assert (tmp_path / "a.lock").read_text() == "kept"
