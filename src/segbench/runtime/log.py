"""The log of a run: standard error and run.log."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segbench.errors import printable
from segbench.runtime.files import open_itself

TRACEBACK_IN = "the traceback is in "
"""Start of the note that names the file with an error's traceback."""


class _RunLog(logging.FileHandler):
    def _open(self) -> Any:
        return open_itself(Path(self.baseFilename), self.mode)

    def handleError(self, record: logging.LogRecord) -> None:
        # A full disk stops the run at its next important write, not here.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class Printable(logging.Formatter):
    """Control characters are escaped: names that strangers chose are logged."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's line."""
        return printable(super().format(record))


@contextlib.contextmanager
def log_to(path: Path | None) -> Iterator[None]:
    """Log to standard error and to a file; a rank without a file logs only warnings.

    Args:
        path: the run's log, appended to; None on ranks other than 0.
    """
    import lightning  # noqa: F401  - it configures its loggers at import, which would undo the settings below

    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(Printable("%(message)s"))
    console.addFilter(lambda record: not getattr(record, "file_only", False))
    handlers: list[logging.Handler] = [console]
    if path is not None:
        file = _RunLog(path)
        file.setFormatter(Printable("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers.append(file)
    level = root.level
    root.setLevel(logging.INFO if path is not None else logging.WARNING)
    for handler in handlers:
        root.addHandler(handler)
    of_lightning = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in of_lightning]
    for logger in of_lightning:
        # Hides device tables and advertisements; warnings stay.
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            _silence_known()
            yield
    finally:
        root.setLevel(level)
        for logger, set_before in zip(of_lightning, levels, strict=True):
            logger.setLevel(set_before)
        root.handlers = before
        for handler in handlers:
            handler.close()


def write_traceback(path: Path, error: Exception) -> None:
    """Append an error's traceback to a run's log, and add its place as a note to the error.

    Args:
        path: the run's log; further ranks append to it too.
        error: a fault of the program.
    """
    rank = os.environ.get("RANK", "0")
    of_rank = f" of rank {rank}" if rank != "0" else ""
    with contextlib.suppress(OSError):
        with open_itself(path, "a") as file:
            file.write(f"traceback{of_rank}:\n{''.join(traceback.format_exception(error))}")
        error.add_note(f"{TRACEBACK_IN}{path}")


def _silence_known() -> None:
    # Lightning asks for more data workers; on small data they cost more time than they save.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # An epoch may be shorter than the logging interval: steps are counted over the whole run.
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    # Metric states gather values before they are logged.
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
    # The logger takes its name and version from the run directory, which is never empty when it starts.
    warnings.filterwarnings("ignore", message=".*Experiment logs directory.*exists and is not empty.*")
    # On a cluster's login node, a run may be meant for this machine.
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
    # A protocol without a validation split has no loader, on purpose.
    warnings.filterwarnings("ignore", message=".*`list` across ranks is zero.*")
    # Lightning 2.6 gathers with a function that torch 2.13 renames.
    warnings.filterwarnings("ignore", message=".*nn.functional.all_gather is deprecated.*")
    # Lightning 2.6 calls torch's pytree by its former name.
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
    # A run that reached its time limit may continue without one: the Timer callback is gone on purpose.
    warnings.filterwarnings("ignore", message=r".*callbacks used to create the checkpoint.*\['Timer'\].*")
    # Evaluation on several processes is exact here: padding is dropped before it reaches a metric.
    warnings.filterwarnings("ignore", message=".*it is recommended to use a single device.*", category=UserWarning)
