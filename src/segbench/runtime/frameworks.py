"""Importing torch and Lightning, the better part of a job's start."""

from __future__ import annotations

import gc
import sys

from segbench.runtime.threads import watching_cores


def import_frameworks() -> None:
    """Import torch and Lightning without collecting garbage meanwhile; a no-op once they are.

    400,000 objects come with 3,000 modules and all stay: looking for garbage among them takes a seventh of the import,
    and again as long in each full collection later. They are left out of those, too (`gc.freeze`).
    """
    if "lightning.pytorch" in sys.modules:
        return
    enabled = gc.isenabled()
    gc.disable()
    try:
        with watching_cores():
            import lightning.pytorch  # noqa: F401
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
