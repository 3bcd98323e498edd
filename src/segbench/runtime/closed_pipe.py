"""A closed output pipe, as in `segbench predict ... | head`, ends the command without a traceback."""

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
    """End the process as SIGPIPE would when standard output or error is a closed pipe.

    The signal itself stays ignored: it would also kill a process that lost a network connection, which it can restore.

    Raises:
        SystemExit: with 141, the shell's status for SIGPIPE.
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
                # Python flushes the rest of the buffer at exit.
                os.dup2(nowhere.fileno(), stream.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None


def _is_closed(stream: TextIO) -> bool:
    # Polled, since flushing an unbuffered stream would do nothing.
    asked = select.poll()
    asked.register(stream, 0)
    return bool(asked.poll(0))
