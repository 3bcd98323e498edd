"""The processes of a run: who started them, which one this is, and how they end with their parent."""

from __future__ import annotations

import ctypes
import functools
import os
import re
import secrets
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

_PR_SET_PDEATHSIG = 1

STARTED = "SEGBENCH_RANKS_STARTED"
"""Set in the environment of a run whose further processes were started by `segbench.runtime.ranks`."""

Starter = Literal["torchrun", "srun", "segbench"]


class Standing(NamedTuple):
    """How a thread or a process stands, by the system.

    Attributes:
        letter: R, S, D, T (stopped by a signal), Z (ended, but nobody has looked), ...
        busy: ticks of processor time so far.
        started: ticks from the start of the machine to its own.
    """

    letter: str
    busy: int
    started: int

    @property
    def stopped(self) -> bool:
        """Whether a signal has stopped it."""
        return self.letter == "T"


def standing(pid: int, thread: int | None = None) -> Standing | None:
    """How a process of this machine stands, or one of its threads; None if it is gone, and without Linux's /proc."""
    try:
        # The name of the program, in parentheses, may hold anything.
        told = Path(f"/proc/{pid}" if thread is None else f"/proc/{pid}/task/{thread}", "stat").read_text(
            errors="replace"
        )
    except OSError:
        return None
    fields = told.rpartition(")")[2].split()
    return Standing(fields[0], int(fields[11]) + int(fields[12]), int(fields[19]))


@functools.cache
def this_machine() -> str:
    """The machine's name, and what tells it from others of that name.

    Also from itself before it was started again, and a container from others, which number their processes anew.
    """
    name = re.sub(r"[^\w.]", "_", socket.gethostname())
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:16]
        return f"{name}-{boot}{os.stat('/proc/self/ns/pid').st_ino:x}"
    except OSError:
        return f"{name}-0"


def end_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when its parent ends, however it ends; Linux only, elsewhere a no-op.

    The kernel watches the thread that started this process, not the whole parent: start it from a thread that lives
    as long as the process should.

    Args:
        parent: the id of the parent, if known, to notice that it ended before this call. None: the current parent.
    """
    if not sys.platform.startswith("linux"):
        return
    expected = os.getppid() if parent is None else parent
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != expected:
        os.kill(os.getpid(), signal.SIGKILL)


def started_by(environment: Mapping[str, str] = os.environ) -> Starter | None:
    """Who started the ranks of this run: torchrun, srun with several tasks, this package, or None if not started."""
    if STARTED in environment:
        return "segbench"
    if "TORCHELASTIC_RUN_ID" in environment:
        return "torchrun"
    # The batch script is not a step; a step of one task starts its own ranks, as on any machine.
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_PROCID" in environment:
        return "srun"
    return None


def is_main_process() -> bool:
    """Whether this is rank 0, the process that writes; works before the process group exists."""
    ranks = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return next((rank for rank in ranks if rank is not None), "0") == "0"


def choose_run_id() -> str:
    """Name this run, once, before it launches processes: they inherit the name through the environment."""
    return os.environ.setdefault("SEGBENCH_RUN_ID", new_run_id())


def new_run_id() -> str:
    """A name for a run: the time, and a part by which two that begin in the same second differ."""
    return f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{secrets.token_hex(2)}"
