"""A run in progress: its signals, its log, and its final state, however it ends."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from segbench.config.explain import of_torch
from segbench.errors import FULL, SegbenchError
from segbench.runs.directory import Refused, Run, disk_full
from segbench.runtime.log import log_to, write_traceback
from segbench.runtime.processes import is_main_process
from segbench.runtime.signals import Stopped, name_of, received, stoppable

log = logging.getLogger(__name__)


@contextlib.contextmanager
def running(run: Run) -> Iterator[None]:
    """Run the block as the owner of a run directory, or as a further rank of the owner.

    Raises:
        Stopped: a signal ended it; also replaces errors that the signal caused.
        SegbenchError: the disk or a GPU's memory is full, or an operation is forbidden by `trainer.deterministic`.
    """
    first = is_main_process()
    with stoppable(), run, log_to(run.path / "run.log" if first else None):
        state, reason, before = "failed", None, run.state()
        try:
            if first:
                log.info("run: %s", run.path)
                run.set_state("running")
            yield
            state = "finished"
        except BaseException as error:
            state, reason = _ended(error)
            if isinstance(error, Refused) and before == "finished":
                # Its results still match its checkpoint.
                state, reason = before, None
            if signum := received():
                _log_stopped(run, signum, error)
                if not isinstance(error, Stopped):
                    # The same signal also reached a worker or a rank, which failed.
                    raise Stopped(signum) from error
            if isinstance(error, OSError) and error.errno in FULL:
                raise disk_full(run.path, error) from error
            if isinstance(error, Exception) and not isinstance(error, SegbenchError):
                write_traceback(run.path / "run.log", error)
            if (told := of_torch(error)) is not None:
                raise told from error
            raise
        finally:
            if first:
                run.close(state, reason)


def _ended(error: BaseException) -> tuple[str, str | None]:
    if received() or not isinstance(error, Exception):
        return "interrupted", None
    told = of_torch(error) or error
    return "failed", f"{told}" if isinstance(told, SegbenchError) else f"{type(error).__name__}: {error}"


def _log_stopped(run: Run, signum: int, error: BaseException) -> None:
    if isinstance(error, Exception):
        log.warning("%s: %s", type(error).__name__, error)
    log.info("stopped by %s in %s", name_of(signum), run.path)
