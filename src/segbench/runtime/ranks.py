"""Start, watch and end the further processes of a run on several devices.

Each reads the configuration that the first process wrote into the run directory, so it is the same run wherever it was
called from: a command, a sweep's job, a notebook. The first process logs the output of the others.

    python -m segbench.cli.rank train|evaluate DIRECTORY PARENT'S_ID [trainer.max_steps=N ...]
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.config.trust import VARIABLE, added_targets
from segbench.errors import SegbenchError, as_typed
from segbench.runtime.processes import STARTED, choose_run_id, end_with_parent, standing, started_by
from segbench.runtime.signals import Stopped, heard_at_once

if TYPE_CHECKING:
    from segbench.config.record import Trainer
    from segbench.runs.directory import Run

log = logging.getLogger(__name__)

_FAILED_S = 30.0
"""How long the first process may take to notice a failed one: it usually does by itself, but NCCL may not."""
_STOPPED_S = 2.0
"""After a signal: how long a rank may be stopped, which a shell that stops and continues them all makes it, too."""
_IDLE_S = 7.0
"""After a signal: how long the first process may wait for one that does nothing."""
_NOTICED_S = 10.0
"""How long the ranks that waited in vain may take to notice, from one to the next."""
_END_S = 60.0
"""How long a rank may take to exit after the first one is done."""


class _Rank:
    """One further process; a thread logs its output and waits for its end."""

    def __init__(self, number: int, command: Sequence[str], environment: Mapping[str, str], ranks: _Ranks) -> None:
        self.number, self._ranks = number, ranks
        self.printed: deque[str] = deque(maxlen=20)
        self.code: int | None = None
        self.process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                # torch prefixes the lines of a traceback with the rank.
                self.printed.append(line.rstrip().removeprefix(f"[rank{self.number}]: "))
                if not self._ranks.ending:
                    log.warning("rank %d: %s", self.number, self.printed[-1])
        self.code = self.process.wait()
        if self.code != 0:
            self._ranks.lost(self)

    def wait(self, until: float) -> bool:
        """Wait until a time; whether it has ended."""
        self._thread.join(max(0.0, until - time.monotonic()))
        return not self._thread.is_alive()

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self._thread.join()


class _Ranks:
    def __init__(self, run: Run) -> None:
        self._run = run
        self.ranks: list[_Rank] = []
        self.ending = False
        self.failed: _Rank | None = None
        self.noticed = threading.Event()

    def lost(self, rank: _Rank) -> None:
        """Record a failed rank; the first process is killed if it does not notice."""
        if self.ending or self.failed is not None:
            return
        self.failed = rank
        self.noticed.set()
        timer = threading.Timer(_FAILED_S, self._give_up)
        timer.daemon = True
        timer.start()

    def error(self) -> SegbenchError:
        """The error of the run after a rank failed."""
        assert self.failed is not None
        code, number = self.failed.code, self.failed.number
        ended = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        last = next((line for line in self.failed.printed if line.startswith("error: ")), None)
        last = last or (self.failed.printed[-1] if self.failed.printed else "it printed nothing")
        return SegbenchError(
            f"rank {number} of {len(self.ranks) + 1} {ended}: {last.removeprefix('error: ')}",
            "all processes to run to the end",
            f"see its output above and in {self._run.path / 'run.log'}; "
            f"then continue with: segbench train {as_typed('resume', self._run.path)}",
        )

    def _give_up(self) -> None:
        if not self.ending:
            self._leave(self.error(), "failed", 1)

    def asked_to_end(self) -> None:
        """After a signal: do not wait for a rank that is stopped, or does nothing while this process waits for it."""
        stopped: dict[int, float] = {}
        idle: dict[int, tuple[object, float]] = {}
        while not self.ending:
            now = time.monotonic()
            for rank in self.ranks:
                pid, number = rank.process.pid, rank.number
                found = standing(pid)
                if found is None or not found.stopped:
                    stopped.pop(number, None)
                if found is None:
                    continue
                waits = _waits_for_others()
                seen = None if waits is None else (waits, found.busy)
                if idle.get(number, (None, now))[0] != seen:
                    idle[number] = (seen, now)
                why = None
                if found.stopped and now - stopped.setdefault(number, now) >= _STOPPED_S:
                    why = "is stopped"
                elif seen is not None and now - idle[number][1] >= _IDLE_S:
                    why = "does nothing"
                if why is not None:
                    error = SegbenchError(
                        f"rank {number} of {len(self.ranks) + 1} (process {pid}) {why}, so that no checkpoint of this "
                        "step can be written",
                        "all processes to end their step after a signal",
                        f"continue from the last checkpoint: segbench train {as_typed('resume', self._run.path)}",
                    )
                    self._leave(error, "interrupted", 143)
            time.sleep(0.2)

    def _leave(self, error: SegbenchError, state: str, code: int) -> None:
        self.ending = True
        log.error("error: %s", error)
        self._run.close(state, str(error))
        for rank in self.ranks:
            rank.process.kill()
        # The main thread waits for another process, where no exception can reach it.
        os._exit(code)

    def end(self, seconds: float) -> None:
        """Wait for them to exit, then kill those that remain."""
        until = time.monotonic() + seconds
        for rank in self.ranks:
            if not rank.wait(until):
                if seconds:
                    log.warning("rank %d did not exit within %.0f s and was killed", rank.number, seconds)
                self.ending = True
                rank.kill()


@contextlib.contextmanager
def further_ranks(
    what: str, run: Run, trainer: Trainer, timeout_s: float, arguments: Sequence[str] = ()
) -> Iterator[None]:
    """Run the block on as many processes as the Trainer has devices; no-op if torchrun or srun started them.

    Args:
        what: `train` or `evaluate`.
        run: its directory, with the configuration in it.
        trainer: the section, with `devices` settled.
        timeout_s: how long a process waits for another one; for the error.
        arguments: for `segbench.cli.rank`: in training, changes to the recorded configuration.

    Raises:
        SegbenchError: a process failed, or did not answer.
    """
    count = trainer.processes_here
    if count == 1 or started_by() is not None:
        with _naming_the_silent(run, trainer.processes, timeout_s):
            yield
        return
    import torch.distributed as dist
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    # It listens before the port is passed on, so no one else can take it; torch's store for the run shares it.
    store = TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False, multi_tenant=True)
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "NODE_RANK": "0",
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        VARIABLE: ",".join(sorted(added_targets())),
        STARTED: "1",
    }
    # -P: no modules from the working directory, unless the first process takes them from there.
    command = [sys.executable, "-P", "-m", "segbench.cli.rank", what, str(run.path), str(os.getpid()), *arguments]
    ranks = _Ranks(run)
    with _environment(shared | {"RANK": "0", "LOCAL_RANK": "0"}), heard_at_once(ranks.asked_to_end):
        log.info("%d processes on this machine", count)
        try:
            for number in range(1, count):
                own = {"RANK": str(number), "LOCAL_RANK": str(number)}
                ranks.ranks.append(_Rank(number, command, os.environ | own, ranks))
            with _naming_the_silent(run, count, timeout_s, ranks):
                yield
        except Stopped:
            leave_group(_FAILED_S)
            ranks.end(_FAILED_S)
            raise
        except RuntimeError as error:
            # A process sees this when another one dies; the cause is known once that has ended.
            ranks.noticed.wait(_FAILED_S if isinstance(error, dist.DistError) or "gloo" in str(error) else 0.0)
            ranks.ending = True
            if ranks.failed is not None:
                raise ranks.error() from error
            raise
        else:
            leave_group(_END_S)
            ranks.end(_END_S)
        finally:
            ranks.ending = True
            ranks.end(0.0)
            if dist.is_initialized() and (dist.get_backend() == "gloo" or sys.exc_info()[0] is None):
                dist.destroy_process_group()


def leave_group(seconds: float) -> None:
    """Destroy the process group of ranks that this package started, once all of them are here.

    NCCL destroys its part together, so a rank that begins alone waits for the others; the first process, which writes
    the results, would in turn wait for that rank to exit. So they meet on the CPU first, in the run's store. The group
    is left as it is if one does not come.

    Args:
        seconds: to wait for the others.
    """
    import torch.distributed as dist
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    if not dist.is_initialized():
        return
    patience = timedelta(seconds=seconds)
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    store.set(f"segbench/leaves/{dist.get_rank()}", "")
    try:
        store.wait([f"segbench/leaves/{rank}" for rank in range(dist.get_world_size())], patience)
    except dist.DistStoreError:
        return
    dist.destroy_process_group()


@contextlib.contextmanager
def _naming_the_silent(run: Run, count: int, timeout_s: float, ranks: _Ranks | None = None) -> Iterator[None]:
    """Turn the error of a rank that waited in vain into one that names whom it waited for."""
    import torch.distributed as dist

    try:
        yield
    except RuntimeError as error:
        if count == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        said = str(error).lower()
        # Processes that could not meet have not waited for each other.
        in_vain = ("timed out" in said or "timeout" in said) and "connectfullmesh" not in said
        silent = silent_ranks(count, _NOTICED_S if in_vain else 0.0)
        if not in_vain:
            raise
        names = f"rank{'s' if len(silent) > 1 else ''} {', '.join(map(str, silent))}" if silent else "one of the ranks"
        of_silent = [rank.process.pid for rank in (ranks.ranks if ranks else ()) if rank.number in silent]
        stopped = [pid for pid in of_silent if (found := standing(pid)) is not None and found.stopped]
        raise SegbenchError(
            f"{names} of {count} did not answer within {timeout_s:g} s (runtime.timeout_s)"
            + "".join(f"; process {pid} is stopped (kill -CONT {pid} lets it go on)" for pid in stopped),
            "each process to take part in every step",
            f"see what it waited for (a disk, a debugger, a full machine), and continue with: segbench train "
            f"{as_typed('resume', run.path)}; if it was only slow, add runtime.timeout_s={2 * timeout_s:g}",
        ) from error


def silent_ranks(count: int, seconds: float) -> list[int]:
    """Tell the others that this rank noticed a failure between the processes, and ask who did not.

    Args:
        count: the number of ranks; Lightning has removed it from the environment.
        seconds: how long the others may take.

    Returns:
        the ranks that did not notice: those that everybody waits for.
    """
    import torch.distributed as dist
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    key, until = "segbench/noticed/{}".format, time.monotonic() + seconds
    own = os.environ["RANK" if "RANK" in os.environ else "SLURM_PROCID"]
    try:
        where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(*where, is_master=False, timeout=timedelta(seconds=max(seconds, 1.0)))
        store.set(key(own), "")
        while (missing := [rank for rank in range(count) if not store.check([key(rank)])]) and time.monotonic() < until:
            time.sleep(0.1)
    except (KeyError, dist.DistError):
        # It is the first process that keeps the store.
        return [0]
    return missing


def _waits_for_others() -> object:
    """Where the main thread waits for other processes, and how busy it was so far; None if it does something else."""
    main = threading.main_thread()
    frame = sys._current_frames().get(main.ident or 0)
    if frame is None:
        return None
    place = Path(frame.f_code.co_filename)
    waits = {"distributed", "autograd"} & {*place.parts[-4:]} and "torch" in place.parts
    if not waits and place.name not in ("in_step.py", "ranks.py"):
        return None
    found = standing(os.getpid(), main.native_id)
    return None if found is None else (place, frame.f_lineno, found.busy)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    # Lightning sets OMP_NUM_THREADS and never resets it.
    before = {name: os.environ.get(name) for name in (*variables, "OMP_NUM_THREADS")}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def name_run() -> None:
    """Name this run, the same on all ranks: torchrun's agree through their store, srun's use the job's number.

    A run that torchrun or Slurm restarts keeps its name.
    """
    starter = started_by()
    if starter == "torchrun":
        # The agent may be killed before it can end its processes.
        end_with_parent()
        if "SEGBENCH_RUN_ID" not in os.environ:
            os.environ["SEGBENCH_RUN_ID"] = _agreed_name()
        if started_again() and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            _meet_anew()
    elif starter == "srun":
        job, step = os.environ.get("SLURM_JOB_ID", "job"), os.environ.get("SLURM_STEP_ID", "0")
        os.environ.setdefault("SEGBENCH_RUN_ID", f"slurm_{job}.{step}")
    choose_run_id()


def _meet_anew() -> None:
    """Let processes that torchrun has restarted meet in a store of their own, which the first of them keeps.

    In that of torchrun, torch 2.13 finds the addresses of the processes before them, and waits for those.
    """
    store, key = _store_of_torchrun(), f"segbench/port/{os.environ['TORCHELASTIC_RESTART_COUNT']}"
    if os.environ["RANK"] == "0":
        with socket.socket() as free:
            free.bind(("", 0))
            store.set(key, str(free.getsockname()[1]))
    port: bytes = store.get(key)
    os.environ |= {"MASTER_PORT": port.decode(), "TORCHELASTIC_USE_AGENT_STORE": "False"}


def _store_of_torchrun() -> Any:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    return TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)


def _agreed_name() -> str:
    store = _store_of_torchrun()
    if os.environ["RANK"] == "0":
        # Keeps the name that an earlier attempt has set.
        store.compare_set("segbench/run_id", "", choose_run_id())
    name: bytes = store.get("segbench/run_id")
    return name.decode()


def started_again() -> bool:
    """Whether torchrun or Slurm has restarted these processes."""
    return any(int(os.environ.get(name) or 0) > 0 for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))
