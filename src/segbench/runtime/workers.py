"""How many loading processes `data.num_workers: auto` means: settled once when the run begins."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from segbench.runtime.threads import allowed_cores, cpu_quota

MOST_WORKERS = 6
"""What `auto` takes at most: two to four keep an H100 busy with tiles of 572 pixels, five with batches of eight."""
CORES = "SEGBENCH_CORES"
"""Variable in which a sweep that divides this machine among its jobs tells each of them how many cores it has."""
LOW_SHARED_MEMORY = 2**30
"""Bytes of shared memory below which loading processes may fail: their batches pass through it. Docker gives 64 MB."""


def settle_workers(on_gpu: bool, processes_here: int) -> tuple[int, str]:
    """The number of loading processes of each process of a run.

    On a GPU: the cores that a process of the run may use but one, at most `MOST_WORKERS`. On a CPU none: the network
    takes every core. It depends on the machine alone, not on what else runs there: all processes of a run settle the
    same. A loader with fewer batches starts fewer.

    Args:
        on_gpu: where the network is.
        processes_here: processes of this run on this machine, which divide its cores.

    Returns:
        at least 0, and a sentence for the log.
    """
    own = "data.num_workers=N sets another number"
    if not on_gpu:
        return 0, f"data.num_workers: 0 (on a CPU the network takes the cores; {own})"
    shared = shared_memory()
    # All of it: what is free changes between the processes of a run.
    if shared is not None and shared[0] < LOW_SHARED_MEMORY:
        low = f"{shared[0] / 2**30:.2f} GiB of shared memory, through which loading processes pass their batches"
        return 0, f"data.num_workers: 0 ({low}: docker run --shm-size=8g; {own})"
    cores: float = len(allowed_cores())
    if (quota := cpu_quota()) is not None:
        cores = min(cores, quota)
    given = os.environ.get(CORES, "")
    if given.isdecimal():
        cores = min(cores, int(given))
    count = max(0, min(int(cores / processes_here) - 1, MOST_WORKERS))
    among = f" for {processes_here} processes" if processes_here > 1 else ""
    return count, f"data.num_workers: {count} ({cores:g} cores{among}; {own})"


def shared_memory() -> tuple[int, int] | None:
    """Bytes of shared memory, all and free ones; None where the system has no such folder."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return None
    usage = shutil.disk_usage(folder)
    return usage.total, usage.free
