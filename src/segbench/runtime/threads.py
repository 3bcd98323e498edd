"""How many CPU threads a process of a run uses: settled once when the run begins, for every library.

The threads of a loop wait for one another at its end. If another program holds the core of one thread, all wait until
the kernel frees it, many times a step: one thread more than there are free cores makes a step slower, not faster.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from segbench.errors import SegbenchError
from segbench.runtime.processes import started_by

MOST = 1024
"""The largest `threads`: more than any machine has cores, and far fewer than a typing error asks for."""
_SAMPLE_S = 0.2
"""Twenty ticks of Linux's clock per core: enough to tell busy cores from idle ones."""
_FRESH_S = 5.0
"""The age of a sample that still tells of the present."""


def settle_threads(setting: object, processes_here: int) -> tuple[int, str]:
    """The number of threads per process that the setting `threads` means on this machine now.

    `auto` is OMP_NUM_THREADS if set, by the user or by a sweep that divides the cores. Otherwise it is
    the number of idle cores, divided among the run's processes. Processes that torchrun or srun started cannot agree on
    a measurement: they divide all cores, idle or not.

    Args:
        setting: `auto` or a number.
        processes_here: processes of this run on this machine.

    Returns:
        at least 1, and a sentence for the log.

    Raises:
        SegbenchError: it is neither `auto` nor a whole number from 1 to `MOST`.
    """
    cores = len(allowed_cores())
    if setting != "auto":
        if type(setting) is not int or not 1 <= setting <= MOST:
            raise SegbenchError(f"threads={setting}", f"auto, or a whole number from 1 to {MOST}", "correct threads=")
        more = f", more than the {cores} cores here" if setting > cores else ""
        return setting, f"threads: {setting}, as configured{more}"
    # OpenMP accepts a list: one number for each level of nested loops.
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if given.isdecimal() and 1 <= int(given) <= MOST:
        return int(given), f"threads: {given}, from OMP_NUM_THREADS (threads=N sets another number)"
    free, reason = float(cores), f"{cores} cores"
    if started_by() is None and (idle := _idle_cores()) is not None:
        free, reason = idle, f"{idle:.1f} of {cores} cores idle"
    if (quota := cpu_quota()) is not None and quota < free:
        free, reason = quota, f"{reason}, a cgroup allows {quota:g}"
    if processes_here > 1:
        reason = f"{reason}, for {processes_here} processes"
    count = min(max(1, int(free / processes_here + 0.5)), MOST)
    return count, f"threads: {count} ({reason}; threads=N sets another number)"


def divided(count: int, processes_here: int) -> int:
    """The recorded threads of a run, or fewer where now several processes share the cores of this machine."""
    cores = len(allowed_cores())
    return count if processes_here == 1 or count * processes_here <= cores else max(1, cores // processes_here)


def use_threads(count: int) -> None:
    """Set the threads of torch, OpenCV and numba in this process, at least 1; numba's are capped at its pool size."""
    import cv2
    import numba
    import torch

    # numba first: starting its threads sets OpenMP, and so torch, to the number of all cores.
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(count)
    cv2.setNumThreads(count)


def allowed_cores() -> Set[int]:
    """The numbers of the CPU cores that this process may use; all of the machine if the system does not tell."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def free_cores(before: str, after: str, allowed: Set[int], own: float = 0.0) -> float | None:
    """How many of the allowed cores other programs left idle between two readings of /proc/stat.

    Args:
        before: the first reading.
        after: the second one.
        allowed: numbers of cores.
        own: ticks that this process computed on them meanwhile.

    Returns:
        0 to their number; None if the readings do not tell.
    """
    idle = total = 0
    for core, (waited, passed) in _ticks(after).items():
        if core in allowed and core in (then := _ticks(before)):
            # The count of disk waits may decrease on Linux.
            idle += max(0, waited - then[core][0])
            total += passed - then[core][1]
    return len(allowed) * min(1.0, (idle + own) / total) if total > 0 else None


def _ticks(reading: str) -> dict[int, tuple[int, int]]:
    # cpuN user nice system idle iowait irq softirq steal, then guests, whose time is in user and nice.
    rows = (line.split()[:9] for line in reading.splitlines())
    cores = {int(name[3:]): [*map(int, ticks)] for name, *ticks in rows if name[:3] == "cpu" and name != "cpu"}
    return {core: (ticks[3] + ticks[4], sum(ticks)) for core, ticks in cores.items()}


@dataclass(frozen=True)
class _Reading:
    clock_s: float
    own_s: float
    stat: str

    @staticmethod
    def now() -> _Reading:
        return _Reading(time.monotonic(), time.process_time(), _read(Path("/proc/stat")))


_watched: list[_Reading] = []


@contextlib.contextmanager
def watching_cores() -> Iterator[None]:
    """Let the next `settle_threads` count the idle cores over this block, where it would wait for a sample."""
    before = _Reading.now()
    yield
    _watched[:] = [before, _Reading.now()]


def _idle_cores() -> float | None:
    before, after = _watched or (_Reading.now(), _Reading.now())
    _watched.clear()
    if not before.stat:
        return None
    if after.clock_s - before.clock_s < _SAMPLE_S or time.monotonic() - after.clock_s > _FRESH_S:
        before = _Reading.now()
        time.sleep(_SAMPLE_S)
        after = _Reading.now()
    ticks = os.sysconf("SC_CLK_TCK") * (after.own_s - before.own_s)
    return free_cores(before.stat, after.stat, allowed_cores(), ticks)


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPU limit of this process's cgroups, in cores: the smallest of its group and the groups above.

    Args:
        root: of the file system, with `proc/self/cgroup` and `sys/fs/cgroup`.

    Returns:
        None if there is no limit.
    """
    limits = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        # cgroup v2 has one tree, v1 one for each set of controllers.
        tree = root / "sys/fs/cgroup" / controllers
        own = tree / path.lstrip("/")
        # In a container the path is often the host's: our group is then the root of the tree.
        for group in (own, *(above for above in own.parents if above.is_relative_to(tree))):
            both = _read(group / "cpu.max") or " ".join(
                _read(group / f"cpu.cfs_{part}_us") for part in ("quota", "period")
            )
            match both.split():
                case [quota, period] if quota.isdecimal():
                    limits.append(int(quota) / int(period))
    return min(limits, default=None)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
