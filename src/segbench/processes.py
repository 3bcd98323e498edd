"""The processes of a run: who started them, which one this is, and that none outlives its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from typing import Literal

_PR_SET_PDEATHSIG = 1

STARTED = "SEGBENCH_RANKS_STARTED"
"""Set in the environment of a run whose further processes were started by `segbench.ranks`."""

Starter = Literal["torchrun", "srun", "segbench"]


def end_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when its parent ends, however it ends; Linux only, elsewhere nothing.

    The kernel watches the thread that started this process, not the parent as a whole: start it from a thread that
    lives as long as the process is to live.

    Args:
        parent: the id of the process that started this one, where it is known: a parent that ended before this call
            is then noticed. None takes the parent of this moment.
    """
    if not sys.platform.startswith("linux"):
        return
    expected = os.getppid() if parent is None else parent
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != expected:
        os.kill(os.getpid(), signal.SIGKILL)


def started_by(environment: Mapping[str, str] = os.environ) -> Starter | None:
    """Who started the ranks of this run: torchrun, srun with several tasks, this package, or (None) nobody so far."""
    if STARTED in environment:
        return "segbench"
    if "TORCHELASTIC_RUN_ID" in environment:
        return "torchrun"
    # The batch script itself is no step, and a step of one task starts its further ranks like any other machine.
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_PROCID" in environment:
        return "srun"
    return None
