"""The one error a user sees: what was found, what was expected, what to do next."""

import contextlib
import errno
import re
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a disk, or of what one user or one file may have of it, that is used up."""

# Line feeds and tabs stay; what turns the direction of writing goes.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# As the C library, torch, CUDA, SQLite, OpenCV, numpy and C++ say it, and torch of what a loading process raised; the
# loader of libraries; Python of threads, and of a library in C that forgot to say it.
_NO_MEMORY = re.compile(
    "[Cc]an(?:'t|not) allocate memory|out of memory|Insufficient memory|Unable to allocate [0-9.]+ [kKMGTPE]?i?B|"
    r"bad_alloc|unable to (?:write to file </torch_|allocate shared memory)|Caught \w*MemoryError|Failed to allocate|"
    "failed to map segment|cannot map zero-fill|can't start new thread|error return without exception set"
)
_PARTS = re.compile(r"SegbenchError: (.*?)\n  expected: (.*?)\n  to do:    (.*)", re.DOTALL)


def printable(text: str) -> str:
    """A text with its control characters escaped, so that a name out of a file commands no terminal."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def say(text: object = "", *, file: TextIO | None = None, end: str = "\n", flush: bool = False) -> None:
    """Print a text, in which names may be a stranger's: as `print`, its control characters escaped."""
    print(printable(str(text)), file=file, end=end, flush=flush)


def as_typed(*parts: object) -> str:
    """`key=value`, or a value alone, as a shell takes it: a path in a command that is told may be a stranger's."""
    return shlex.quote("=".join(map(str, parts)))


class SegbenchError(ValueError):
    """Bad input, in three parts.

    The command line prints it without a traceback; a library user catches it as a `ValueError`.

    Args:
        found: what is there, naming the file or the config key.
        expected: what should be there.
        action: what the user does next, as a command or an override where there is one.
    """

    def __init__(self, found: str, expected: str = "", action: str = "") -> None:
        # torch raises a loader process's error again, from its class and the text of its traceback alone.
        if not expected and (parts := _PARTS.search(found)):
            found, expected, action = (part.strip() for part in parts.groups())
        found, expected, action = map(printable, (found, expected, action))
        self.found, self.expected, self.action = found, expected, action
        super().__init__(f"{found}\n  expected: {expected}\n  to do:    {action}")

    def __reduce__(self) -> tuple[type["SegbenchError"], tuple[str, str, str]]:
        """Pickle by the three parts, so that it can pass between processes."""
        return type(self), (self.found, self.expected, self.action)


def not_installed(package: str, extra: str) -> SegbenchError:
    """The error where a package is missing that an extra of segbench installs."""
    return SegbenchError(
        f"{package} is not installed", f"the extra {extra} of segbench", f"pip install 'segbench[{extra}]'"
    )


def memory_ran_out(error: BaseException) -> bool:
    """Whether it is memory that ran out, whichever library says so, here or in a loading process.

    A library may raise something else over it, such as that a file of its own is missing.
    """
    met: list[BaseException] = []
    left: BaseException | None = error
    while left is not None and left not in met and not isinstance(left, SegbenchError):
        if isinstance(left, MemoryError) or type(left).__name__ == "OutOfMemoryError" or _NO_MEMORY.search(str(left)):
            return True
        met.append(left)
        left = left.__cause__ or (None if left.__suppress_context__ else left.__context__)
    return False


def no_room(path: Path, error: Exception) -> SegbenchError:
    """The error for a file that memory ran out over, which need not be the file's fault."""
    return SegbenchError(
        f"{path} cannot be read, since memory ran out: {type(error).__name__}: {' '.join(str(error).split())[:400]}",
        "room for what it holds, or a whole file, since a damaged one may ask for any amount",
        "set fewer data.num_workers where processes load, or give it more memory; else fetch or write the file again",
    )


def check(key: str, value: object, good: bool, expected: str, instead: object) -> None:
    """Refuse a setting unless it is good.

    Args:
        key: its config key; words after the first are shown but are not part of the key.
        value: what was given.
        good: whether it is accepted.
        expected: what is accepted.
        instead: a value that is accepted.

    Raises:
        SegbenchError: it is not good.
    """
    if not good:
        given, other = ("null" if each is None else each for each in (value, instead))
        raise SegbenchError(f"{key}={given}", expected, f"set {key.split()[0]}={other}")


def check_one_of(key: str, value: object, known: tuple[str, ...]) -> None:
    """Refuse a setting that is not one of `known`, whose first is recommended."""
    check(key, value, value in known, " or ".join(known), known[0])


def not_given(key: str) -> SegbenchError:
    """The error of a command without a setting that it needs."""
    return SegbenchError(
        f"{key} is not given", f"a value for {key}", f"add {key}=... to the command; its --help says what it takes"
    )


def refuse_no_file(path: Path) -> None:
    """Refuse a pipe, a socket or a device: to read it waits for ever, or goes on without end.

    Args:
        path: what is to be read; a folder passes, and a link to a file.

    Raises:
        OSError: it is one, or cannot be looked at.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "a pipe, a socket or a device, not a file", str(path))


@contextlib.contextmanager
def reading(path: Path, kind: str, expected: str = "", action: str = "fetch or write it again") -> Iterator[None]:
    """The one place where what a format's library raises over a file becomes the user's error.

    Libraries end in errors of any class over a damaged file, of memory and recursion too.

    Args:
        path: the file, or a folder that is one of a format.
        kind: as which it is read, e.g. TIFF.
        expected: what should be there; "a whole TIFF file" if empty.
        action: what the user does next.

    Raises:
        SegbenchError: for any error within; one of ours as it is.
    """
    try:
        refuse_no_file(path)
        yield
    except SegbenchError:
        raise
    except Exception as error:
        raise unreadable(path, kind, error, expected, action) from error


def unreadable(
    path: Path, kind: str, error: Exception, expected: str = "", action: str = "fetch or write it again"
) -> SegbenchError:
    """The error of `reading`."""
    if memory_ran_out(error):
        return no_room(path, error)
    size = f" ({path.stat().st_size} bytes)" if path.is_file() else ""
    text = " ".join(str(error).split())[:400]
    # The message of a lookup is the key alone, and that of a failed assertion nothing.
    plain = bool(text) and isinstance(error, OSError | ValueError | RuntimeError)
    why = text if plain else f"{type(error).__name__}{f': {text}' if text else ''}"
    return SegbenchError(f"{path}{size} cannot be read as {kind}: {why}", expected or f"a whole {kind} file", action)
