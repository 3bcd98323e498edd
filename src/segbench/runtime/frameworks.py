"""Importing torch and Lightning, the better part of a job's start."""

from __future__ import annotations

import gc
import sys

from segbench.runtime.threads import watching_cores

_ours = False


def in_a_command() -> None:
    """Say that this process is a command of ours, and no program that imports segbench."""
    global _ours
    _ours = True


def import_frameworks() -> None:
    """Import torch and Lightning without collecting garbage meanwhile; a no-op once they are.

    400,000 objects come with 3,000 modules and all stay: looking for garbage among them takes a seventh of the import,
    and again as long in each full collection later. Commands leave them out of those, too (`gc.freeze`); a program that
    imports segbench has objects of its own by then, which may be garbage later.
    """
    if "lightning.pytorch" in sys.modules:
        return
    enabled = gc.isenabled()
    gc.disable()
    try:
        with watching_cores():
            import lightning.pytorch  # noqa: F401
    finally:
        if _ours:
            gc.freeze()
        if enabled:
            gc.enable()
