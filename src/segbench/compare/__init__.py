"""Comparing runs: settings, scores, and whether a difference is more than noise.

`compare` reads, groups and tests runs: `read_runs` -> `group_runs` -> `compare_groups` -> `Comparison`, which the
formats show. Calling the package is calling it. Nothing here imports torch, and importing this package alone loads none
of its modules.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segbench.compare.comparing import compare

__all__ = ["compare"]


def __getattr__(name: str) -> Any:
    if name != "compare":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from segbench.compare.comparing import compare

    globals()[name] = compare
    return compare


class _Callable(ModuleType):
    def __call__(self, *arguments: Any, **named: Any) -> Any:
        from segbench.compare.comparing import compare

        return compare(*arguments, **named)


sys.modules[__name__].__class__ = _Callable
