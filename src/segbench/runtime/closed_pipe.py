"""Output whose reader has left, as `segbench predict ... | head` does: the command ends, and no traceback is shown."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def ends_quietly() -> Iterator[None]:
    """End the process as SIGPIPE would where standard output or error is a pipe that nobody reads any more.

    The signal itself stays ignored: it would also end a process that lost a connection, which can be mended.

    Raises:
        SystemExit: with 141, the status that shells give to SIGPIPE.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        closed = [stream for stream in (sys.stdout, sys.stderr) if _is_closed(stream)]
        if not closed:
            raise
        with open(os.devnull, "w") as nowhere:
            for stream in closed:
                # What is left in its buffer is written when Python ends.
                os.dup2(nowhere.fileno(), stream.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None


def _is_closed(stream: TextIO) -> bool:
    # Asked, not tried by a flush: an unbuffered stream has nothing left to flush.
    asked = select.poll()
    asked.register(stream, 0)
    return bool(asked.poll(0))
